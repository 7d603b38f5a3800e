//! Compiler tools: `opt`, `passes`, `explain`.

use super::{options, say};
use crate::args::Opt;
use crate::files;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use tacit_compiler::passes::{DriverOptions, PASSES, PIPELINE, PassCx, parse_ir, print_ir, run_passes};
use tacit_ir::diag::{Code, Diagnostic, Result};

pub(super) fn opt(args: &Opt) -> Result<()> {
    let source = if args.file == Path::new("-") {
        let mut source = String::new();
        std::io::stdin()
            .read_to_string(&mut source)
            .map_err(|why| Diagnostic::new(Code::FileUnreadable, why.to_string()).at("standard input"))?;
        source
    } else {
        files::read_text(&args.file)?
    };
    let ir = parse_ir(&source).map_err(|why| files::within(why, &args.file))?;
    let names: Vec<&str> = if args.passes.is_empty() {
        // The rest of the pipeline, from the first pass that takes the stage.
        let takes =
            |name: &&str| PASSES.iter().any(|pass| pass.info.name == *name && pass.info.from.contains(&ir.stage()));
        let from = PIPELINE.iter().position(takes).unwrap_or(0);
        PIPELINE[from..].to_vec()
    } else {
        args.passes.iter().map(String::as_str).collect()
    };
    let options = options::read(None, &[], &args.set)?;
    let calibration = BTreeMap::new();
    let mut cx = PassCx::new(&options, &calibration);
    let driver = DriverOptions { print_after: args.print_after.clone(), stop_after: args.stop_after.clone() };
    let (ir, reports) = run_passes(ir, &names, &mut cx, &driver)?;
    super::compile::print_passes(&reports, args.time_passes);
    if args.print_after.is_empty() {
        say(print_ir(&ir).trim_end());
    }
    Ok(())
}

pub(super) fn passes() -> Result<()> {
    for pass in PASSES {
        let from: Vec<&str> = pass.info.from.iter().map(|stage| stage.as_str()).collect();
        let to = pass.info.to.map_or(String::new(), |to| format!(" -> {}", to.as_str()));
        say(format!("{:<18} {:<24} {}", pass.info.name, format!("{}{to}", from.join("|")), pass.info.summary));
    }
    Ok(())
}

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

pub(super) fn explain(code: &str) -> Result<()> {
    let known = Code::from_name(code);
    let page = known.and_then(|known| ERROR_PAGES.iter().find(|(name, _)| *name == known.as_str()));
    match page {
        Some((_, page)) => {
            say(page.trim_end());
            Ok(())
        }
        None => {
            let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
            Err(Diagnostic::new(Code::OptionInvalid, format!("there is no error code `{code}`"))
                .help(format!("codes are: {}", codes.join(" "))))
        }
    }
}
