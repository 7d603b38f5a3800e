//! `tacit inspect --report`: everything known of an artifact as one HTML page that loads nothing from elsewhere.

use super::inspect::{predicted_run_ms, security};
use askama::Template;
use std::collections::BTreeMap;
use tacit_compiler::passes::{Ir, parse_ir};
use tacit_ir::artifact::{Artifact, Decoder, RawGraph, Scale, v1};
use tacit_ir::attr::OpSet;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::noise;
use tacit_ir::params::LweParams;
use tacit_ir::plan::PlanCounts;
use tacit_ir::stage::circuit::CircuitOp;

/// The page; `templates/report.html` lays it out.
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    model: String,
    circuit: String,
    version: &'static str,
    file_bytes: String,
    operators: Vec<Operator>,
    clear: Vec<Clear>,
    counts: PlanCounts,
    predicted_ms: String,
    selectors: u32,
    packed_inputs: u32,
    passes: Vec<(String, Vec<(String, u64)>)>,
    notes: Vec<String>,
    results: Vec<Noise>,
    parameters: Parameters,
    sizes: Vec<(&'static str, String)>,
    failure_bits: u32,
    exact: bool,
    learns_thresholds: bool,
}

/// A node of the encrypted stage.
struct Operator {
    name: String,
    regime: &'static str,
    ty: String,
}

/// Clear operations of the client: when, and how many of each.
struct Clear {
    when: &'static str,
    operations: Vec<(String, usize)>,
}

/// The noise of one result against what it may be.
struct Noise {
    log2_std: String,
    budget: String,
    margin: String,
    meaning: String,
}

/// What an estimator needs to be asked about every ciphertext.
struct Parameters {
    k: u32,
    n: u32,
    dimension: u32,
    log2_std: String,
    curve: String,
    gadget: String,
    body_bits: u32,
    result_bits: u32,
    small: Vec<SmallKey>,
}

/// The key that arguments of a partition's bootstraps are under.
struct SmallKey {
    bootstraps: u64,
    dimension: u32,
    block: u32,
    log2_std: String,
    curve: String,
    security: String,
}

/// The page of a whole artifact, whose file has this many bytes.
pub(super) fn html(artifact: &Artifact, file_bytes: u64) -> Result<String> {
    let (Some(plan), Some(report)) = (&artifact.plan, &artifact.report) else {
        return Err(Diagnostic::new(Code::WrongFileKind, "a client artifact has no circuit to report on")
            .help("give the artifact that `tacit compile` wrote"));
    };
    let client = &artifact.client;
    let layout = &client.layout;
    let glwe = layout.glwe;
    let clear = [("before encryption", &client.head), ("after decryption", &client.tail)];
    let page = Page {
        model: report.model.clone(),
        circuit: artifact.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        version: env!("CARGO_PKG_VERSION"),
        file_bytes: bytes(file_bytes),
        operators: operators(artifact)?,
        clear: clear.map(|(when, graph)| Clear { when, operations: operations(graph) }).into(),
        counts: plan.counts(),
        predicted_ms: format!("{:.2}", predicted_run_ms(artifact)),
        selectors: layout.selectors,
        packed_inputs: layout.packed_inputs,
        passes: report.passes.clone(),
        notes: report.notes.clone(),
        results: client
            .decoders
            .iter()
            .zip(&report.log2_noise)
            .map(|(decoder, &noise)| budget(decoder, noise, client.failure_bits))
            .collect(),
        parameters: Parameters {
            k: glwe.dimension,
            n: glwe.polynomial_size,
            dimension: glwe.lwe_dimension(),
            log2_std: format!("{:.4}", glwe.log2_std),
            curve: format!("{:.4}", tacit_ir::params::minimal_log2_std(f64::from(glwe.lwe_dimension()))),
            gadget: layout
                .gadget
                .map_or("none".to_owned(), |gadget| format!("base 2^{}, levels {}", gadget.base_log, gadget.levels)),
            body_bits: layout.body_bits,
            result_bits: layout.result_bits,
            small: layout
                .partitions
                .iter()
                .zip(plan.network.bootstraps(layout.partitions.len()))
                .map(|(params, bootstraps)| SmallKey {
                    bootstraps,
                    dimension: params.lwe.dimension,
                    block: params.lwe.block,
                    log2_std: format!("{:.4}", params.lwe.log2_std),
                    curve: format!("{:.4}", LweParams::secure(params.lwe.dimension, params.lwe.block).log2_std),
                    security: security(&params.lwe),
                })
                .collect(),
        },
        sizes: vec![
            ("query, one row", bytes(v1::query_row_bytes(layout))),
            ("result, one row", bytes(v1::result_row_bytes(layout))),
            ("client key", bytes(v1::client_key_bytes(layout))),
            (
                "evaluation key",
                match v1::evaluation_key_bytes(layout) {
                    0 => "none".to_owned(),
                    size => bytes(size),
                },
            ),
        ],
        failure_bits: client.failure_bits,
        exact: client.decoders.iter().all(|decoder| matches!(decoder.scale, Scale::Integers { exact: true, .. })),
        learns_thresholds: layout.selectors > 0,
    };
    page.render().map_err(|why| Diagnostic::internal(format!("the report's template: {why}")))
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

/// The nodes of the circuit, from the artifact's own text.
fn operators(artifact: &Artifact) -> Result<Vec<Operator>> {
    let Some((_, text)) = artifact.text.iter().find(|(stage, _)| stage == "circuit") else { return Ok(Vec::new()) };
    let Ir::Circuit(graph) = parse_ir(text)? else {
        return Err(Diagnostic::new(Code::NotConformant, "the artifact's circuit text is of another stage"));
    };
    let operator = |id| {
        let node = graph.node(id);
        let regime = match &node.op {
            CircuitOp::Decide { .. } => "R1: decision diagram over selector bits",
            CircuitOp::Polymul { .. } => "R0: products with clear polynomials",
            CircuitOp::Codes { .. } | CircuitOp::Reals { .. } => "encrypted by the client",
            CircuitOp::RotateLookup { .. } => "R1: tables rotated by selector bits",
            CircuitOp::Bootstrap { .. } => "R2: programmable bootstraps",
            CircuitOp::Affine { .. } => "integer combinations of ciphertexts",
            CircuitOp::Samples { .. } => "encrypted by the client",
            CircuitOp::SampleExtract { .. } => "coefficients of a decision diagram",
            CircuitOp::Params { .. } | CircuitOp::BootstrapParams { .. } => "parameters",
            CircuitOp::Extract { .. } => "leaves the server",
        };
        Operator { name: node.op.name().to_owned(), regime, ty: node.ty.to_string() }
    };
    Ok(graph.values().map(operator).collect())
}

fn operations(graph: &RawGraph) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *counts.entry(&node.op).or_default() += 1;
    }
    counts.into_iter().map(|(op, count)| (op.to_owned(), count)).collect()
}

