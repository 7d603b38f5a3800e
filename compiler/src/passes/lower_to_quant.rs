//! `lower-to-quant`: floats to integers.
//!
//! Tree ensembles: every feature becomes an integer code, the number of boundaries at or below the value. A test `x <= t`
//! is `code < c` with the boundary just above t, so decisions are identical to the float model's. Leaf weights become
//! multiples of a step chosen so that the rounding of all trees together stays below an eighth of the error bound, or,
//! where all weights are multiples of one number, exactly that number.
//!
//! Linear maps: weights become integers of [`WEIGHT_BITS`] bits per output.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::ill_typed};
use crate::network::{self, trees::bounds};
use crate::options::Encoding;
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Atom, Builder, Diagram, Form, Node};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::stage::quant::{CodedFeature, Missing, Quant, QuantOp};
use tacit_ir::stage::tensor::{Aggregate, Mode, Tensor, TensorOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "lower-to-quant",
    summary: "encode features as integer codes and weights as integers",
    from: &[StageName::Tensor],
    to: Some(StageName::Quant),
};

/// Bits of a linear map's integer weights. Noise of packed inputs leaves room for many more than the output needs.
const WEIGHT_BITS: i32 = 24;

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Tensor(graph) = ir else { return Ok(ir) };
    if network::is_network(&graph) {
        let (network, trace, removed) =
            network::prepare(&graph, cx.calibration, &cx.kept, cx.options.head(), cx.options.symmetric)?;
        cx.count("constant tables removed", removed.constant);
        cx.count("affine tables removed", removed.affine);
        cx.count("repeated tables shared", removed.repeated);
        cx.count("unread tables removed", removed.unread);
        return network::quantize::quantize(&graph, &network, &trace, cx).map(Ir::Quant);
    }
    let mut quant = Graph::<Quant>::new(graph.name());
    let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for id in graph.values() {
        let node = graph.node(id);
        let loc = graph.loc(id);
        let lowered = match &node.op {
            TensorOp::Input { .. } => continue,
            TensorOp::TreeEnsemble { .. } => trees(&graph, id, &mut quant, cx),
            TensorOp::Linear { outputs, weights, bias } => {
                let value = input_name(&graph, id)?;
                linear(&mut quant, value, *outputs, weights, bias, loc)
            }
            other => {
                let name = tacit_ir::attr::OpSet::name(other);
                Err(Diagnostic::new(Code::VariantUnsupported, format!("`{name}` cannot run encrypted")))
            }
        };
        map.insert(id, lowered.map_err(|why| why.at(loc.to_string()))?);
    }
    for (name, id) in graph.outputs() {
        let id = map.get(id).ok_or_else(|| Diagnostic::internal("an input is an output of the encrypted part"))?;
        quant.output(name.clone(), *id);
    }
    Ok(Ir::Quant(quant))
}

fn input_name(graph: &Graph<Tensor>, id: ValueId) -> Result<String> {
    match graph.node(id).operands.first().map(|operand| &graph.node(*operand).op) {
        Some(TensorOp::Input { name }) => Ok(name.clone()),
        _ => Err(Diagnostic::new(Code::NeedsBootstrapping, "an encrypted operation reads another's output")
            .help("end the model behind the first of them, and compute what follows from the decrypted result")),
    }
}

fn linear(
    quant: &mut Graph<Quant>,
    value: String,
    outputs: usize,
    weights: &[f64],
    bias: &[f64],
    loc: &Loc,
) -> Result<ValueId> {
    let columns = weights.len().checked_div(outputs).unwrap_or(0);
    let mut ints = Vec::with_capacity(outputs * (columns + 1));
    let mut step = Vec::with_capacity(outputs);
    for (row, bias) in weights.chunks(columns.max(1)).zip(bias) {
        // Before the greatest is taken: that of a NaN and a number is the number.
        if !row.iter().chain([bias]).all(|weight| weight.is_finite()) {
            return Err(Diagnostic::new(Code::WeightNotFinite, "a weight is not finite")
                .help("a trained model has finite weights; train or export it again"));
        }
        let largest = row.iter().chain([bias]).fold(0.0f64, |a, b| a.max(b.abs()));
        // A power of two, so that models with round weights keep them.
        let unit = if largest == 0.0 { 1.0 } else { f64::from(largest.log2().floor() as i32 + 2 - WEIGHT_BITS).exp2() };
        ints.extend(row.iter().chain([bias]).map(|w| (w / unit).round() as i64));
        step.push(unit);
    }
    let columns = column_number(columns)?;
    let offset = vec![0.0; outputs];
    let outputs = outputs as u32;
    let mut push = |op, operands| quant.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why));
    let reals = push(QuantOp::Reals { value, columns }, vec![])?;
    let sums = push(QuantOp::Linear { outputs, weights: ints }, vec![reals])?;
    push(QuantOp::Dequantize { step, offset, exact: false }, vec![sums])
}

