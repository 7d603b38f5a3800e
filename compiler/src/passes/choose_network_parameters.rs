//! The part of `choose-parameters` for networks: one GLWE key for rotated look-ups and the outputs of bootstraps, one small
//! key for their arguments. `partition-parameters` may then give some bootstraps a small key of their own.
//!
//! A candidate is judged where noise meets a table and where values leave the server: there its standard deviation may be
//! `noise-share` of that of the value itself over the calibration rows (half of it at the outputs), and the probability
//! that it leaves the margin kept around the value's interval may not exceed the asked failure probability; nor, where
//! values are exact, that it leaves half a step. Among those that fit, the least predicted time wins.

use super::diagrams::ill_typed;
use super::{PassCx, partition_parameters};
use crate::options::{Options, RegimeRule};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Diagram, Node, NoiseProfile};
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

/// Parameters of a circuit.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) glwe: GlweParams,
    pub(super) selectors: Option<GadgetParams>,
    /// Parameter sets of bootstraps.
    pub(super) partitions: Vec<BootstrapParams>,
    /// Of each layer of bootstraps: its partition.
    pub(super) of: Vec<usize>,
}

/// What a circuit asks of parameters.
#[derive(Debug, Default)]
pub(super) struct Needs {
    turns: Turns,
    /// External products of decision diagrams.
    products: u64,
    /// The least polynomial that holds the outputs and tables of decision diagrams.
    least_size: u32,
    selector_bits: u64,
    /// Layers of bootstraps, in the order of the circuit.
    pub(super) layers: Vec<LayerNeeds>,
}

/// What a layer of bootstraps asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerNeeds {
    pub(super) bootstraps: u64,
    /// Whether its arguments are under a small key, so that they are not switched.
    pub(super) small: bool,
    /// Results of each.
    pub(super) results: u32,
}

pub(super) fn run(graph: &Graph<Circuit>, cx: &mut PassCx<'_>) -> Result<Graph<Circuit>> {
    let needs = needs(graph);
    let choice = search(graph, &needs, cx, 1)?;
    // Those of bootstraps may yet get partitions.
    if cx.explain && needs.layers.is_empty() {
        for note in explanation(graph, &needs, &choice, cx, 1) {
            cx.note(note);
        }
    }
    with_parameters(graph, &choice, "choose-parameters")
}

/// The circuit with these parameters, in place of others that it may have.
pub(super) fn with_parameters(graph: &Graph<Circuit>, choice: &Choice, pass: &'static str) -> Result<Graph<Circuit>> {
    let Choice { glwe, selectors, partitions, of } = choice;
    let loc = Loc::Pass(pass);
    let inputs = partitions.iter().position(|params| params.small_dimension > 0);
    let mut made: Option<(ValueId, Vec<ValueId>)> = None;
    let mut layers = of.iter();
    graph.rewrite(|new, _, node, mut operands, own| {
        let partition = match &node.op {
            CircuitOp::Bootstrap { .. } => layers.next().copied(),
            CircuitOp::Samples { small: true, .. } => inputs,
            CircuitOp::Params { .. }
            | CircuitOp::BootstrapParams { .. }
            | CircuitOp::Samples { .. }
            | CircuitOp::Decide { .. }
            | CircuitOp::SampleExtract { .. }
            | CircuitOp::RotateLookup { .. } => None,
            _ => return new.push(node.op.clone(), operands, None, own.clone()).map_err(|why| ill_typed(&why)),
        };
        let (params, sets) = match &mut made {
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
                let set = |b: &BootstrapParams| {
                    let op = CircuitOp::BootstrapParams {
                        n: b.lwe.dimension,
                        log2_std: b.lwe.log2_std,
                        block: b.lwe.block,
                        ks_base_log: b.keyswitch.map_or(0, |gadget| gadget.base_log),
                        ks_levels: b.keyswitch_levels(),
                        base_log: b.gadget.base_log,
                        levels: b.gadget.levels,
                        small_dimension: b.small_dimension,
                    };
                    new.push(op, vec![], None, loc.clone()).map_err(|why| ill_typed(&why))
                };
                let sets = partitions.iter().map(set).collect::<Result<_>>()?;
                made.insert((params, sets))
            }
        };
        if matches!(node.op, CircuitOp::Params { .. } | CircuitOp::BootstrapParams { .. }) {
            return Ok(*params);
        }
        operands.retain(|operand| operand != params);
        operands.push(*params);
        operands.extend(partition.and_then(|at| sets.get(at)));
        new.push(node.op.clone(), operands, None, own.clone()).map_err(|why| ill_typed(&why))
    })
}

