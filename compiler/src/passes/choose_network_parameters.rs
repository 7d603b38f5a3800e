//! The part of `choose-parameters` for networks: one GLWE key for rotated look-ups and the outputs of bootstraps, one small
//! key for their arguments.
//!
//! A candidate is judged where noise meets a table and where values leave the server: there its standard deviation may be
//! `noise-share` of that of the value itself over the calibration rows (half of it at the outputs), and the probability
//! that it leaves the margin kept around the value's interval may not exceed the asked failure probability. Among those
//! that fit, the least predicted time wins.

use super::PassCx;
use super::diagrams::ill_typed;
use crate::options::Options;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::noise::{self, bootstrap as noise_of};
use tacit_ir::params::{BootstrapParams, GadgetParams, GlweParams, KEYSWITCH_BASE_LOG, LweParams};
use tacit_ir::plan::BLOCK;
use tacit_ir::stage::circuit::network::{self, Turns};
use tacit_ir::stage::circuit::{Circuit, CircuitOp, CircuitType};
use tacit_ir::stage::quant::matrix_ranges;

/// Block length of small keys: the longest estimated one, with the fewest FFTs.
const KEY_BLOCK: u32 = 3;

/// Whether a circuit has look-ups or LWE values.
pub(super) fn is_network(graph: &Graph<Circuit>) -> bool {
    graph.values().any(|id| matches!(graph.node(id).ty, CircuitType::Lwe { .. }))
}

#[derive(Clone, Copy)]
struct Choice {
    glwe: GlweParams,
    selectors: Option<GadgetParams>,
    bootstrap: Option<BootstrapParams>,
}

/// What a circuit asks of parameters.
#[derive(Default)]
struct Needs {
    turns: Turns,
    bootstraps: u64,
    keyswitches: u64,
    selector_bits: u64,
    small: bool,
}

pub(super) fn run(graph: &Graph<Circuit>, cx: &mut PassCx<'_>) -> Result<Graph<Circuit>> {
    let needs = needs(graph);
    let choice = search(graph, &needs, cx)?;
    if cx.explain {
        for note in explanation(graph, &needs, &choice, cx) {
            cx.note(note);
        }
    }
    let Choice { glwe, selectors, bootstrap } = choice;
    let loc = Loc::Pass("choose-parameters");
    let mut made: Option<(ValueId, Option<ValueId>)> = None;
    graph.rewrite(|new, _, node, mut operands, own| {
        let noisy =
            matches!(node.op, CircuitOp::Samples { .. } | CircuitOp::RotateLookup { .. } | CircuitOp::Bootstrap { .. });
        if noisy {
            let (params, more) = match made {
                Some(known) => known,
                None => {
                    let op = CircuitOp::Params {
                        k: glwe.dimension,
                        n: glwe.polynomial_size,
                        log2_std: glwe.log2_std,
                        base_log: selectors.map_or(0, |gadget| gadget.base_log),
                        levels: selectors.map_or(0, |gadget| gadget.levels),
                    };
                    let params = new.push(op, vec![], None, loc.clone()).map_err(|why| ill_typed(&why))?;
                    let more = bootstrap.map(|b| {
                        let op = CircuitOp::BootstrapParams {
                            n: b.lwe.dimension,
                            log2_std: b.lwe.log2_std,
                            block: b.lwe.block,
                            ks_base_log: b.keyswitch.map_or(0, |gadget| gadget.base_log),
                            ks_levels: b.keyswitch.map_or(0, |gadget| gadget.levels),
                            base_log: b.gadget.base_log,
                            levels: b.gadget.levels,
                            small_dimension: b.small_dimension,
                        };
                        new.push(op, vec![], None, loc.clone()).map_err(|why| ill_typed(&why))
                    });
                    let pair = (params, more.transpose()?);
                    made = Some(pair);
                    pair
                }
            };
            operands.push(params);
            if matches!(node.op, CircuitOp::Bootstrap { .. } | CircuitOp::Samples { small: true, .. }) {
                operands.extend(more);
            }
        }
        new.push(node.op.clone(), operands, None, own.clone()).map_err(|why| ill_typed(&why))
    })
}

