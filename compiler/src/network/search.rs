//! Bits of inputs and weights, and tolerated noise: the cheapest choice whose simulated accuracy on the calibration rows
//! keeps to the asked loss.
//!
//! Every candidate is compiled; in the order of their predicted times they are simulated, with the predicted noise drawn,
//! against the float network, until one is accurate enough.

use super::Kept;
use crate::emit::emit;
use crate::options::{HeadRule, Options};
use crate::passes::{DriverOptions, Ir, PIPELINE, PassCx, run_passes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;
use tacit_ir::artifact::{ClientSpec, Encoder, Scale, encode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::integer::encode_codes;
use tacit_ir::interp::network::Messages;
use tacit_ir::interp::plan::simulate;
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::plan::Plan;
use tacit_ir::stage::quant::{CodedFeature, Quant};
use tacit_ir::stage::tensor::{Dim, Element, Tensor, TensorOp};

const INPUT_BITS: [u32; 4] = [3, 4, 6, 8];
const WEIGHT_BITS: [u32; 3] = [3, 4, 6];
/// Tried in rounds: the finer ones where no other is accurate enough.
const NOISE_SHARES: [&[f64]; 3] = [&[0.35, 0.2, 0.1], &[0.05, 0.025], &[0.012, 0.006, 0.003]];
/// Calibration rows that candidates are simulated on at most.
const ROWS: usize = 300;

type Rows = BTreeMap<String, Vec<Vec<f64>>>;

/// A compiled candidate.
struct Candidate {
    options: Options,
    predicted_us: f64,
    client: ClientSpec,
    plan: Plan,
}

/// What the search found.
pub(crate) struct Found {
    pub(crate) options: Options,
    /// For the user.
    pub(crate) note: String,
}

/// Chooses what the options leave open. `None` when they leave nothing open or the body is no network.
///
/// # Errors
/// That of the last candidate when none compiles; `NoParameters` when none is accurate enough.
pub(crate) fn search(body: &Graph<Tensor>, rows: &Rows, options: &Options, kept: &Kept) -> Result<Option<Found>> {
    if !super::is_network(body) {
        return Ok(None);
    }
    let head_is_open = options.head.is_none() && super::heads::widest(body) > 2;
    if options.input_bits.is_some() && options.weight_bits.is_some() && options.noise_share.is_some() && !head_is_open {
        return Ok(None);
    }
    let mut lowered: Vec<(Options, Ir)> = Vec::new();
    let mut known: Vec<Graph<Quant>> = Vec::new();
    // All passes but those before the integer stage and those that choose parameters.
    let (from, last) = (place("prune-paths"), place("choose-parameters"));
    // Of two values the one comparison is all that either rule makes.
    let heads = match options.head {
        None if head_is_open => vec![HeadRule::Pairs, HeadRule::Tournament],
        rule => vec![rule.unwrap_or(options.head())],
    };
    for head in heads {
        let (network, trace, _) = super::prepare(body, rows, kept, head)?;
        for &weight_bits in &choices(options.weight_bits, &WEIGHT_BITS) {
            for &input_bits in &choices(options.input_bits, &INPUT_BITS) {
                let (input_bits, weight_bits) = (Some(input_bits), Some(weight_bits));
                let own = Options { input_bits, weight_bits, head: Some(head), ..options.clone() };
                let mut cx = PassCx::new(&own, rows);
                cx.kept = kept.clone();
                let quant = super::quantize::quantize(body.name(), &network, &trace, &mut cx)?;
                // Bits mean nothing to what a model has quantized itself.
                if known.contains(&quant) {
                    continue;
                }
                known.push(quant.clone());
                let quant = Ir::Quant(quant);
                let (ir, _) = run_passes(quant, &PIPELINE[from..last], &mut cx, &DriverOptions::default())?;
                lowered.push((own, ir));
            }
        }
    }
    let float = float_outputs(body, rows)?;
    let judged: Vec<Judged> = body.outputs().iter().map(|(_, id)| Judged::of(body, *id)).collect();
    let mut refused = None;
    let mut best: Option<(f64, f64)> = None;
    let rounds =
        options.noise_share.map_or_else(|| NOISE_SHARES.map(<[f64]>::to_vec).to_vec(), |share| vec![vec![share]]);
    for shares in rounds {
        let mut candidates = Vec::new();
        for (own, ir) in &lowered {
            for &share in &shares {
                match candidate(ir.clone(), rows, Options { noise_share: Some(share), ..own.clone() }) {
                    Ok(candidate) => candidates.push(candidate),
                    // Other errors are the same for all.
                    Err(why) if why.code == Code::NoParameters => refused = Some(why),
                    Err(why) => return Err(why),
                }
            }
        }
        candidates.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
        for candidate in candidates {
            let (loss, error) = losses(&candidate, rows, &float, &judged)?;
            if loss <= options.max_accuracy_loss && options.max_output_error.is_none_or(|limit| error <= limit) {
                let note = note(&candidate, kept, head_is_open, loss, error, rows);
                return Ok(Some(Found { options: candidate.options, note }));
            }
            if best.is_none_or(|known| (loss, error) < known) {
                best = Some((loss, error));
            }
        }
    }
    match (best, refused) {
        (Some((loss, error)), _) if loss <= options.max_accuracy_loss => Err(Diagnostic::new(
            Code::NoParameters,
            format!("the most accurate choice of bits and noise errs by {error:.4} of the outputs' deviation"),
        )
        .help(format!("allow it: --set max-output-error={:.3}", error * 1.1))),
        (Some((loss, _)), _) => Err(Diagnostic::new(
            Code::NoParameters,
            format!(
                "the most accurate choice of bits loses {:.2} % on the calibration rows, over the {:.2} % allowed",
                100.0 * loss,
                100.0 * options.max_accuracy_loss
            ),
        )
        .help(format!("allow it: --set max-accuracy-loss={:.3}; or train with smaller weights", loss * 1.1))),
        (None, Some(why)) => Err(why),
        (None, None) => Ok(None),
    }
}

fn choices<T: Copy>(fixed: Option<T>, all: &[T]) -> Vec<T> {
    fixed.map_or_else(|| all.to_vec(), |one| vec![one])
}

/// Where a pass stands in the pipeline.
fn place(name: &str) -> usize {
    PIPELINE.iter().position(|pass| *pass == name).unwrap_or(0)
}

/// A lowered circuit with the parameters that these options give it.
fn candidate(lowered: Ir, rows: &Rows, options: Options) -> Result<Candidate> {
    let mut cx = PassCx::new(&options, rows);
    cx.explain = false;
    let (ir, _) = run_passes(lowered, &PIPELINE[place("choose-parameters")..], &mut cx, &DriverOptions::default())?;
    let Ir::Circuit(circuit) = ir else { return Err(Diagnostic::internal("the pipeline did not end in a circuit")) };
    let nothing = Graph::new("none");
    let (client, plan) = emit(&circuit, &nothing, &nothing, options.failure_bits)?;
    let predicted_us = options.cost_profile.plan_us(&client.layout, &plan);
    Ok(Candidate { predicted_us, options, client, plan })
}

/// The float values of every output on the calibration rows, output by output, row by row.
fn float_outputs(body: &Graph<Tensor>, rows: &Rows) -> Result<Vec<Vec<Vec<f64>>>> {
    let mut inputs = BTreeMap::new();
    let mut count = 0;
    for id in body.values() {
        let node = body.node(id);
        let TensorOp::Input { name } = &node.op else { continue };
        let own = rows.get(name).ok_or_else(|| Diagnostic::internal("no calibration rows of a head value"))?;
        count = own.len().min(ROWS);
        let flat = own.iter().take(count).flatten().copied().collect();
        inputs.insert(name.clone(), TensorValue::of_type(&node.ty, count, flat));
    }
    let outputs = evaluate(body, &inputs)?;
    let split = |value: &TensorValue| {
        let flat = value.to_f64().unwrap_or_default();
        let width = (flat.len() / count.max(1)).max(1);
        flat.chunks(width).map(<[f64]>::to_vec).collect()
    };
    Ok(outputs.values().map(split).collect())
}

/// How the outputs of a row are compared with the float model's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Judged {
    /// Scores: the share of rows whose greatest is another.
    Greatest,
    /// Whole numbers: the share of rows with another one.
    Whole,
    /// Values: the error's deviation over the value's.
    Values,
}

impl Judged {
    fn of(body: &Graph<Tensor>, output: ValueId) -> Judged {
        let node = body.node(output);
        let single = node.ty.shape.iter().all(|dim| matches!(dim, Dim::Batch | Dim::Fixed(1)));
        match (&node.op, node.ty.element) {
            (_, Element::I64 | Element::Bool) => Judged::Whole,
            // In order already.
            (TensorOp::TopK { .. }, _) => Judged::Values,
            _ if single => Judged::Values,
            _ => Judged::Greatest,
        }
    }
}

/// The loss of the worst output, and the largest of all outputs' error's deviation over the output's.
fn losses(candidate: &Candidate, rows: &Rows, float: &[Vec<Vec<f64>>], judged: &[Judged]) -> Result<(f64, f64)> {
    let count = float.first().map_or(0, Vec::len);
    let features = candidate.client.features()?;
    // The same draws for every candidate and every compilation: artifacts are reproducible.
    let mut rng = ChaCha20Rng::seed_from_u64(0);
    let mut found: Vec<Vec<Vec<f64>>> = vec![Vec::with_capacity(count); float.len()];
    for row in 0..count {
        let messages = messages(&candidate.client, &features, rows, row)?;
        let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let results = simulate(&candidate.plan, &candidate.client.layout, &messages.inputs(), Some(&mut draw))?;
        for ((found, values), decoder) in found.iter_mut().zip(&results).zip(&candidate.client.decoders) {
            let Scale::Torus { unit } = decoder.scale else { continue };
            found.push(encode::reals(decoder, unit, values).collect());
        }
    }
    let pairs = || found.iter().zip(float);
    let loss =
        pairs().zip(judged).map(|((found, float), judged)| output_loss(found, float, *judged)).fold(0.0, f64::max);
    let error = pairs().map(|(found, float)| output_error(found, float)).fold(0.0, f64::max);
    Ok((loss, error))
}

fn output_loss(found: &[Vec<f64>], float: &[Vec<f64>], judged: Judged) -> f64 {
    let rows = float.len().max(1) as f64;
    let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let whole = |row: &[f64]| row.iter().map(|x| x.round() as i64).collect::<Vec<_>>();
    let pairs = || found.iter().zip(float);
    match judged {
        Judged::Greatest => pairs().filter(|(a, b)| best(a) != best(b)).count() as f64 / rows,
        Judged::Whole => pairs().filter(|(a, b)| whole(a) != whole(b)).count() as f64 / rows,
        Judged::Values => output_error(found, float),
    }
}

fn output_error(found: &[Vec<f64>], float: &[Vec<f64>]) -> f64 {
    let mean = float.iter().flatten().sum::<f64>() / float.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let variance = float.iter().flatten().map(|x| (x - mean).powi(2)).sum::<f64>();
    let error = found.iter().flatten().zip(float.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    (error / variance.max(f64::MIN_POSITIVE)).sqrt()
}

/// What was chosen, for the user.
fn note(candidate: &Candidate, kept: &Kept, head_is_open: bool, loss: f64, error: f64, rows: &Rows) -> String {
    let Options { input_bits, weight_bits, noise_share, .. } = &candidate.options;
    let rule = match candidate.options.head {
        Some(HeadRule::Pairs) if head_is_open => "; positions by comparing all pairs",
        Some(HeadRule::Tournament) if head_is_open => "; positions by a tournament",
        _ => "",
    };
    let bits = if kept.inputs.is_empty() {
        format!("{} bits for inputs, {} for weights", input_bits.unwrap_or(0), weight_bits.unwrap_or(0))
    } else {
        "the model's own integers".to_owned()
    };
    format!(
        "{bits}, noise up to {} of an activation's deviation: predicted {:.0} ms on one core; on {} simulated calibration rows {:.2} % loss, errors of {error:.4} of the outputs' deviation{rule}",
        noise_share.unwrap_or(0.0),
        candidate.predicted_us / 1e3,
        rows.values().next().map_or(0, |rows| rows.len().min(ROWS)),
        100.0 * loss,
    )
}

fn messages(client: &ClientSpec, features: &[Vec<CodedFeature>], rows: &Rows, row: usize) -> Result<Messages> {
    let mut out = Messages::zeros(&client.layout);
    for (encoder, features) in client.encoders.iter().zip(features) {
        let Encoder::Codes { value, single, columns, thermometers, samples } = encoder else { continue };
        let values = rows.get(value).and_then(|rows| rows.get(row));
        let values = values.ok_or_else(|| Diagnostic::internal("a calibration row is missing"))?;
        let codes = encode_codes(values, *single, features).map_err(Diagnostic::internal)?;
        encode::codes(&codes, columns, thermometers, samples, &mut out);
    }
    Ok(out)
}