/// What limits a choice, and what a bit of precision more or less would cost or save (half or twice the noise at each
/// activation), with at most so many partitions;
/// nothing where the failure probability is what limits.
pub(super) fn explanation(
    graph: &Graph<Circuit>,
    needs: &Needs,
    choice: &Choice,
    cx: &PassCx<'_>,
    most: usize,
) -> Vec<String> {
    let judge = Judge::new(graph, cx);
    let mut notes = Vec::new();
    if choice.partitions.len() < 2 {
        let (excess, place) = judge.excess(choice);
        let below = -excess;
        notes.push(format!(
            "parameters are limited by the noise at {place}, {below:.1} bits below what is tolerated there"
        ));
    }
    for (at, params) in choice.partitions.iter().enumerate().filter(|_| choice.partitions.len() > 1) {
        let [(arguments, argument), (outputs, output)] = judge.limits(choice, at);
        let mut note = format!(
            "partition {at}, n={}, is limited by the noise of its arguments at {argument}, {:.1} bits below what is tolerated there",
            params.lwe.dimension, -arguments
        );
        // Where its noise is beside another's everywhere, nothing is limited by it.
        if outputs.is_finite() {
            note += &format!(", and of its outputs at {output}, {:.1} bits below", -outputs);
        }
        notes.push(note);
    }
    let now = server_us(choice, needs, cx);
    let with = |factor: f64| {
        let options = Options { noise_share: Some(cx.options.noise_share() * factor), ..cx.options.clone() };
        let other = search(graph, needs, &PassCx::new(&options, cx.calibration), most).ok()?;
        Some((server_us(&other, needs, &PassCx::new(&options, cx.calibration)) - now) / 1e3)
    };
    let more =
        with(0.5).map_or("fits no secure parameters".to_owned(), |ms| format!("would cost {:.1} ms", ms.max(0.0)));
    let less = with(2.0).map_or(0.0, |ms| (-ms).max(0.0));
    notes.push(format!(
        "one more bit of precision at activations (half the noise-share) {more} on one core; one bit less would save {less:.1} ms"
    ));
    notes
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

pub(super) fn needs(graph: &Graph<Circuit>) -> Needs {
    let mut needs = Needs::default();
    for id in graph.values() {
        let node = graph.node(id);
        match &node.op {
            CircuitOp::Codes { selectors, .. } => {
                needs.selector_bits += selectors.iter().map(|s| u64::from(s.bits)).sum::<u64>();
            }
            CircuitOp::Decide { diagram, .. } => {
                needs.products += diagram.products();
                needs.least_size = needs.least_size.max(least_size(diagram));
            }
            CircuitOp::RotateLookup { .. } => {
                needs.turns = turns(graph, id).into_iter().chain([needs.turns]).sum();
            }
            CircuitOp::Bootstrap { table, results, .. } => {
                let argument = node.operands.first().map(|id| &graph.node(*id).ty);
                let small = matches!(argument, Some(CircuitType::Lwe { small: true, .. }));
                let results = results.unwrap_or(1);
                needs.layers.push(LayerNeeds { bootstraps: table.len() as u64 / u64::from(results), small, results });
            }
            _ => {}
        }
    }
    needs
}

/// The least polynomial size that holds the outputs and tables of a diagram.
pub(super) fn least_size(diagram: &Diagram) -> u32 {
    let slots = diagram.slots.next_power_of_two();
    let tables = diagram.nodes.iter().map(|node| match node {
        Node::Table { bits, values: _ } => slots << bits.len(),
        Node::Switch { .. } | Node::Mux { .. } => slots,
    });
    tables.max().unwrap_or(slots)
}

/// The base with the least noise for each number of levels.
pub(super) fn best_bases(
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

/// The GLWE parameters and decompositions of selectors that a circuit may have.
fn shapes(needs: &Needs) -> Vec<(GlweParams, Option<GadgetParams>)> {
    // Blind rotations and blocks are written for small k.
    let blocks = !needs.layers.is_empty() || needs.turns.blocks > 0;
    let most = if blocks { BootstrapParams::MAX_GLWE_DIMENSION } else { 8 };
    let mut shapes = Vec::new();
    for log2_size in (9..=12).filter(|log2| 1 << log2 >= needs.least_size) {
        for dimension in (1..=most).filter(|k| (1024..=4096).contains(&(k << log2_size))) {
            let glwe = GlweParams::secure(dimension, 1 << log2_size);
            if needs.turns == Turns::default() && needs.products == 0 {
                shapes.push((glwe, None));
            } else {
                let gadgets = best_bases(1..=3, 48, |gadget| noise::external_product(&glwe, &gadget));
                shapes.extend(gadgets.into_iter().map(|gadget| (glwe, Some(gadget))));
            }
        }
    }
    shapes
}

/// The quickest parameters that fit, with at most so many partitions.
pub(super) fn search(graph: &Graph<Circuit>, needs: &Needs, cx: &PassCx<'_>, most: usize) -> Result<Choice> {
    let judge = Judge::new(graph, cx);
    let shapes = shapes(needs);
    if let Some(choice) = partition_parameters::best(&judge, needs, &shapes, cx, most) {
        return Ok(choice);
    }
    let (excess, place) = nearest(&judge, needs, &shapes);
    let share = cx.options.noise_share() * excess.exp2() * 1.05;
    let regime = match cx.options.regime {
        Some(RegimeRule::Rotate) => "; or let wide layers bootstrap: leave regime=rotate out",
        _ => "",
    };
    Err(Diagnostic::new(
        Code::NoParameters,
        format!("noise is {:.1} times what is tolerated with every secure parameter set", excess.exp2()),
    )
    .at(place)
    .help(format!(
        "use smaller weights (--set weight-bits={}) or tolerate more noise (--set noise-share={share:.2}){regime}",
        cx.options.weight_bits().saturating_sub(1).max(2)
    )))
}

/// The choice of one set that is least over what is tolerated: by how many bits, and where.
fn nearest(judge: &Judge, needs: &Needs, shapes: &[(GlweParams, Option<GadgetParams>)]) -> (f64, String) {
    let mut nearest: Option<(f64, String)> = None;
    for (glwe, selectors) in shapes {
        let sets = if needs.layers.is_empty() {
            vec![vec![]]
        } else {
            let inputs = needs.layers.iter().any(|layer| layer.small);
            let switched = needs.layers.iter().any(|layer| !layer.small);
            sets(glwe, inputs, switched).into_iter().map(|set| vec![set]).collect()
        };
        for partitions in sets {
            let of = vec![0; needs.layers.len()];
            let choice = Choice { glwe: *glwe, selectors: *selectors, partitions, of };
            let (excess, place) = judge.excess(&choice);
            if nearest.as_ref().is_none_or(|(known, _)| excess < *known) {
                nearest = Some((excess, place.to_owned()));
            }
        }
    }
    nearest.unwrap_or_default()
}

/// Sets of bootstraps, with inputs under their small key or not, and arguments that are switched to it or not.
pub(super) fn sets(glwe: &GlweParams, inputs: bool, switched: bool) -> Vec<BootstrapParams> {
    let mut all = Vec::new();
    // Inputs under the small key want a dimension of few polynomials of a power of two.
    let dimensions: Vec<u32> = if inputs { vec![768, 960, 1152] } else { (600..=1200).step_by(24).collect() };
    for dimension in dimensions {
        let lwe = LweParams::secure(dimension, KEY_BLOCK);
        let small_dimension = if inputs { dimension >> dimension.trailing_zeros().min(10) } else { 0 };
        let with = |keyswitch, gadget| BootstrapParams { lwe, keyswitch, gadget, small_dimension };
        let gadgets = best_bases(1..=3, 48, |gadget| noise_of::blind_rotation(glwe, &with(None, gadget)));
        for gadget in gadgets {
            if !switched {
                all.push(with(None, gadget));
                continue;
            }
            let keyswitches = best_bases(1..=8, 24, |own| noise_of::keyswitch(glwe, &with(Some(own), gadget)));
            let keyswitches = keyswitches.into_iter().filter(|own| own.base_log <= KEYSWITCH_BASE_LOG);
            all.extend(keyswitches.map(|own| with(Some(own), gadget)));
        }
    }
    all
}

/// Predicted time on the server, on one core.
pub(super) fn server_us(choice: &Choice, needs: &Needs, cx: &PassCx<'_>) -> f64 {
    let Choice { glwe, selectors, partitions, of } = choice;
    let cost = &cx.options.cost_profile;
    let layer = |(layer, at): (&LayerNeeds, &usize)| {
        let keyswitch = if layer.small { 0.0 } else { cost.keyswitch_us(glwe, &partitions[*at]) };
        layer.bootstraps as f64 * (cost.bootstrap_us(glwe, &partitions[*at]) + keyswitch)
    };
    rotations_us(glwe, selectors.as_ref(), needs, cx) + needs.layers.iter().zip(of).map(layer).sum::<f64>()
}

/// Predicted time of selectors and of the tables that they rotate.
pub(super) fn rotations_us(glwe: &GlweParams, selectors: Option<&GadgetParams>, needs: &Needs, cx: &PassCx<'_>) -> f64 {
    let cost = &cx.options.cost_profile;
    selectors.map_or(0.0, |gadget| {
        needs.products as f64 * (cost.external_product_us(glwe, gadget) + 3.0 * cost.form_term_us(glwe))
            + f64::from(needs.turns.singles) * cost.rotation_us(glwe, gadget)
            + f64::from(needs.turns.blocks) * cost.block_us(glwe, gadget, BLOCK as f64)
            + needs.selector_bits as f64 * cost.prepare_selector_us(glwe, gadget)
    })
}

/// Server time weighted against client time.
pub(super) fn weighted_us(
    server_us: f64,
    glwe: &GlweParams,
    selectors: Option<&GadgetParams>,
    needs: &Needs,
    cx: &PassCx<'_>,
) -> f64 {
    let encrypt = |gadget| needs.selector_bits as f64 * cx.options.cost_profile.encrypt_selector_us(glwe, gadget);
    let client = selectors.map_or(0.0, encrypt);
    cx.options.server_weight * server_us + client + glwe.ciphertext_len() as f64 * 1e-3
}

/// Where noise arises and where it is judged, in the order of the circuit; vectors are numbered by value.
pub(super) struct Judge {
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
    /// The outputs of a decision diagram.
    Diagram {
        out: usize,
        profile: NoiseProfile,
        log2_delta: u32,
    },
    Affine {
        out: usize,
        operands: Vec<usize>,
        norm2: f64,
    },
    /// The typical deviation of the argument on the torus, and how far noise may move it at most.
    Bootstrap {
        layer: usize,
        out: usize,
        argument: usize,
        small: bool,
        results: u32,
        typical: f64,
        margin: f64,
        sigmas: f64,
    },
    Result {
        argument: usize,
        typical: f64,
        margin: f64,
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
            // What is exact is judged by its steps alone.
            (CircuitOp::Affine { exact: Some(true), .. }, _) => f64::INFINITY,
            (CircuitOp::Affine { spread, .. }, CircuitType::Lwe { log2_unit, .. }) if *spread > 0.0 => {
                spread * log2_unit.0.exp2()
            }
            // Of constants, whose noise is not read.
            _ => 0.25,
        };
        // What the widest interval leaves of so much of the torus at either end; of exact values, half a step.
        let margin = |id: ValueId, half: f64| match (&graph.node(id).op, &graph.node(id).ty) {
            (CircuitOp::Affine { exact: Some(true), .. }, CircuitType::Lwe { log2_unit, .. }) => {
                0.5 * log2_unit.0.exp2()
            }
            (_, CircuitType::Lwe { ranges, log2_unit, .. }) => {
                let widest = ranges.iter().map(|&(low, high)| (high - low) as f64).fold(0.0, f64::max);
                half - 0.5 * widest * log2_unit.0.exp2()
            }
            _ => 0.0,
        };
        // The quantile of the failure probability, shared among all values that may leave their margins.
        let judged = |id: ValueId| match (&graph.node(id).op, &graph.node(id).ty) {
            (CircuitOp::Bootstrap { table, results, .. }, _) => table.len() as f64 / f64::from(results.unwrap_or(1)),
            (CircuitOp::Extract { .. }, CircuitType::Result(count)) => f64::from(*count),
            _ => 0.0,
        };
        let count = graph.values().map(judged).sum::<f64>().max(1.0);
        let sigmas = noise::sigmas_for_failure(f64::from(cx.options.failure_bits) + count.log2());
        let mut steps = Vec::new();
        let mut layers = 0..;
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
                (CircuitOp::SampleExtract { .. }, _, Some(diagram)) => match &graph.node(diagram).op {
                    CircuitOp::Decide { log2_delta, diagram } => {
                        Step::Diagram { out, profile: diagram.noise_profile(), log2_delta: *log2_delta }
                    }
                    _ => continue,
                },
                (CircuitOp::Affine { start, weight, .. }, ..) => Step::Affine {
                    out,
                    operands: node.operands.iter().map(|id| id.index()).collect(),
                    norm2: network::largest_norm2(start, weight).max(1.0),
                },
                (CircuitOp::Bootstrap { results, .. }, _, Some(argument)) => {
                    let small = matches!(graph.node(argument).ty, CircuitType::Lwe { small: true, .. });
                    let (typical, margin) = (spread(argument), margin(argument, 0.25));
                    place += &sums(graph, argument);
                    let layer = layers.next().unwrap_or_default();
                    let (argument, results) = (argument.index(), results.unwrap_or(1));
                    Step::Bootstrap { layer, out, argument, small, results, typical, margin, sigmas }
                }
                (CircuitOp::Extract { .. }, CircuitType::Result(_), Some(argument)) => {
                    place += &sums(graph, argument);
                    let (typical, margin) = (spread(argument), margin(argument, 0.5));
                    Step::Result { argument: argument.index(), typical, margin, sigmas }
                }
                _ => continue,
            };
            steps.push((step, place));
        }
        Judge { steps, values: graph.len(), share: cx.options.noise_share(), sigmas }
    }

    /// Results of each rotation, layer by layer.
    fn results(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().filter_map(|(step, _)| match step {
            Step::Bootstrap { results, .. } => Some(*results),
            _ => None,
        })
    }

    /// Calls `judge` with every place where noise is judged. `small` is the variance of inputs under a small key, `outputs`
    /// that of the outputs of each layer of bootstraps.
    pub(super) fn walk<'a>(
        &'a self,
        glwe: &GlweParams,
        selectors: Option<&GadgetParams>,
        small: f64,
        outputs: &[f64],
        mut judge: impl FnMut(Judged<'a>),
    ) {
        let share = self.share;
        let mut variance = vec![0.0; self.values];
        for (step, place) in &self.steps {
            // The deviation may be what is tolerated, and its quantile the margin around the interval.
            let mut judge = |at, variance: f64, tolerated: f64, margin: f64, sigmas: f64| {
                judge(Judged { place, at, variance, limit: tolerated.min(margin / sigmas) });
            };
            match step {
                Step::Samples { out, small: under_small } => {
                    variance[*out] = if *under_small { small } else { glwe.variance() };
                }
                Step::Rotate { out, most, typical } => {
                    variance[*out] = selectors.map_or(0.0, |gadget| noise_of::rotations(glwe, gadget, *most));
                    // The widest sum takes half a turn. Each shift is rounded on its own, and half of them are taken.
                    let slot = 0.5 / f64::from(glwe.polynomial_size);
                    let taken = 0.5 * f64::from(most.singles) + 0.75 * f64::from(most.blocks);
                    let rounding = slot * slot / 12.0 * (1.0 + taken);
                    judge(At::Elsewhere, rounding, share * typical * 0.5, 1.0, self.sigmas);
                }
                Step::Diagram { out, profile, log2_delta } => {
                    let lowest = selectors.map_or(64, |gadget| 64 - gadget.base_log * gadget.levels);
                    // A bit's body row may be too coarse for the diagram's steps.
                    variance[*out] = if profile.reads_bits() && lowest > *log2_delta {
                        f64::INFINITY
                    } else {
                        profile.variance(glwe, selectors, *log2_delta) + noise_of::lwe_rounding(glwe)
                    };
                }
                Step::Affine { out, operands, norm2 } => {
                    variance[*out] = norm2 * operands.iter().map(|at| variance[*at]).fold(0.0, f64::max);
                }
                Step::Bootstrap { layer, out, argument, small, results, typical, margin, sigmas } => {
                    let at = At::Bootstrap { layer: *layer, small: *small, results: *results };
                    judge(at, variance[*argument], share * typical, *margin, *sigmas);
                    variance[*out] = outputs.get(*layer).copied().unwrap_or(0.0);
                }
                Step::Result { argument, typical, margin, sigmas } => {
                    judge(At::Elsewhere, variance[*argument], share * typical / 2.0, *margin, *sigmas);
                }
            }
        }
    }

    /// For each place its name, its layer if it is the argument of bootstraps, the whole variance there, and the bits by which
    /// the deviation is over what is tolerated; without the noise of one partition's outputs.
    fn judged(&self, choice: &Choice, without: Option<usize>) -> Vec<(&str, Option<usize>, f64, f64)> {
        let Choice { glwe, selectors, partitions, of } = choice;
        let small = partitions.iter().find(|params| params.small_dimension > 0).map_or(0.0, |b| b.lwe.variance());
        let output = |(at, results): (&usize, u32)| {
            if without == Some(*at) { 0.0 } else { noise_of::result_in_sums(glwe, &partitions[*at], results) }
        };
        let outputs: Vec<f64> = of.iter().zip(self.results()).map(output).collect();
        let mut all = Vec::new();
        self.walk(glwe, selectors.as_ref(), small, &outputs, |judged| {
            let (variance, layer) = match judged.at {
                At::Elsewhere => (judged.variance, None),
                At::Bootstrap { layer, small, results } => {
                    (noise_of::argument(glwe, &partitions[of[layer]], judged.variance, small, results), Some(layer))
                }
            };
            all.push((judged.place, layer, variance, (variance.sqrt() / judged.limit).log2()));
        });
        all
    }

    /// Bits by which noise is over what is tolerated at the worst place (negative: it fits), and the place.
    fn excess(&self, choice: &Choice) -> (f64, &str) {
        let all = self.judged(choice, None).into_iter();
        all.fold(
            (f64::NEG_INFINITY, ""),
            |worst, (place, _, _, over)| if over > worst.0 { (over, place) } else { worst },
        )
    }

    /// The same over the arguments of a partition's bootstraps, and over the places that their outputs go to.
    fn limits(&self, choice: &Choice, partition: usize) -> [(f64, &str); 2] {
        let mut worst = [(f64::NEG_INFINITY, ""); 2];
        let pairs = self.judged(choice, None).into_iter().zip(self.judged(choice, Some(partition)));
        for ((place, layer, with, over), (_, _, without, _)) in pairs {
            let touched = [layer.is_some_and(|layer| choice.of[layer] == partition), with > without];
            for (worst, _) in worst.iter_mut().zip(touched).filter(|(worst, touched)| *touched && over > worst.0) {
                *worst = (over, place);
            }
        }
        worst
    }
}

/// A place where noise is judged.
pub(super) struct Judged<'a> {
    place: &'a str,
    pub(super) at: At,
    /// Of what arrives there.
    pub(super) variance: f64,
    /// The standard deviation that is tolerated.
    pub(super) limit: f64,
}

/// Whose noise is judged.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// The arguments of a layer of bootstraps, to which keyswitch and modulus switch add theirs.
    Bootstrap { layer: usize, small: bool, results: u32 },
    /// Results, or roundings of rotated look-ups.
    Elsewhere,
}