/// What limits a choice, and what tolerating half or twice the noise would cost or save; nothing where the failure
/// probability is what limits.
fn explanation(graph: &Graph<Circuit>, needs: &Needs, choice: &Choice, cx: &PassCx<'_>) -> [String; 2] {
    let judge = Judge::new(graph, cx);
    let (excess, place) = judge.excess(choice);
    let limit =
        format!("parameters are limited by the noise at {place}, {:.1} bits below what is tolerated there", -excess);
    let now = server_us(choice, needs, cx);
    let with = |factor: f64| {
        let options = Options { noise_share: Some(cx.options.noise_share() * factor), ..cx.options.clone() };
        let other = search(graph, needs, &PassCx::new(&options, cx.calibration)).ok()?;
        Some((server_us(&other, needs, &PassCx::new(&options, cx.calibration)) - now) / 1e3)
    };
    let more =
        with(0.5).map_or("fits no secure parameters".to_owned(), |ms| format!("would cost {:.1} ms", ms.max(0.0)));
    let less = with(2.0).map_or(0.0, |ms| (-ms).max(0.0));
    [limit, format!("half the noise-share {more} on one core; twice would save {less:.1} ms")]
}

/// What turns each element of a rotated look-up: the digits of the codes it reads.
pub(crate) fn turns(graph: &Graph<Circuit>, id: ValueId) -> Vec<Turns> {
    let node = graph.node(id);
    let CircuitOp::RotateLookup { start, column, .. } = &node.op else { return Vec::new() };
    let mut codes: Vec<Turns> = Vec::new();
    for operand in &node.operands {
        if let CircuitType::Codes { largest, bits } = &graph.node(*operand).ty {
            codes.extend(largest.iter().zip(bits).map(|(&largest, &bits)| Turns::of(largest, bits)));
        }
    }
    let of = |at: usize| codes.get(column[at] as usize).copied().unwrap_or_default();
    start.windows(2).map(|pair| (pair[0] as usize..pair[1] as usize).map(of).sum()).collect()
}

fn needs(graph: &Graph<Circuit>) -> Needs {
    let mut needs = Needs::default();
    for id in graph.values() {
        let node = graph.node(id);
        match &node.op {
            CircuitOp::Codes { selectors, .. } => {
                needs.selector_bits += selectors.iter().map(|s| u64::from(s.bits)).sum::<u64>();
            }
            CircuitOp::RotateLookup { .. } => {
                needs.turns = turns(graph, id).into_iter().chain([needs.turns]).sum();
            }
            CircuitOp::Bootstrap { table, .. } => {
                needs.bootstraps += table.len() as u64;
                let under_small = node.operands.first().map(|id| &graph.node(*id).ty);
                if matches!(under_small, Some(CircuitType::Lwe { small: false, .. })) {
                    needs.keyswitches += table.len() as u64;
                }
            }
            CircuitOp::Samples { small, .. } => needs.small |= small,
            _ => {}
        }
    }
    needs
}

/// The base with the least noise for each number of levels.
fn best_bases(
    levels: std::ops::RangeInclusive<u32>,
    bits: u32,
    noise: impl Fn(GadgetParams) -> f64,
) -> Vec<GadgetParams> {
    let best = |levels: u32| {
        let all = (1..=bits / levels).map(|base_log| GadgetParams { base_log, levels });
        all.min_by(|a, b| noise(*a).total_cmp(&noise(*b)))
    };
    levels.filter_map(best).collect()
}

