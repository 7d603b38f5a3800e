//! Programs for images: statically linked, so that an image needs nothing else.

use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_INTERP};
use object::endian::LittleEndian;
use object::read::elf::{FileHeader, ProgramHeader};
use tacit_ir::diag::{Code, Diagnostic, Result};

/// What a program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// The name in an image's configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::Arm64 => "arm64",
        }
    }
}

/// How to make a program that [`check`] accepts.
pub fn build_command(package: &str) -> String {
    format!(
        "RUSTFLAGS=\"-C target-feature=+crt-static -C strip=symbols\" cargo build --release --target x86_64-unknown-linux-gnu -p {package}"
    )
}

/// Checks that a program can run in an image that holds nothing else.
///
/// # Errors
/// [`Code::ProgramUnusable`]: not an ELF file for Linux on x86-64 or 64-bit Arm, or dynamically linked.
pub fn check(bytes: &[u8], package: &str) -> Result<Architecture> {
    let unusable = |why: String| {
        Diagnostic::new(Code::ProgramUnusable, why)
            .help(format!("build it with\n{}\nand give its path", build_command(package)))
    };
    let parse = |why: object::Error| unusable(format!("is no ELF program of 64 bits: {why}"));
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(parse)?;
    let endian = header.endian().map_err(parse)?;
    let architecture = match header.e_machine(endian) {
        EM_X86_64 => Architecture::Amd64,
        EM_AARCH64 => Architecture::Arm64,
        other => return Err(unusable(format!("is for machine {other}, not for x86-64 or 64-bit Arm"))),
    };
    let segments = header.program_headers(endian, bytes).map_err(parse)?;
    if segments.is_empty() {
        return Err(unusable("is an ELF file, but no program".to_owned()));
    }
    if let Some(segment) = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP) {
        let loader = segment.data(endian, bytes).unwrap_or_default();
        let loader = String::from_utf8_lossy(loader);
        let loader = loader.trim_end_matches('\0');
        return Err(unusable(format!("is dynamically linked: it asks for {loader}, which the image does not have")));
    }
    Ok(architecture)
}

/// Whether a program still has its symbols, which images have no use for.
pub fn has_symbols(bytes: &[u8]) -> bool {
    let symbols = || -> object::Result<bool> {
        let header = FileHeader64::<LittleEndian>::parse(bytes)?;
        let endian = header.endian()?;
        Ok(header.sections(endian, bytes)?.section_by_name(endian, b".symtab").is_some())
    };
    symbols().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_static_program_is_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01", &[0x7f, b'E', b'L', b'F', 1, 1, 1, 0]] {
            let why = check(bytes, "tacit-server").unwrap_err();
            assert_eq!(why.code, Code::ProgramUnusable);
            assert!(why.help.unwrap().contains("crt-static"));
        }
        // This test is a dynamically linked program.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let why = check(&own, "tacit-server").unwrap_err();
        assert!(why.message.contains("dynamically linked: it asks for /"), "{why}");
        assert!(has_symbols(&own));
    }

    #[test]
    fn the_least_static_program_is_accepted() {
        assert_eq!(check(&static_program(), "tacit-server").unwrap(), Architecture::Amd64);
        assert!(!has_symbols(&static_program()));
    }

    /// A header and one empty segment.
    fn static_program() -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, value) in [(16, 2u16), (18, EM_X86_64), (20, 1), (32, 64), (52, 64), (54, 56), (56, 1)] {
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        bytes[64] = 1;
        bytes
    }
}