/// The set of values on which a test is true, as boundaries where the truth changes.
struct Test {
    /// Truth below the first boundary.
    below: bool,
    /// Boundaries at which the truth flips, increasing.
    flips: Vec<f64>,
    /// Truth for NaN.
    missing: bool,
}

fn next_up(x: f64, single: bool) -> f64 {
    if single { f64::from((x as f32).next_up()) } else { x.next_up() }
}

fn test(mode: Mode, threshold: f64, sets: &[Vec<f64>], single: bool, missing_true: bool) -> Test {
    let t = if single { f64::from(threshold as f32) } else { threshold };
    let (below, flips) = match mode {
        Mode::Leq | Mode::Gt if t == f64::INFINITY => (mode == Mode::Leq, vec![]),
        Mode::Leq => (true, vec![next_up(t, single)]),
        Mode::Lt => (true, vec![t]),
        Mode::Gte => (false, vec![t]),
        Mode::Gt => (false, vec![next_up(t, single)]),
        Mode::Eq => (false, vec![t, next_up(t, single)]),
        Mode::Neq => (true, vec![t, next_up(t, single)]),
        Mode::Member => {
            let set = sets.get(threshold as usize).map_or(&[][..], Vec::as_slice);
            let mut members: Vec<f64> = set.iter().map(|&v| if single { f64::from(v as f32) } else { v }).collect();
            members.sort_by(f64::total_cmp);
            members.dedup();
            let mut flips: Vec<f64> = Vec::new();
            for member in members.into_iter().filter(|member| !member.is_nan()) {
                // Neighbouring floats share an edge, which then is none.
                if flips.last() == Some(&member) {
                    flips.pop();
                } else {
                    flips.push(member);
                }
                flips.push(next_up(member, single));
            }
            (false, flips)
        }
        Mode::Leaf => (false, vec![]),
    };
    Test { below, flips, missing: missing_true || mode == Mode::Neq }
}

fn trees(graph: &Graph<Tensor>, id: ValueId, quant: &mut Graph<Quant>, cx: &mut PassCx<'_>) -> Result<ValueId> {
    let Sums { value, step, offset, exact } = tree_sums(graph, id, quant, cx, false)?;
    if exact {
        cx.count("outputs that decode exactly", offset.len() as u64);
    }
    let op = QuantOp::Dequantize { step, offset, exact };
    quant.push(op, vec![value], None, graph.loc(id).clone()).map_err(|why| ill_typed(&why))
}

/// The outputs of a tree ensemble as integers: `real = offset + step * integer`.
pub(crate) struct Sums {
    pub(crate) value: ValueId,
    pub(crate) step: Vec<f64>,
    pub(crate) offset: Vec<f64>,
    /// Whether nothing was rounded.
    exact: bool,
}