fn search(graph: &Graph<Circuit>, needs: &Needs, cx: &PassCx<'_>) -> Result<Choice> {
    let judge = Judge::new(graph, cx);
    let mut best: Option<(f64, Choice)> = None;
    let mut nearest: Option<(f64, String)> = None;
    // Blind rotations and blocks are written for small k.
    let most = if needs.bootstraps > 0 || needs.turns.blocks > 0 { BootstrapParams::MAX_GLWE_DIMENSION } else { 8 };
    for log2_size in 9..=12 {
        for dimension in (1..=most).filter(|k| (1024..=4096).contains(&(k << log2_size))) {
            let glwe = GlweParams::secure(dimension, 1 << log2_size);
            let selectors: Vec<Option<GadgetParams>> = if needs.turns == Turns::default() {
                vec![None]
            } else {
                let gadgets = best_bases(1..=3, 48, |gadget| noise::external_product(&glwe, &gadget));
                gadgets.into_iter().map(Some).collect()
            };
            for bootstrap in bootstraps(&glwe, needs) {
                for selectors in &selectors {
                    let choice = Choice { glwe, selectors: *selectors, bootstrap };
                    let time = predicted_us(&choice, needs, cx);
                    if best.as_ref().is_some_and(|(known, _)| *known <= time) {
                        continue;
                    }
                    let (excess, place) = judge.excess(&choice);
                    if excess <= 0.0 {
                        best = Some((time, choice));
                    } else if nearest.as_ref().is_none_or(|(known, _)| excess < *known) {
                        nearest = Some((excess, place.to_owned()));
                    }
                }
            }
        }
    }
    best.map(|(_, choice)| choice).ok_or_else(|| {
        let (excess, place) = nearest.unwrap_or_default();
        let share = cx.options.noise_share() * excess.exp2() * 1.05;
        Diagnostic::new(
            Code::NoParameters,
            format!("noise is {:.1} times what is tolerated with every secure parameter set", excess.exp2()),
        )
        .at(place)
        .help(format!(
            "use smaller weights (--set weight-bits={}) or tolerate more noise (--set noise-share={share:.2})",
            cx.options.weight_bits().saturating_sub(1).max(2)
        ))
    })
}

fn bootstraps(glwe: &GlweParams, needs: &Needs) -> Vec<Option<BootstrapParams>> {
    if needs.bootstraps == 0 {
        return vec![None];
    }
    let mut all = Vec::new();
    // Inputs under the small key want a dimension of few polynomials of a power of two.
    let dimensions: Vec<u32> = if needs.small { vec![768, 960, 1152] } else { (600..=1200).step_by(24).collect() };
    for dimension in dimensions {
        let lwe = LweParams::secure(dimension, KEY_BLOCK);
        let small_dimension = if needs.small { dimension >> dimension.trailing_zeros().min(10) } else { 0 };
        let with = |keyswitch, gadget| BootstrapParams { lwe, keyswitch, gadget, small_dimension };
        let gadgets = best_bases(1..=3, 48, |gadget| noise_of::blind_rotation(glwe, &with(None, gadget)));
        for gadget in gadgets {
            if needs.keyswitches == 0 {
                all.push(Some(with(None, gadget)));
                continue;
            }
            let keyswitches = best_bases(1..=8, 24, |own| noise_of::keyswitch(glwe, &with(Some(own), gadget)));
            let keyswitches = keyswitches.into_iter().filter(|own| own.base_log <= KEYSWITCH_BASE_LOG);
            all.extend(keyswitches.map(|own| Some(with(Some(own), gadget))));
        }
    }
    all
}

/// Predicted time on the server, on one core.
fn server_us(choice: &Choice, needs: &Needs, cx: &PassCx<'_>) -> f64 {
    let Choice { glwe, selectors, bootstrap } = choice;
    let cost = &cx.options.cost_profile;
    let selectors = selectors.as_ref().map_or(0.0, |gadget| {
        f64::from(needs.turns.singles) * cost.rotation_us(glwe, gadget)
            + f64::from(needs.turns.blocks) * cost.block_us(glwe, gadget, BLOCK as f64)
            + needs.selector_bits as f64 * cost.prepare_selector_us(glwe, gadget)
    });
    let bootstraps = bootstrap.as_ref().map_or(0.0, |params| {
        needs.bootstraps as f64 * cost.bootstrap_us(glwe, params)
            + needs.keyswitches as f64 * cost.keyswitch_us(glwe, params)
    });
    selectors + bootstraps
}

