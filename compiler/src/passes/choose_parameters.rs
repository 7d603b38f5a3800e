//! `choose-parameters`: the cheapest secure parameter set whose noise the outputs can bear.
//!
//! Candidates are all GLWE shapes with k*N from 1,024 to 8,192, each at the noise of the security curve, and all
//! decompositions of up to four levels. For each the noise bound of every output is compared with the asked precision at
//! the asked failure probability; among those that fit, the one with the least predicted time (server time weighted
//! against client time) wins.

use crate::emit::row_norm;

use super::{Ir, PassCx, PassInfo, StageName, choose_network_parameters, diagrams::ill_typed};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Diagram, Node, NoiseProfile};
use tacit_ir::graph::{Graph, Loc};
use tacit_ir::noise;
use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_ir::stage::circuit::{Circuit, CircuitOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "choose-parameters",
    summary: "search the cheapest secure parameters that meet the asked precision",
    from: &[StageName::Circuit],
    to: None,
};

/// Extra bits that linear maps are given beyond the asked precision: their range is that of the worst input, and typical
/// inputs use a small part of it.
pub(crate) const LINEAR_MARGIN_BITS: u32 = 14;

/// Share of the tolerance left to noise; the rest is leaf rounding.
const NOISE_SHARE: f64 = 0.86;

/// What the search needs of one output of the circuit.
struct Demand<'a> {
    /// Of the operation that computes it, for messages.
    place: String,
    kind: Kind<'a>,
    slots: u32,
    /// Largest error of the torus.
    tolerance: f64,
}

enum Kind<'a> {
    Diagram { diagram: &'a Diagram, profile: NoiseProfile, log2_delta: u32 },
    Linear { norm2: f64 },
}

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    if graph.values().any(|id| matches!(graph.node(id).op, CircuitOp::Params { .. })) {
        return Ok(Ir::Circuit(graph));
    }
    if choose_network_parameters::is_network(&graph) {
        return choose_network_parameters::run(&graph, cx).map(Ir::Circuit);
    }
    let demands = demands(&graph, cx)?;
    let selectors: u32 = graph
        .values()
        .map(|id| match &graph.node(id).op {
            CircuitOp::Codes { selectors, .. } => selectors.iter().map(|s| s.bits).sum(),
            _ => 0,
        })
        .sum();
    let chosen = search(&demands, selectors, cx)?;
    let mut params = None;
    let graph = graph.rewrite(|new, _, node, mut operands, loc| {
        if matches!(node.op, CircuitOp::Decide { .. } | CircuitOp::Polymul { .. }) {
            let id = match params {
                Some(id) => id,
                None => new.push(chosen.op(), vec![], None, Loc::Pass(INFO.name)).map_err(|why| ill_typed(&why))?,
            };
            params = Some(id);
            operands.push(id);
        }
        new.push(node.op.clone(), operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })?;
    Ok(Ir::Circuit(graph))
}

fn demands<'a>(graph: &'a Graph<Circuit>, cx: &PassCx<'_>) -> Result<Vec<Demand<'a>>> {
    let precision = f64::from(cx.options.precision_bits);
    let mut demands = Vec::new();
    for (_, id) in graph.outputs() {
        let (exact, source) = match (&graph.node(*id).op, graph.node(*id).operands.first()) {
            (CircuitOp::Extract { exact, .. }, Some(source)) => (*exact, *source),
            _ => return Err(super::requires("choose-parameters", "an `extract` at every output")),
        };
        demands.push(match &graph.node(source).op {
            CircuitOp::Decide { log2_delta, diagram } => {
                if diagram.nodes.iter().any(|node| matches!(node, Node::Switch { .. })) {
                    return Err(super::requires("choose-parameters", "expand-bits"));
                }
                let unit = (f64::from(*log2_delta) - 64.0).exp2();
                // The narrowest output decides: all share one noise.
                let spans = diagram.ranges().into_iter().map(|(low, high)| high.saturating_sub(low)).filter(|&s| s > 0);
                let span = spans.min().unwrap_or(1) as f64;
                let tolerance = if exact { 0.5 * unit } else { span * unit * (-precision).exp2() };
                Demand {
                    place: graph.loc(source).to_string(),
                    kind: Kind::Diagram { diagram, profile: diagram.noise_profile(), log2_delta: *log2_delta },
                    slots: diagram.slots,
                    tolerance,
                }
            }
            CircuitOp::Polymul { outputs, weights } => Demand {
                place: graph.loc(source).to_string(),
                kind: Kind::Linear {
                    // With the row that gives back the client's scale, see `emit`.
                    norm2: weights.iter().map(|&w| (w as f64).powi(2)).sum::<f64>()
                        + row_norm(weights, (weights.len() / (*outputs).max(1) as usize) as u32).powi(2),
                },
                slots: *outputs + 1,
                tolerance: (-precision - f64::from(LINEAR_MARGIN_BITS)).exp2(),
            },
            _ => return Err(super::requires("choose-parameters", "`decide` or `polymul` before `extract`")),
        });
    }
    Ok(demands)
}

#[derive(Clone, Copy)]
struct Choice {
    glwe: GlweParams,
    gadget: Option<GadgetParams>,
}