/// Lowers a tree ensemble; `around_zero` puts the middle of each output's interval there.
pub(crate) fn tree_sums(
    graph: &Graph<Tensor>,
    id: ValueId,
    quant: &mut Graph<Quant>,
    cx: &mut PassCx<'_>,
    around_zero: bool,
) -> Result<Sums> {
    let TensorOp::TreeEnsemble {
        targets,
        aggregate,
        single,
        base,
        roots,
        feature,
        mode,
        threshold,
        on_true,
        on_false,
        missing_true,
        sets,
        leaf_target,
        leaf_weight,
    } = &graph.node(id).op
    else {
        return Err(Diagnostic::internal("not a tree ensemble"));
    };
    if matches!(aggregate, Aggregate::Min | Aggregate::Max) && roots.len() > 1 {
        return Err(Diagnostic::new(Code::VariantUnsupported, "the least or greatest of several trees")
            .help("it compares encrypted values, which needs bootstrapping; use the sum or the average"));
    }
    let value = input_name(graph, id)?;
    let missing_true: BTreeSet<usize> = missing_true.iter().copied().collect();
    let tests: Vec<Option<Test>> = (0..mode.len())
        .map(|n| (mode[n] != Mode::Leaf).then(|| test(mode[n], threshold[n], sets, *single, missing_true.contains(&n))))
        .collect();
    let encoder = Encoder::new(feature, &tests, !missing_true.is_empty(), &value, cx)?;

    let spans: Vec<f64> = bounds(&graph.node(id).op).iter().map(|(low, high)| high - low).collect();
    let scale = LeafScale::new(roots.len(), &spans, leaf_weight, *aggregate, cx);
    let mut builder = Builder::default();
    let mut forms: Vec<Option<Form>> = vec![None; mode.len()];
    // Children come after parents in the normal form.
    for n in (0..mode.len()).rev() {
        let Some(test) = &tests[n] else {
            let weights = (on_true[n]..on_false[n]).map(|at| (leaf_target[at], leaf_weight[at]));
            forms[n] = Some(scale.leaf(weights));
            continue;
        };
        let (yes, no) = (forms[on_true[n]].clone().unwrap_or_default(), forms[on_false[n]].clone().unwrap_or_default());
        forms[n] = Some(encoder.switch(&mut builder, feature[n], test, &yes, &no));
    }
    let mut root = Form::default();
    for &tree in roots {
        root.add(&forms[tree].clone().unwrap_or_default(), 1);
    }
    let slots = *targets as u32;
    let mut offset: Vec<f64> = (0..*targets).map(|slot| base.get(slot).copied().unwrap_or(0.0)).collect();
    let mut diagram: Diagram = builder.finish(slots, root);
    if around_zero {
        for (slot, (low, high)) in diagram.ranges().into_iter().enumerate() {
            let middle = low + (high - low) / 2;
            diagram.root.add_atom(Atom::One, slot as u32, -middle);
            offset[slot] += scale.step[slot] * middle as f64;
        }
    }
    cx.count("trees", roots.len() as u64);
    cx.count("tests", diagram.nodes.len() as u64);
    let loc = graph.loc(id);
    let mut push = |op, operands| quant.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why));
    let codes = push(QuantOp::Codes { value, single: *single, features: encoder.features.into() }, vec![])?;
    let value = push(QuantOp::Trees { diagram }, vec![codes])?;
    Ok(Sums { value, step: scale.step, offset, exact: scale.exact })
}

/// How columns become codes, and tests become switches over codes.
struct Encoder {
    features: Vec<CodedFeature>,
    /// Column to feature.
    number: BTreeMap<usize, u32>,
}

impl Encoder {
    fn new(
        feature: &[usize],
        tests: &[Option<Test>],
        with_missing: bool,
        value: &str,
        cx: &PassCx<'_>,
    ) -> Result<Self> {
        let mut boundaries: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        // For each column, tests whose NaN branch is not the one of the least, and of the greatest value.
        let mut against: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (&column, test) in feature.iter().zip(tests) {
            let Some(test) = test else { continue };
            boundaries.entry(column).or_default().extend(&test.flips);
            let top = test.below ^ (test.flips.len() % 2 == 1);
            let entry = against.entry(column).or_default();
            entry.0 += usize::from(test.missing != test.below);
            entry.1 += usize::from(test.missing != top);
        }
        let grid = cx.options.encoding == Encoding::Grid || cx.options.protect_model;
        let mut features = Vec::new();
        let mut number = BTreeMap::new();
        for (column, mut own) in boundaries {
            own.sort_by(f64::total_cmp);
            own.dedup();
            if grid {
                own = grid_edges(value, column, cx)?;
            }
            let missing = match (with_missing, against.get(&column)) {
                (false, _) => Missing::None,
                (true, Some((low, high))) if high < low => Missing::High,
                (true, _) => Missing::Low,
            };
            number.insert(column, features.len() as u32);
            let column = column_number(column)?;
            features.push(CodedFeature { column, boundaries: own, missing });
        }
        Ok(Encoder { features, number })
    }

    /// The cut of a boundary: exact, or the nearest edge of a grid.
    fn cut(&self, feature: u32, boundary: f64) -> u32 {
        let coded = &self.features[feature as usize];
        let at = coded.boundaries.partition_point(|&edge| edge < boundary);
        let nearer_below = at > 0
            && coded.boundaries.get(at).is_none_or(|&above| boundary - coded.boundaries[at - 1] < above - boundary);
        let at = if nearer_below { at - 1 } else { at };
        at as u32 + if coded.missing == Missing::Low { 2 } else { 1 }
    }