/// Server time weighted against client time.
fn predicted_us(choice: &Choice, needs: &Needs, cx: &PassCx<'_>) -> f64 {
    let Choice { glwe, selectors, bootstrap: _ } = choice;
    let cost = &cx.options.cost_profile;
    let encrypt = |gadget: &GadgetParams| needs.selector_bits as f64 * cost.encrypt_selector_us(glwe, gadget);
    let client = selectors.as_ref().map_or(0.0, encrypt);
    cx.options.server_weight * server_us(choice, needs, cx) + client + glwe.ciphertext_len() as f64 * 1e-3
}

/// Where noise arises and where it is judged, in the order of the circuit; vectors are numbered by value.
struct Judge {
    steps: Vec<(Step, String)>,
    values: usize,
    share: f64,
    /// Of a single value.
    sigmas: f64,
}

enum Step {
    Samples {
        out: usize,
        small: bool,
    },
    /// What turns an element the most; the typical deviation of a sum as a share of the widest sum.
    Rotate {
        out: usize,
        most: Turns,
        typical: f64,
    },
    Affine {
        out: usize,
        operands: Vec<usize>,
        norm2: f64,
    },
    /// The typical deviation of the argument on the torus.
    Bootstrap {
        out: usize,
        argument: usize,
        small: bool,
        typical: f64,
        sigmas: f64,
    },
    Result {
        argument: usize,
        typical: f64,
        sigmas: f64,
    },
}

/// The bits and the norm of what a table or a result takes in, when it is a sum.
fn sums(graph: &Graph<Circuit>, id: ValueId) -> String {
    let node = graph.node(id);
    let (CircuitOp::Affine { start, weight, .. }, CircuitType::Lwe { ranges, .. }) = (&node.op, &node.ty) else {
        return String::new();
    };
    let widest = ranges.iter().map(|(low, high)| low.abs_diff(*high)).max().unwrap_or(0);
    let norm = network::largest_norm2(start, weight).sqrt();
    format!(", whose sums have {} bits and weights of norm {norm:.1}", u64::BITS - widest.leading_zeros())
}

