//! ONNX to encrypted circuits.
//!
//! [`compile`] runs the whole way: front end, split into roles, passes, emission. Each part can be used alone: the
//! [`frontend`], [`roles::split`], and single [`passes`] over IR text.

mod copier;
pub mod emit;
pub mod explain;
pub mod frontend;
mod network;
pub mod options;
pub mod passes;
pub mod roles;

use network::Labels;
use options::Options;
use passes::{DriverOptions, Ir, PIPELINE, PassCx, PassReport, print_ir, run_passes};
use roles::Roles;
use std::collections::BTreeMap;
use tacit_ir::artifact::{Artifact, Report};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::Graph;
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::stage::circuit::result_noise;
use tacit_ir::stage::tensor::Tensor;

/// A compiled model and how it came about.
#[derive(Debug)]
pub struct Compiled {
    /// The artifact.
    pub artifact: Artifact,
    /// What each pass did.
    pub passes: Vec<PassReport>,
}

/// Typical inputs of a model, and what it should answer to them.
#[derive(Clone, Copy, Debug)]
pub struct Calibration<'a> {
    /// By the name of the model's input; empty for none.
    pub inputs: &'a BTreeMap<String, TensorValue>,
    /// One label a row, as the model gives them, or the number of its greatest score, or the value of a regression; the
    /// accuracy of networks is then measured on them.
    pub labels: Option<&'a TensorValue>,
}

impl<'a> From<&'a BTreeMap<String, TensorValue>> for Calibration<'a> {
    fn from(inputs: &'a BTreeMap<String, TensorValue>) -> Self {
        Calibration { inputs, labels: None }
    }
}

/// Threads of the compiler have a stack that the deepest tree allowed cannot overflow.
const STACK_BYTES: usize = 256 << 20;

/// Compiles an imported model. `calibration`: typical inputs of the model, by name, empty for none; with labels where there
/// are any.
///
/// # Errors
/// What the split, the passes or the emission refuse, and labels that do not fit the model.
pub fn compile<'a>(
    model: Graph<Tensor>,
    options: &Options,
    calibration: impl Into<Calibration<'a>>,
    driver: &DriverOptions,
) -> Result<Compiled> {
    let calibration = calibration.into();
    std::thread::scope(|scope| {
        let work = || compile_here(model, options, calibration, driver);
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|why| Diagnostic::internal(format!("cannot start a thread: {why}")))?;
        thread.join().unwrap_or_else(|_| Err(Diagnostic::internal("the compiler panicked")))
    })
}

fn compile_here(
    model: Graph<Tensor>,
    options: &Options,
    calibration: Calibration<'_>,
    driver: &DriverOptions,
) -> Result<Compiled> {
    let name = model.name().to_owned();
    let Prepared { model, roles, notes } = prepared(model, options)?;
    let rows = calibration_rows(&roles.head, calibration.inputs)?;
    let labels =
        calibration.labels.map(|labels| Labels::new(&model, &roles, calibration.inputs, labels)).transpose()?;
    let kept = network::Kept::of(&roles.head, options)?;
    let overridden = kept.overridden.then(|| {
        format!(
            "input-bits={} are fewer than the model's own integers have, and take their place",
            options.input_bits()
        )
    });
    let found = network::search::search(&roles.body, &rows, labels.as_ref(), options, &kept)?;
    let unused = found.is_none() && labels.is_some();
    let options = found.as_ref().map_or(options, |found| &found.options);
    let mut cx = PassCx::new(options, &rows);
    cx.kept = kept;
    let mut text = vec![("tensor".to_owned(), tacit_ir::text::print(&model))];
    let at = PIPELINE.iter().position(|pass| *pass == "lower-to-circuit").unwrap_or(0);
    let (quant, mut passes) = run_passes(Ir::Tensor(roles.body.clone()), &PIPELINE[..at], &mut cx, driver)?;
    text.push(("quant".to_owned(), print_ir(&quant)));
    let (circuit, more) = run_passes(quant, &PIPELINE[at..], &mut cx, driver)?;
    passes.extend(more);
    text.push(("circuit".to_owned(), print_ir(&circuit)));
    let Ir::Circuit(circuit) = circuit else {
        return Err(Diagnostic::internal("the pipeline did not end in a circuit"));
    };
    let (client, plan) = emit::emit(&circuit, &roles.head, &roles.tail, options.failure_bits)?;
    tacit_ir::interp::plan::check(&plan, &client.layout)
        .map_err(|why| Diagnostic::internal(format!("the emitted plan does not check: {}", why.message)))?;
    let mut notes = notes;
    notes.extend(roles.clear_maps.iter().map(|map| format!("{map} runs on the client, in clear, before the trees")));
    notes.extend(overridden);
    notes.extend(found.map(|found| found.note));
    notes.extend(unused.then(|| "calibration labels change nothing: no bits were left to choose".to_owned()));
    notes.extend(passes.iter().flat_map(|pass| pass.notes.iter().cloned()));
    let counters = |pass: &PassReport| pass.counters.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
    let report = Report {
        model: name,
        passes: passes.iter().map(|pass| (pass.pass.to_owned(), counters(pass))).collect(),
        notes,
        log2_noise: result_noise(&circuit).into_iter().map(|noise| noise.0).collect(),
    };
    Ok(Compiled { artifact: Artifact::new(client, plan, report, text)?, passes })
}

/// A model as it is split.
struct Prepared {
    model: Graph<Tensor>,
    roles: Roles,
    /// Of the passes so far.
    notes: Vec<String>,
}

fn prepared(model: Graph<Tensor>, options: &Options) -> Result<Prepared> {
    let no_rows = BTreeMap::new();
    let mut cx = PassCx::new(options, &no_rows);
    // Maps before the split are composed first, so that a chain of them is one encrypted operation.
    let whole = ["fuse-linear", "encrypt-head"];
    let (model, passes) = over_floats(model, &whole, &mut cx)?;
    let mut roles = roles::split(&model, options.encrypt_head)?;
    roles.body = over_floats(roles.body, &["expand-scores"], &mut cx)?.0;
    let notes = passes.into_iter().flat_map(|pass| pass.notes).collect();
    Ok(Prepared { model, roles, notes })
}

/// Runs passes that stay in the float stage.
fn over_floats(graph: Graph<Tensor>, passes: &[&str], cx: &mut PassCx<'_>) -> Result<(Graph<Tensor>, Vec<PassReport>)> {
    match run_passes(Ir::Tensor(graph), passes, cx, &DriverOptions::default())? {
        (Ir::Tensor(graph), reports) => Ok((graph, reports)),
        _ => Err(Diagnostic::internal("a pass over floats left their stage")),
    }
}

/// Head values of the calibration inputs, row by row.
fn calibration_rows(
    head: &Graph<Tensor>,
    calibration: &BTreeMap<String, TensorValue>,
) -> Result<BTreeMap<String, Vec<Vec<f64>>>> {
    if calibration.is_empty() {
        return Ok(BTreeMap::new());
    }
    let values = evaluate(head, calibration)?;
    Ok(values.into_iter().filter_map(|(name, value)| Some((name, value.to_rows()?))).collect())
}