impl Choice {
    fn op(&self) -> CircuitOp {
        CircuitOp::Params {
            k: self.glwe.dimension,
            n: self.glwe.polynomial_size,
            log2_std: self.glwe.log2_std,
            base_log: self.gadget.map_or(0, |gadget| gadget.base_log),
            levels: self.gadget.map_or(0, |gadget| gadget.levels),
        }
    }
}

fn search(demands: &[Demand<'_>], selectors: u32, cx: &PassCx<'_>) -> Result<Choice> {
    let least_size = demands.iter().map(least_polynomial).max().unwrap_or(256);
    let sigmas: Vec<f64> = demands
        .iter()
        .map(|demand| noise::sigmas_for_failure(f64::from(cx.options.failure_bits) + f64::from(demand.slots).log2()))
        .collect();
    let products: u64 = demands.iter().map(|demand| products(&demand.kind)).sum();
    let mut best: Option<(f64, Choice)> = None;
    // The candidate that comes nearest, for the message when none fits.
    let mut nearest: Option<(f64, String)> = None;
    for log2_size in least_size.max(256).trailing_zeros()..=13 {
        let size = 1u32 << log2_size;
        for dimension in (1..=32u32).filter(|k| (1024..=8192).contains(&(k * size))) {
            let glwe = GlweParams::secure(dimension, size);
            let gadgets: Vec<Option<GadgetParams>> = if selectors == 0 {
                vec![None]
            } else {
                let all = (1..=4u32).flat_map(|levels| (2..=48 / levels).map(move |base_log| (base_log, levels)));
                all.map(|(base_log, levels)| Some(GadgetParams { base_log, levels })).collect()
            };
            for gadget in gadgets {
                let choice = Choice { glwe, gadget };
                let time = predicted_us(&choice, selectors, products, cx);
                if best.as_ref().is_some_and(|(known, _)| *known <= time) {
                    continue;
                }
                let worst = demands.iter().zip(&sigmas).map(|(demand, sigmas)| excess(demand, &choice, *sigmas));
                let (excess, place) = worst.fold((f64::NEG_INFINITY, ""), |a, b| if b.0 > a.0 { b } else { a });
                if excess <= 0.0 {
                    best = Some((time, choice));
                } else if nearest.as_ref().is_none_or(|(known, _)| excess < *known) {
                    nearest = Some((excess, place.to_owned()));
                }
            }
        }
    }
    best.map(|(_, choice)| choice).ok_or_else(|| {
        let (excess, place) = nearest.unwrap_or((0.0, String::new()));
        let precision = cx.options.precision_bits;
        let fits = precision.saturating_sub(excess.ceil() as u32);
        Diagnostic::new(
            Code::NoParameters,
            format!(
                "an output misses {precision} bits of precision by {excess:.1} bits with every secure parameter set"
            ),
        )
        .at(place)
        .note(format!(
            "{products} external products over {selectors} selector bits; failure probability 2^-{}",
            cx.options.failure_bits
        ))
        .help(format!("ask for less: --set precision-bits={fits}"))
    })
}

/// Bits by which the noise of an output is over its tolerance (negative: it fits), and the output's place.
fn excess<'a>(demand: &'a Demand<'_>, choice: &Choice, sigmas: f64) -> (f64, &'a str) {
    let variance = match &demand.kind {
        Kind::Diagram { diagram: _, profile, log2_delta } => {
            let lowest = choice.gadget.map_or(64, |gadget| 64 - gadget.base_log * gadget.levels);
            if profile.reads_bits() && lowest > *log2_delta {
                // A bit's body row is too coarse for the output's steps.
                return (f64::from(lowest - log2_delta), &demand.place);
            }
            profile.variance(&choice.glwe, choice.gadget.as_ref(), *log2_delta)
        }
        Kind::Linear { norm2 } => noise::polynomial_product(&choice.glwe, choice.glwe.variance(), *norm2),
    };
    ((variance.sqrt() * sigmas / (demand.tolerance * NOISE_SHARE)).log2(), &demand.place)
}

/// The least polynomial size that holds the outputs, tables and spaced inputs of a demand.
fn least_polynomial(demand: &Demand<'_>) -> u32 {
    match &demand.kind {
        Kind::Diagram { diagram, .. } => choose_network_parameters::least_size(diagram),
        Kind::Linear { .. } => demand.slots.next_power_of_two(),
    }
}

fn products(kind: &Kind<'_>) -> u64 {
    match kind {
        Kind::Diagram { diagram, .. } => diagram.products(),
        Kind::Linear { .. } => 0,
    }
}

/// Server time weighted against client time.
fn predicted_us(choice: &Choice, selectors: u32, products: u64, cx: &PassCx<'_>) -> f64 {
    let Some(gadget) = &choice.gadget else {
        return choice.glwe.ciphertext_len() as f64;
    };
    let cost = &cx.options.cost_profile;
    let server = products as f64
        * (cost.external_product_us(&choice.glwe, gadget) + 3.0 * cost.form_term_us(&choice.glwe))
        + f64::from(selectors) * cost.prepare_selector_us(&choice.glwe, gadget);
    cx.options.server_weight * server + f64::from(selectors) * cost.encrypt_selector_us(&choice.glwe, gadget)
}
