//! Runs passes: stage check, timing, counters, verification, printing.

use super::{Pass, find, requires};
use crate::network::Kept;
use crate::options::Options;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Stage};
use tacit_ir::stage::circuit::Circuit;
use tacit_ir::stage::quant::Quant;
use tacit_ir::stage::tensor::Tensor;
use tacit_ir::text;

/// A graph of any stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Ir {
    /// Floats.
    Tensor(Graph<Tensor>),
    /// Integers.
    Quant(Graph<Quant>),
    /// Ciphertexts.
    Circuit(Graph<Circuit>),
}

/// The name of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// Floats.
    Tensor,
    /// Integers.
    Quant,
    /// Ciphertexts.
    Circuit,
}

impl StageName {
    /// The keyword of the text form.
    pub fn as_str(self) -> &'static str {
        match self {
            StageName::Tensor => Tensor::NAME,
            StageName::Quant => Quant::NAME,
            StageName::Circuit => Circuit::NAME,
        }
    }
}

impl Ir {
    /// The stage the graph is of.
    pub fn stage(&self) -> StageName {
        match self {
            Ir::Tensor(_) => StageName::Tensor,
            Ir::Quant(_) => StageName::Quant,
            Ir::Circuit(_) => StageName::Circuit,
        }
    }
}

/// The text form.
pub fn print_ir(ir: &Ir) -> String {
    match ir {
        Ir::Tensor(graph) => text::print(graph),
        Ir::Quant(graph) => text::print(graph),
        Ir::Circuit(graph) => text::print(graph),
    }
}

/// Reads a graph of whatever stage the text opens with.
///
/// # Errors
/// [`Code::IrSyntax`] and [`Code::IrInvalid`].
pub fn parse_ir(source: &str) -> Result<Ir> {
    match text::stage_of(source) {
        Some(name) if name == Tensor::NAME => text::parse(source).map(Ir::Tensor),
        Some(name) if name == Quant::NAME => text::parse(source).map(Ir::Quant),
        Some(name) if name == Circuit::NAME => text::parse(source).map(Ir::Circuit),
        Some(other) => Err(Diagnostic::new(
            Code::IrSyntax,
            format!("`{other}` is not a stage; a text opens with `tensor`, `quant` or `circuit`"),
        )
        .at("line 1, column 1")),
        None => Err(Diagnostic::new(Code::IrSyntax, "the text is empty").at("line 1, column 1")),
    }
}

/// Derives all types, ranges and noise anew and compares.
///
/// # Errors
/// [`Code::IrInvalid`].
pub fn verify(ir: &Ir) -> Result<()> {
    match ir {
        Ir::Tensor(graph) => graph.verify(),
        Ir::Quant(graph) => graph.verify(),
        Ir::Circuit(graph) => graph.verify(),
    }
}

/// What passes may consult, and where they count what they did.
#[derive(Debug)]
pub struct PassCx<'a> {
    /// The compile options.
    pub options: &'a Options,
    /// Calibration rows of head values by name, for encodings that need them.
    pub calibration: &'a BTreeMap<String, Vec<Vec<f64>>>,
    /// What a quantized model brings and the options leave as it is.
    pub(crate) kept: Kept,
    /// Whether passes say at length why they chose what they did; it costs time.
    pub explain: bool,
    counters: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
}

impl<'a> PassCx<'a> {
    /// A context without counters yet.
    pub fn new(options: &'a Options, calibration: &'a BTreeMap<String, Vec<Vec<f64>>>) -> Self {
        PassCx {
            options,
            calibration,
            kept: Kept::default(),
            explain: true,
            counters: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Adds to a counter of the running pass.
    pub fn count(&mut self, what: &'static str, by: u64) {
        if by > 0 {
            *self.counters.entry(what).or_default() += by;
        }
    }

    /// Something the user should read.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// What one run of a pass did.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// The pass.
    pub pass: &'static str,
    /// Wall time.
    pub time: Duration,
    /// Counters, such as `tests merged across trees`.
    pub counters: BTreeMap<&'static str, u64>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// The text form after the pass, where asked for.
    pub printed: Option<String>,
}

/// Debugging aids of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// Keep the text form after these passes; `all` for every pass.
    pub print_after: Vec<String>,
    /// Stop after the first run of this pass.
    pub stop_after: Option<String>,
}

/// Runs passes in order, verifying after each.
///
/// # Errors
/// An unknown pass, a pass on a stage it does not accept, the pass's own error, or an internal error when its result
/// does not verify.
pub fn run_passes(
    ir: Ir,
    names: &[&str],
    cx: &mut PassCx<'_>,
    driver: &DriverOptions,
) -> Result<(Ir, Vec<PassReport>)> {
    for name in driver.print_after.iter().filter(|name| *name != "all").chain(&driver.stop_after) {
        find(name)?;
    }
    let mut ir = ir;
    let mut reports = Vec::with_capacity(names.len());
    for name in names {
        let pass = find(name)?;
        check_stage(pass, &ir)?;
        let start = Instant::now();
        ir = (pass.run)(ir, cx)?;
        let time = start.elapsed();
        verify(&ir)
            .map_err(|why| Diagnostic::internal(format!("what `{name}` made does not verify: {}", why.message)))?;
        if let Some(to) = pass.info.to
            && ir.stage() != to
        {
            return Err(Diagnostic::internal(format!("`{name}` did not lower to `{}`", to.as_str())));
        }
        let printed = driver.print_after.iter().any(|wanted| wanted == "all" || wanted == name);
        reports.push(PassReport {
            pass: pass.info.name,
            time,
            counters: std::mem::take(&mut cx.counters),
            notes: std::mem::take(&mut cx.notes),
            printed: printed.then(|| print_ir(&ir)),
        });
        if driver.stop_after.as_deref() == Some(*name) {
            break;
        }
    }
    Ok((ir, reports))
}

fn check_stage(pass: &Pass, ir: &Ir) -> Result<()> {
    if pass.info.from.contains(&ir.stage()) {
        return Ok(());
    }
    let accepted: Vec<&str> = pass.info.from.iter().map(|stage| stage.as_str()).collect();
    Err(requires(pass.info.name, &format!("a {} graph", accepted.join(" or "))))
}
