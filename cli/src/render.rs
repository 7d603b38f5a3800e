//! Errors to the terminal, and their exit codes: 1 the input is wrong, 2 the command line is, 101 a bug of ours.

use std::fmt;
use std::process::ExitCode;
use tacit_ir::diag::{Diagnostic, Kind};

/// A diagnostic as miette renders it.
struct Rendered(Diagnostic);

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)?;
        self.0.notes.iter().try_for_each(|note| write!(f, "\n- {note}"))
    }
}

impl std::error::Error for Rendered {}

impl miette::Diagnostic for Rendered {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.0.code))
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.0.excerpt.as_ref().map(|excerpt| &excerpt.source as &dyn miette::SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let excerpt = self.0.excerpt.as_ref()?;
        Some(Box::new(std::iter::once(miette::LabeledSpan::underline(excerpt.span.clone()))))
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let more = format!("`tacit explain {}` says more", self.0.code);
        Some(Box::new(match &self.0.help {
            Some(help) => format!("{help}\n{more}"),
            None => more,
        }))
    }
}

/// The text of an error.
pub fn report(diagnostic: Diagnostic) -> String {
    format!("{:?}", miette::Report::new(Rendered(diagnostic)))
}

/// Prints an error and gives the exit code.
#[allow(clippy::print_stderr, reason = "the binary's one place that prints errors")]
pub fn fail(diagnostic: Diagnostic) -> ExitCode {
    let code = match diagnostic.code.kind() {
        Kind::Input => 1,
        Kind::Usage => 2,
        Kind::Internal => 101,
    };
    eprintln!("{}", report(diagnostic));
    if code == 101 {
        eprintln!(
            "This is a bug of Tacit {}. Please report it with the command and the model.",
            env!("CARGO_PKG_VERSION")
        );
    }
    ExitCode::from(code)
}
