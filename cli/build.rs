//! Embeds the error pages of `spec/errors/` for `tacit explain`.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../spec/errors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    pages.sort_by_key(std::fs::DirEntry::file_name);
    let mut out = String::from("/// Error pages, by code.\nconst ERROR_PAGES: &[(&str, &str)] = &[\n");
    for page in pages {
        let path = page.path();
        if let (Some("md"), Some(code)) =
            (path.extension().and_then(|e| e.to_str()), path.file_stem().and_then(|s| s.to_str()))
        {
            writeln!(out, "    ({code:?}, include_str!({:?})),", path.canonicalize()?)?;
        }
    }
    out.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("error_pages.rs"), out)?;
    Ok(())
}