impl Judge {
    fn new(graph: &Graph<Circuit>, cx: &PassCx<'_>) -> Self {
        // The typical deviation of a value on the torus.
        let spread = |id: ValueId| match (&graph.node(id).op, &graph.node(id).ty) {
            (CircuitOp::Affine { spread, .. }, CircuitType::Lwe { log2_unit, .. }) if *spread > 0.0 => {
                spread * log2_unit.0.exp2()
            }
            // Of constants, whose noise is not read.
            _ => 0.25,
        };
        // The quantile of the failure probability, shared among so many values.
        let failure_bits = f64::from(cx.options.failure_bits);
        let sigmas = |count: f64| noise::sigmas_for_failure(failure_bits + count.log2());
        let mut steps = Vec::new();
        for id in graph.values() {
            let node = graph.node(id);
            let out = id.index();
            let argument = node.operands.first().copied();
            let mut place = graph.loc(id).to_string();
            let step = match (&node.op, &node.ty, argument) {
                (CircuitOp::Samples { small, .. }, ..) => Step::Samples { out, small: *small },
                (CircuitOp::RotateLookup { start, column, weight, spread, .. }, ..) => {
                    let most = turns(graph, id).into_iter().max_by_key(|turns| 6 * turns.blocks + turns.singles);
                    let most = most.unwrap_or_default();
                    let largest = node.operands.iter().flat_map(|operand| match &graph.node(*operand).ty {
                        CircuitType::Codes { largest, .. } => largest.clone(),
                        _ => Vec::new(),
                    });
                    let inputs: Vec<(i64, i64)> = largest.map(|l| (0, i64::from(l))).collect();
                    let ranges = matrix_ranges(start, column, weight, &inputs).unwrap_or_default();
                    let widest = ranges.iter().map(|&(low, high)| (high - low) as f64).fold(1.0, f64::max);
                    Step::Rotate { out, most, typical: spread / widest }
                }
                (CircuitOp::Affine { start, weight, .. }, ..) => Step::Affine {
                    out,
                    operands: node.operands.iter().map(|id| id.index()).collect(),
                    norm2: network::largest_norm2(start, weight).max(1.0),
                },
                (CircuitOp::Bootstrap { table, .. }, _, Some(argument)) => {
                    let small = matches!(graph.node(argument).ty, CircuitType::Lwe { small: true, .. });
                    let (typical, sigmas) = (spread(argument), sigmas(table.len() as f64));
                    place += &sums(graph, argument);
                    Step::Bootstrap { out, argument: argument.index(), small, typical, sigmas }
                }
                (CircuitOp::Extract { .. }, CircuitType::Result(count), Some(argument)) => {
                    place += &sums(graph, argument);
                    let (typical, sigmas) = (spread(argument), sigmas(f64::from(*count)));
                    Step::Result { argument: argument.index(), typical, sigmas }
                }
                _ => continue,
            };
            steps.push((step, place));
        }
        Judge { steps, values: graph.len(), share: cx.options.noise_share(), sigmas: sigmas(1.0) }
    }

    /// Bits by which noise is over what is tolerated at the worst place (negative: it fits), and the place.
    fn excess(&self, choice: &Choice) -> (f64, &str) {
        let Choice { glwe, selectors, bootstrap } = choice;
        let share = self.share;
        let mut variance = vec![0.0; self.values];
        let mut worst = (f64::NEG_INFINITY, "");
        for (step, place) in &self.steps {
            // Deviation against what is tolerated, and its quantile against the margin around the interval.
            let mut judge = |variance: f64, tolerated: f64, margin: f64, sigmas: f64| {
                let std = f64::sqrt(variance);
                let over = (std / tolerated).max(std * sigmas / margin).log2();
                if over > worst.0 {
                    worst = (over, place.as_str());
                }
            };
            match step {
                Step::Samples { out, small } => {
                    variance[*out] = if *small { bootstrap.map_or(0.0, |b| b.lwe.variance()) } else { glwe.variance() };
                }
                Step::Rotate { out, most, typical } => {
                    variance[*out] = selectors.map_or(0.0, |gadget| noise_of::rotations(glwe, &gadget, *most));
                    // The widest sum takes half a turn. Each shift is rounded on its own, and half of them are taken.
                    let slot = 0.5 / f64::from(glwe.polynomial_size);
                    let taken = 0.5 * f64::from(most.singles) + 0.75 * f64::from(most.blocks);
                    judge(slot * slot / 12.0 * (1.0 + taken), share * typical * 0.5, 1.0, self.sigmas);
                }
                Step::Affine { out, operands, norm2 } => {
                    variance[*out] = norm2 * operands.iter().map(|at| variance[*at]).fold(0.0, f64::max);
                }
                Step::Bootstrap { out, argument, small, typical, sigmas } => {
                    let Some(params) = bootstrap else { continue };
                    let total = noise_of::argument(glwe, params, variance[*argument], *small);
                    judge(total, share * typical, 0.25 * (1.0 - network::FILL), *sigmas);
                    variance[*out] = noise_of::blind_rotation(glwe, params);
                }
                Step::Result { argument, typical, sigmas } => {
                    judge(variance[*argument], share * typical / 2.0, 0.5 * (1.0 - network::FILL), *sigmas);
                }
            }
        }
        worst
    }
}