/// What the noise of a result is to be compared with: half a step where decoding rounds, and else its size in outputs.
fn budget(decoder: &Decoder, log2_std: f64, failure_bits: u32) -> Noise {
    let step = decoder.step.iter().fold(0.0, |largest: f64, step| largest.max(step.abs()));
    let bound = |std: f64| {
        let bound = noise::sigmas_for_failure(f64::from(failure_bits)) * std;
        format!("standard deviation {std:.2e}, and below {bound:.2e} but for 2^-{failure_bits}")
    };
    let (budget, margin, meaning) = match decoder.scale {
        Scale::Integers { log2_delta, exact: true } => {
            let half = f64::from(log2_delta) - 65.0;
            let failure = noise::failure_probability((2.0 * log2_std).exp2(), half.exp2());
            let failure = if failure < 1e-300 { "below 10^-300".to_owned() } else { format!("at most {failure:.1e}") };
            let margin = format!("{:.1} standard deviations", (half - log2_std).exp2());
            (
                format!("2^{half:.2} (half a step)"),
                margin,
                format!("exact; an output is wrong with probability {failure}"),
            )
        }
        Scale::Integers { log2_delta, exact: false } => {
            let unit = f64::from(log2_delta) - 64.0;
            let std = (log2_std - unit).exp2() * step;
            (format!("2^{unit:.2} (one step)"), String::new(), format!("in outputs: {}", bound(std)))
        }
        Scale::Torus { unit } => {
            let std = (log2_std - unit.log2()).exp2() * step;
            (
                format!("2^{:.2} (one step)", unit.log2()),
                String::new(),
                format!("standard deviation {std:.3e} in outputs"),
            )
        }
        Scale::Reals { log2_amplitude, .. } => {
            let unit = f64::from(log2_amplitude) - 64.0;
            let std = (log2_std - unit).exp2() * step;
            let meaning = format!("in outputs, for inputs of size 1: {}", bound(std));
            (format!("2^{unit:.2} (an input of size 1)"), String::new(), meaning)
        }
    };
    Noise { log2_std: format!("{log2_std:.2}"), budget, margin, meaning }
}
