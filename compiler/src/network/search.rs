//! Bits of inputs and weights, and tolerated noise: the cheapest choice whose simulated accuracy on the calibration rows
//! keeps to the asked loss.
//!
//! Every candidate is compiled; in the order of their predicted times they are simulated, with the predicted noise drawn,
//! against the float network or labels (`accuracy.rs`), until one is accurate enough.

use super::accuracy::{Accuracy, Losses, Rows};
use super::{Kept, Labels};
use crate::emit::emit;
use crate::options::{HeadRule, Options};
use crate::passes::{DriverOptions, Ir, PIPELINE, PassCx, run_passes};
use tacit_ir::artifact::ClientSpec;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::Graph;
use tacit_ir::plan::{Layer, Plan};
use tacit_ir::stage::quant::Quant;
use tacit_ir::stage::tensor::Tensor;

const INPUT_BITS: [u32; 4] = [3, 4, 6, 8];
const WEIGHT_BITS: [u32; 3] = [3, 4, 6];
/// Tried in rounds: the finer ones where no other is accurate enough.
const NOISE_SHARES: [&[f64]; 3] = [&[0.35, 0.2, 0.1], &[0.05, 0.025], &[0.012, 0.006, 0.003]];

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
pub(crate) fn search(
    body: &Graph<Tensor>,
    rows: &Rows,
    labels: Option<&Labels>,
    options: &Options,
    kept: &Kept,
) -> Result<Option<Found>> {
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
    let (from, last) = (place("prune-paths"), place("share-rotations"));
    // Of two values the one comparison is all that either rule makes.
    let heads = match options.head {
        None if head_is_open => vec![HeadRule::Pairs, HeadRule::Tournament],
        rule => vec![rule.unwrap_or(options.head())],
    };
    for head in heads {
        let (network, trace, _) = super::prepare(body, rows, kept, head, options.symmetric)?;
        for &weight_bits in &choices(options.weight_bits, &WEIGHT_BITS) {
            for &input_bits in &choices(options.input_bits, &INPUT_BITS) {
                let (input_bits, weight_bits) = (Some(input_bits), Some(weight_bits));
                let own = Options { input_bits, weight_bits, head: Some(head), ..options.clone() };
                let mut cx = PassCx::new(&own, rows);
                cx.kept = kept.clone();
                let quant = super::quantize::quantize(body, &network, &trace, &mut cx)?;
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
    let accuracy = Accuracy::new(body, rows, labels)?;
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
        let times: Vec<(Options, f64)> = candidates.iter().map(|own| (own.options.clone(), own.predicted_us)).collect();
        for candidate in candidates {
            let losses = accuracy.of(&candidate.client, &candidate.plan)?;
            let Losses { loss, error, .. } = losses;
            if loss <= options.max_accuracy_loss && options.max_output_error.is_none_or(|limit| error <= limit) {
                let mut note = note(&candidate, kept, head_is_open, &accuracy.describe(&losses), error);
                if kept.inputs.is_empty() {
                    note += &finer(&candidate, &times);
                }
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
                "the most accurate choice of bits loses {:.2} % {}, over the {:.2} % allowed",
                100.0 * loss,
                accuracy.measure(),
                100.0 * options.max_accuracy_loss
            ),
        )
        .help(format!("allow it: --max-accuracy-loss {:.3}; or train with smaller weights", loss * 1.1))),
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
    let (ir, _) = run_passes(lowered, &PIPELINE[place("share-rotations")..], &mut cx, &DriverOptions::default())?;
    let Ir::Circuit(circuit) = ir else { return Err(Diagnostic::internal("the pipeline did not end in a circuit")) };
    let nothing = Graph::new("none");
    let (client, plan) = emit(&circuit, &nothing, &nothing, options.failure_bits)?;
    let predicted_us = options.cost_profile.plan_us(&client.layout, &plan);
    Ok(Candidate { predicted_us, options, client, plan })
}

/// What more bits of inputs or of weights would cost, from candidates that are alike but for them.
fn finer(chosen: &Candidate, times: &[(Options, f64)]) -> String {
    type Bits = fn(&mut Options) -> &mut Option<u32>;
    let kinds: [(&str, Bits); 2] =
        [("inputs", |options| &mut options.input_bits), ("weights", |options| &mut options.weight_bits)];
    let mut text = String::new();
    for (what, bits) in kinds {
        let own = *bits(&mut chosen.options.clone());
        let finer = times.iter().filter_map(|(options, us)| {
            let mut like = options.clone();
            let more = bits(&mut like).take()?.checked_sub(own?).filter(|more| *more > 0)?;
            *bits(&mut like) = own;
            (like == chosen.options).then_some((more, (us - chosen.predicted_us) / 1e3))
        });
        if let Some((more, ms)) = finer.min_by_key(|(more, _)| *more) {
            let bits = if more == 1 { "one more bit".to_owned() } else { format!("{more} more bits") };
            text += &format!("; {bits} for {what} would cost {:.1} ms", ms.max(0.0));
        }
    }
    text
}

/// What was chosen, for the user.
fn note(candidate: &Candidate, kept: &Kept, head_is_open: bool, accuracy: &str, error: f64) -> String {
    let Options { input_bits, weight_bits, noise_share, .. } = &candidate.options;
    let rule = match candidate.options.head {
        Some(HeadRule::Pairs) if head_is_open => "; positions by comparing all pairs",
        Some(HeadRule::Tournament) if head_is_open => "; positions by a tournament",
        _ => "",
    };
    let from_client = |layer: &Layer| matches!(layer, Layer::Samples { .. } | Layer::Rotate { .. });
    let bits = if !candidate.plan.network.layers.iter().any(from_client) {
        "the trees' own integers".to_owned()
    } else if kept.inputs.is_empty() {
        format!("{} bits for inputs, {} for weights", input_bits.unwrap_or(0), weight_bits.unwrap_or(0))
    } else {
        "the model's own integers".to_owned()
    };
    format!(
        "{bits}, noise up to {} of an activation's deviation: predicted {:.0} ms on one core; {accuracy}, errors of {error:.4} of the outputs' deviation{rule}",
        noise_share.unwrap_or(0.0),
        candidate.predicted_us / 1e3,
    )
}