    fn switch(&self, builder: &mut Builder, column: usize, test: &Test, yes: &Form, no: &Form) -> Form {
        let Some(&feature) = self.number.get(&column) else { return yes.clone() };
        let coded = &self.features[feature as usize];
        let mut flips: Vec<u32> = test.flips.iter().map(|&boundary| self.cut(feature, boundary)).collect();
        let mut truth = test.below;
        match coded.missing {
            Missing::Low if test.missing != test.below => {
                truth = test.missing;
                flips.insert(0, 1);
            }
            Missing::High if test.missing != (test.below ^ (test.flips.len() % 2 == 1)) => flips.push(coded.largest()),
            Missing::None | Missing::Low | Missing::High => {}
        }
        // Edges of a grid may coincide; a pair of flips at one cut is none.
        let mut cuts: Vec<u32> = Vec::new();
        for flip in flips {
            if cuts.last() == Some(&flip) {
                cuts.pop();
            } else {
                cuts.push(flip);
            }
        }
        let side = |truth: bool| if truth { yes.clone() } else { no.clone() };
        if cuts.is_empty() {
            return side(truth);
        }
        let branches = (0..=cuts.len()).map(|position| side(truth ^ (position % 2 == 1))).collect();
        builder.add(Node::Switch { feature, cuts, branches })
    }
}

/// Quantiles of a column of the calibration rows.
fn grid_edges(value: &str, column: usize, cx: &PassCx<'_>) -> Result<Vec<f64>> {
    let rows = cx.calibration.get(value).filter(|rows| !rows.is_empty()).ok_or_else(|| {
        Diagnostic::new(Code::OptionInvalid, "a grid encoding needs calibration data")
            .help("give --calibration X.npy with some hundred typical rows")
    })?;
    let mut values: Vec<f64> =
        rows.iter().filter_map(|row| row.get(column).copied()).filter(|x| x.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let bins = 1usize << cx.options.grid_bits.min(16);
    let mut edges = Vec::with_capacity(bins);
    for edge in 1..bins {
        if let Some(&value) = values.get(edge * values.len() / bins)
            && edges.last().is_none_or(|&last| last < value)
        {
            edges.push(value);
        }
    }
    // A column that never varies still needs an edge for its tests to snap to.
    if edges.is_empty() {
        edges.push(values.first().copied().unwrap_or(0.0));
    }
    Ok(edges)
}

/// Leaf weights to integers.
struct LeafScale {
    step: Vec<f64>,
    factor: f64,
    exact: bool,
}

impl LeafScale {
    /// Of an ensemble of so many trees whose outputs have these spans.
    fn new(trees: usize, spans: &[f64], leaf_weight: &[f64], aggregate: Aggregate, cx: &PassCx<'_>) -> Self {
        let factor = if aggregate == Aggregate::Average { 1.0 / trees.max(1) as f64 } else { 1.0 };
        let widest = spans.iter().copied().fold(0.0, f64::max);
        let precision = f64::from(cx.options.precision_bits);
        if let Some(unit) = common_unit(leaf_weight.iter().map(|w| w * factor), widest, precision.exp2()) {
            return LeafScale { step: vec![unit; spans.len()], factor, exact: true };
        }
        // Rounding errs by half a step a tree; together they stay below 2^-precision/8 of the span.
        let steps = (precision + 2.0).exp2() * trees.max(1) as f64;
        let step = spans.iter().map(|&span| if span > 0.0 { span / steps } else { 1.0 });
        LeafScale { step: step.collect(), factor, exact: false }
    }

    fn leaf(&self, weights: impl Iterator<Item = (usize, f64)>) -> Form {
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        for (target, weight) in weights {
            *sums.entry(target).or_insert(0.0) += weight * self.factor;
        }
        Form::constant(sums.into_iter().map(|(target, sum)| (target as u32, (sum / self.step[target]).round() as i64)))
    }
}

/// The number that all weights are multiples of, up to the rounding of 32-bit floats, if the span has at most `most` of
/// its steps; Euclid's algorithm with a tolerance.
fn common_unit(weights: impl Iterator<Item = f64>, span: f64, most: f64) -> Option<f64> {
    let weights: Vec<f64> = weights.filter(|w| *w != 0.0).map(f64::abs).collect();
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let tolerance = largest * 4e-7;
    let mut unit = *weights.first()?;
    for &weight in &weights {
        let mut a = weight.max(unit);
        let mut b = weight.min(unit);
        while b > tolerance {
            // The symmetric remainder keeps a near multiple near zero.
            let remainder = (a - (a / b).round() * b).abs();
            (a, b) = (b, remainder);
        }
        unit = a;
        if unit * most < span || unit < 16.0 * tolerance {
            return None;
        }
    }
    let near = |w: &f64| (w / unit - (w / unit).round()).abs() * unit <= 2.0 * tolerance;
    weights.iter().all(near).then_some(unit)
}

/// The number of a column, as circuits hold it.
pub(crate) fn column_number(column: usize) -> Result<u32> {
    u32::try_from(column).map_err(|_| {
        Diagnostic::new(Code::CircuitTooLarge, format!("{column} columns: a row may have 2^32"))
            .help("select the columns that the model uses before it")
    })
}
