//! Post-training quantization: a traced network to the integer stage.
//!
//! Inputs become codes of a uniform grid over the range they have on the calibration rows; values outside saturate at its
//! ends. What a quantized model has integers for keeps them: inputs, weights and activations, whose tables then are exact
//! (`tables.rs`); so do values that lie on a grid of few points on the calibration rows. Other activations become centred integers over the part of their range that the calibration rows reach, beyond which
//! their tables saturate. Sums of integers are never clipped: their intervals come from the clear weights, so that no
//! input can leave them (a sum that left its interval would wrap around the torus).

use super::calibrate::Trace;
use super::rounding::{Atom, Column, round};
use super::tables::{self, Tables, tables};
use super::trace::Network;
use super::trees;
use super::{Activation, Kept, Output, Row};
use crate::options::{Options, RangeRule, RegimeRule};
use crate::passes::PassCx;
use crate::passes::lower_to_quant::{self, Sums, column_number};
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::params::{BootstrapParams, GadgetParams, GlweParams, LweParams};
use tacit_ir::plan::BLOCK;
use tacit_ir::stage::quant::{CodedFeature, Missing, Quant, QuantOp, QuantType, Regime};
use tacit_ir::stage::tensor::Tensor;

/// Entries of a table: as many as half a turn of the largest usual polynomial has.
pub(crate) const ENTRIES: usize = 2048;
/// Bits of integer weights where each is rounded on its own later.
const ROTATED_WEIGHT_BITS: u32 = 16;
/// Steps that the largest integer weight of a quantized model has at most: of 8 bits, with a zero point at an end.
const KEPT_STEPS: f64 = 255.0;
/// The largest norm of a row of quantized values of several scales, whose weights are no integers of one step.
const KEPT_NORM: f64 = 1024.0;
/// A row's weights may get finer by up to this factor where its sum is smaller than the layer's largest.
const FINEST: f64 = 8.0;

/// Weights of so many bits are too coarse for sums of atoms of many and of few steps.
const COARSE_BITS: u32 = 8;
/// Factors of this and more between what weights of one sum are relative to are made up for.
const MIXED: f64 = 4.0;

/// The integers of an atom: `real = offset + step * integer`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) offset: f64,
    pub(super) step: f64,
    pub(super) low: i64,
    pub(super) high: i64,
    /// Whether the model itself has its values on this grid.
    pub(super) kept: bool,
}

/// A matrix in rows, as the integer stage has it.
#[derive(Default)]
struct Matrix {
    start: Vec<u32>,
    column: Vec<u32>,
    weight: Vec<i64>,
    /// Per row: `real = offset + step * sum`.
    step: Vec<f64>,
    offset: Vec<f64>,
    /// Per row: the interval of the sum.
    ranges: Vec<(i64, i64)>,
    /// Per row: whether it is a sum of a quantized model's integers, with weights that are its own.
    kept: Vec<bool>,
    /// Median over rows of the standard deviation of the sum on the calibration rows.
    spread: f64,
    /// Whether the integers are those of the rows, nothing rounded.
    exact: bool,
}

struct Quantizer<'a> {
    network: &'a Network,
    trace: &'a Trace,
    options: &'a Options,
    quant: Graph<Quant>,
    grids: Vec<Grid>,
    /// For each atom: the value that holds it and its element there. Unused inputs have none.
    places: Vec<Option<(ValueId, u32)>>,
    /// Bits of each input, 0 for other atoms.
    bits: Vec<u32>,
    kept: Kept,
}

/// Quantizes the network that was traced from a float graph.
///
/// # Errors
/// [`Code::CircuitTooLarge`] where sums do not fit; [`Code::WeightNotFinite`].
pub(crate) fn quantize(
    body: &Graph<Tensor>,
    network: &Network,
    trace: &Trace,
    cx: &mut PassCx<'_>,
) -> Result<Graph<Quant>> {
    let atoms = network.atoms();
    let mut quantizer = Quantizer {
        network,
        trace,
        options: cx.options,
        quant: Graph::new(body.name()),
        grids: Vec::with_capacity(atoms),
        places: vec![None; atoms],
        bits: vec![0; atoms],
        kept: cx.kept.clone(),
    };
    quantizer.inputs()?;
    quantizer.trees(body, cx)?;
    for layer in &network.layers {
        let regime = quantizer.layer(layer)?;
        cx.count(
            match regime {
                Regime::Rotate => "rotated look-ups (regime R1)",
                Regime::Bootstrap => "bootstraps (regime R2)",
            },
            layer.rows.len() as u64,
        );
    }
    for Output { name, rows, exact, loc } in &network.outputs {
        let (matrix, operands) = quantizer.matrix(rows, cx.options.weight_bits(), *exact)?;
        let Matrix { start, column, weight, step, offset, spread, exact, .. } = matrix;
        let sums = quantizer.push(
            QuantOp::Affine { start, column, weight, spread, exact: exact.then_some(true) },
            operands,
            loc,
        )?;
        let value = quantizer.push(QuantOp::Dequantize { step, offset, exact }, vec![sums], loc)?;
        quantizer.quant.output(name.clone(), value);
    }
    Ok(quantizer.quant)
}

/// The least range with zero in the middle that holds another.
pub(super) fn around_zero(low: f64, high: f64) -> (f64, f64) {
    let bound = high.max(-low);
    (-bound, bound)
}

/// The range of values that the options give, for a grid of so many steps.
pub(super) fn range(values: &[f64], options: &Options, steps: f64) -> (f64, f64) {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let around = |least, greatest| if options.symmetric { around_zero(least, greatest) } else { (least, greatest) };
    let (Some(&least), Some(&greatest)) = (sorted.first(), sorted.last()) else { return (0.0, 0.0) };
    let (least, greatest) = around(least, greatest);
    match options.range {
        RangeRule::MinMax => (least, greatest),
        RangeRule::Percentile => {
            let cut = sorted.len() / 1000;
            around(sorted[cut], sorted[sorted.len() - 1 - cut])
        }
        RangeRule::Mse => {
            let error = |share: f64| {
                let (low, high) = (least * share, greatest * share);
                let step = ((high - low) / steps).max(f64::MIN_POSITIVE);
                let one = |x: &f64| (low + ((x.clamp(low, high) - low) / step).round() * step - x).powi(2);
                sorted.iter().map(one).sum::<f64>()
            };
            let shares = (10..=20).map(|twentieths| f64::from(twentieths) / 20.0);
            let best = shares.map(|share| (error(share), share)).min_by(|a, b| a.0.total_cmp(&b.0));
            let share = best.map_or(1.0, |(_, share)| share);
            (least * share, greatest * share)
        }
    }
}

/// Values that all lie on a grid of few points, as quantized ones do: the least, the step and the number of steps, at most
/// `most`.
pub(super) fn natural_grid(values: &[f64], most: f64) -> Option<(f64, f64, i64)> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let span = greatest - least;
    // Floats of 32 bits differ from each other by their rounding.
    let gaps = sorted.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1e-6 * span);
    let steps = (span / gaps.fold(f64::INFINITY, f64::min)).round();
    let step = span / steps;
    let on_grid = |value: &f64| ((value - least) / step - ((value - least) / step).round()).abs() < 1e-3;
    (span.is_finite() && (1.0..=most).contains(&steps) && sorted.iter().all(on_grid)).then_some((
        least,
        step,
        steps as i64,
    ))
}

/// The fewest steps, at most `most`, that the largest of weights has when all are multiples of one step.
fn natural_steps(weights: &[f64], largest: f64, most: f64) -> Option<f64> {
    let multiple =
        |steps: f64| weights.iter().all(|w| (w * steps / largest - (w * steps / largest).round()).abs() < 1e-4);
    (1..=most.min(KEPT_STEPS) as u32).map(f64::from).find(|steps| multiple(*steps))
}

impl Quantizer<'_> {
    fn push(&mut self, op: QuantOp, operands: Vec<ValueId>, loc: &Loc) -> Result<ValueId> {
        self.quant.push(op, operands, None, loc.clone()).map_err(|why| {
            Diagnostic::new(Code::CircuitTooLarge, format!("the quantized network does not fit: {why}"))
                .at(loc.to_string())
                .help("use fewer bits: --set weight-bits=4 --set input-bits=3")
        })
    }

    fn inputs(&mut self) -> Result<()> {
        let network = self.network;
        let mut used = vec![false; network.inputs.len()];
        let rows =
            network.layers.iter().flat_map(|layer| &layer.rows).chain(network.outputs.iter().flat_map(|o| &o.rows));
        for &(atom, _) in rows.flat_map(|row| &row.terms) {
            if let Some(used) = used.get_mut(atom as usize) {
                *used = true;
            }
        }
        let levels = (1u64 << self.options.input_bits().clamp(1, 12)) as f64 - 1.0;
        // An even number of steps has a point in the middle.
        let steps = if self.options.symmetric { (levels - 1.0).max(1.0) } else { levels };
        let mut heads: BTreeMap<&str, Vec<CodedFeature>> = BTreeMap::new();
        let mut elements: Vec<Option<(&str, u32)>> = Vec::new();
        for (atom, (head, column)) in network.inputs.iter().enumerate() {
            let values: Vec<f64> = self.trace.atoms.iter().map(|row| row[atom]).collect();
            let (low, high) = range(&values, self.options, steps);
            let kept = self.kept.input(&network.inputs[atom]).map(|points| points.increasing());
            let varies = values.windows(2).any(|pair| pair[0] != pair[1]);
            // Outputs of trees come after.
            let of_trees = network.bounds[atom].is_some();
            let constant = (!varies || high <= low) && kept.is_none() || !used[atom] || of_trees;
            let (low, step, largest) = match (kept, natural_grid(&values, levels)) {
                _ if constant => (values.first().copied().filter(|_| !varies).unwrap_or(low), 0.0, 0),
                (Some(points), _) => (points.low, points.step, points.steps),
                (None, Some((least, step, steps))) => (least, step, steps),
                (None, None) => (low, (high - low) / steps, steps as i64),
            };
            self.grids.push(Grid { offset: low, step, low: 0, high: largest, kept: kept.is_some() });
            if !used[atom] || constant {
                elements.push(None);
                continue;
            }
            self.bits[atom] = kept.map_or(self.options.input_bits(), |_| i64::BITS - largest.leading_zeros());
            let features = heads.entry(head).or_default();
            elements.push(Some((head, features.len() as u32)));
            // The grid's midpoints: a value takes the nearest code.
            let boundaries = (1..=largest).map(|code| low + step * (code as f64 - 0.5)).collect();
            let column = column_number(*column)?;
            features.push(CodedFeature { column, boundaries, missing: Missing::None });
        }
        let mut values: BTreeMap<&str, ValueId> = BTreeMap::new();
        for (head, features) in heads {
            let op = QuantOp::Codes { value: head.to_owned(), single: false, features: features.into() };
            values.insert(head, self.push(op, vec![], &Loc::Pass("lower-to-quant"))?);
        }
        for (place, element) in self.places.iter_mut().zip(elements) {
            *place = element.and_then(|(head, element)| Some((*values.get(head)?, element)));
        }
        Ok(())
    }

    /// The outputs of tree ensembles that something reads: sums of integer leaves, around the middle of their interval.
    fn trees(&mut self, body: &Graph<Tensor>, cx: &mut PassCx<'_>) -> Result<()> {
        for id in trees::all(body) {
            let name = trees::name(body, id);
            let Some(first) = self.network.inputs.iter().position(|(head, _)| *head == name) else { continue };
            let Sums { value, step, offset, .. } = lower_to_quant::tree_sums(body, id, &mut self.quant, cx, true)?;
            let QuantType::Ints(ranges) = &self.quant.node(value).ty else {
                return Err(Diagnostic::internal("trees are no integers"));
            };
            for (at, &(low, high)) in ranges.iter().enumerate() {
                // What is the same for all inputs has no place, and no step.
                let (step, shift) = if low == high { (0.0, step[at] * low as f64) } else { (step[at], 0.0) };
                self.grids[first + at] = Grid { offset: offset[at] + shift, step, low, high, kept: false };
                self.places[first + at] = (low < high).then_some((value, at as u32));
            }
        }
        Ok(())
    }

    /// Input bits from which on an activation is cheaper by a bootstrap: two bits take a block of selectors, at the
    /// parameters that both usually get.
    fn break_even_bits(&self) -> f64 {
        let (glwe, gadget) = (GlweParams::secure(2, 1024), GadgetParams { base_log: 23, levels: 1 });
        let params = BootstrapParams { lwe: LweParams::secure(840, 3), keyswitch: None, gadget, small_dimension: 0 };
        let cost = &self.options.cost_profile;
        2.0 * cost.bootstrap_us(&glwe, &params) / cost.block_us(&glwe, &gadget, BLOCK as f64)
    }

    /// Whether a layer is rotated or bootstrapped.
    fn regime(&self, layer: &Activation) -> Regime {
        let inputs = self.network.inputs.len() as u32;
        let of_client = |atom: u32| atom < inputs && self.network.bounds[atom as usize].is_none();
        let readable = layer.rows.iter().flat_map(|row| &row.terms).all(|(atom, _)| of_client(*atom));
        let bits = |row: &Row| row.terms.iter().map(|(atom, _)| u64::from(self.bits[*atom as usize])).sum::<u64>();
        let most = layer.rows.iter().map(bits).max().unwrap_or(0);
        match self.options.regime {
            Some(RegimeRule::Bootstrap) => Regime::Bootstrap,
            _ if !readable => Regime::Bootstrap,
            Some(RegimeRule::Rotate) => Regime::Rotate,
            None if most as f64 <= self.break_even_bits() => Regime::Rotate,
            None => Regime::Bootstrap,
        }
    }

    /// Integer weights for affine maps of already quantized atoms, and the values they read. Exact maps keep their weights
    /// where the atoms' integers have whole steps.
    fn matrix(&self, rows: &[Row], weight_bits: u32, exact: bool) -> Result<(Matrix, Vec<ValueId>)> {
        // Operands in order, and where each one's elements begin.
        let mut operands: BTreeMap<ValueId, u32> = BTreeMap::new();
        for &(atom, _) in rows.iter().flat_map(|row| &row.terms) {
            if let Some((value, _)) = self.places[atom as usize] {
                operands.insert(value, 0);
            }
        }
        // Constants are read off any value, with no weights.
        if let (true, Some((value, _))) = (operands.is_empty(), self.places.iter().flatten().next()) {
            operands.insert(*value, 0);
        }
        if operands.is_empty() {
            return Err(Diagnostic::new(Code::NothingToEncrypt, "a layer that depends on no input")
                .help("its result is a constant: export the model with constants folded"));
        }
        let mut first = 0;
        for (value, start) in &mut operands {
            *start = first;
            first += elements(&self.quant, *value);
        }
        let asked = (1i64 << (weight_bits.clamp(2, 24) - 1)) as f64 - 1.0;
        // Per row: weights in units of the atoms' integers, their largest and the span of the sum.
        let scaled = |row: &Row| -> Vec<f64> {
            row.terms.iter().map(|&(atom, weight)| weight * self.grids[atom as usize].step).collect()
        };
        let spans: Vec<(Vec<f64>, f64, f64)> = rows
            .iter()
            .map(|row| {
                let weights = scaled(row);
                let largest = weights.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                let span = row.terms.iter().zip(&weights).map(|((atom, _), weight)| {
                    let grid = &self.grids[*atom as usize];
                    weight.abs() * (grid.high - grid.low) as f64
                });
                let span = span.sum();
                (weights, largest, span)
            })
            .collect();
        let layer_largest = spans.iter().fold(0.0f64, |a, b| a.max(b.1));
        // The widest sum of the layer when every row uses all bits.
        let widest = spans.iter().filter(|s| s.1 > 0.0).fold(0.0f64, |a, (_, largest, span)| a.max(span / largest));
        let whole = |weights: &[f64]| weights.iter().all(|w| (w - w.round()).abs() < 1e-9 && w.abs() < 1e6);
        let exact = exact && spans.iter().all(|(weights, ..)| whole(weights));
        let mut out = Matrix { start: vec![0], exact, ..Matrix::default() };
        let mut deviations: Vec<f64> = Vec::with_capacity(rows.len());
        // What is read.
        let mut atoms: BTreeMap<u32, Atom> = BTreeMap::new();
        for &(atom, _) in rows.iter().flat_map(|row| &row.terms) {
            atoms.entry(atom).or_insert_with(|| self.on_calibration(atom));
        }
        for (row, (weights, largest, span)) in rows.iter().zip(spans) {
            let own = self.kept.weights && row.terms.iter().all(|(atom, _)| self.grids[*atom as usize].kept);
            let most = if own { asked.max((KEPT_NORM / (weights.len() as f64).sqrt()).floor()) } else { asked };
            let natural = natural_steps(&weights, largest, if own { most.max(KEPT_STEPS) } else { most });
            let unit = if largest == 0.0 || exact {
                1.0
            } else if let Some(steps) = natural {
                largest / steps
            } else if self.options.per_channel {
                let finer = if weight_bits <= COARSE_BITS { self.mixture(row, &weights, largest) } else { 1.0 };
                largest / most / (widest * largest / span).clamp(1.0, FINEST) / finer
            } else {
                layer_largest / asked
            };
            let columns: Vec<Column<'_>> = row
                .terms
                .iter()
                .zip(&weights)
                .map(|((atom, _), scaled)| Column { weight: scaled / unit, atom: &atoms[atom] })
                .collect();
            let target: Vec<f64> = self.trace.atoms.iter().map(|atoms| row.value(atoms) / unit).collect();
            deviations.push(deviation(&target));
            let (rounded, constant) = if exact {
                (weights.iter().map(|weight| weight.round() as i64).collect(), 0.0)
            } else {
                round(&columns, &target, (largest / unit).ceil() as i64)
            };
            let offset = if exact || own && natural.is_some() {
                // Nothing is rounded, so nothing is to be corrected.
                row.terms.iter().fold(row.constant, |sum, (atom, w)| sum + w * self.grids[*atom as usize].offset)
            } else {
                constant * unit
            };
            let mut range = (0i64, 0i64);
            for (&(atom, _), integer) in row.terms.iter().zip(rounded) {
                let grid = &self.grids[atom as usize];
                let Some((value, element)) = self.places[atom as usize] else { continue };
                if integer != 0 {
                    out.column.push(operands[&value] + element);
                    out.weight.push(integer);
                    let (a, b) = (integer * grid.low, integer * grid.high);
                    range = (range.0 + a.min(b), range.1 + a.max(b));
                }
            }
            if !offset.is_finite() || !unit.is_finite() {
                return Err(Diagnostic::new(Code::WeightNotFinite, "a weight is not finite")
                    .help("a trained model has finite weights; train or export it again"));
            }
            out.start.push(out.column.len() as u32);
            // A constant has no noise.
            out.step.push(if range == (0, 0) { 0.0 } else { unit });
            out.offset.push(offset);
            out.ranges.push(range);
            out.kept.push(own && natural.is_some());
        }
        // Of rows that vary by more than float rounding: constant ones tell nothing of what noise matters.
        deviations.retain(|own| *own > 1e-6);
        deviations.sort_by(f64::total_cmp);
        out.spread = deviations.get(deviations.len() / 2).copied().unwrap_or(0.0);
        Ok((out, operands.into_keys().collect()))
    }

    /// By what factor a row's weights must be finer than those of atoms that all have as many steps: what an atom of many steps
    /// (the sum of trees, a real column) adds to a sum is rounded with its small weight, relative to which that of an atom of
    /// few steps (a column of 0 and 1) is large. Large weights make noise larger: only sums of trees, or of what the client gives
    /// alone, are worth it. `largest` of the weights.
    fn mixture(&self, row: &Row, weights: &[f64], largest: f64) -> f64 {
        let bounds = |atom: u32| self.network.bounds.get(atom as usize);
        let of_trees = row.terms.iter().any(|(atom, _)| matches!(bounds(*atom), Some(Some(_))));
        if !of_trees && row.terms.iter().any(|(atom, _)| bounds(*atom).is_none()) {
            return 1.0;
        }
        let steps = |atom: u32| (self.grids[atom as usize].high - self.grids[atom as usize].low) as f64;
        let atoms = || row.terms.iter().map(|(atom, _)| *atom).zip(weights);
        let most_steps = atoms().fold(0.0f64, |most, (atom, _)| most.max(steps(atom)));
        let most_added = atoms().fold(0.0f64, |most, (atom, weight)| most.max(weight.abs() * steps(atom)));
        let factor = if most_added > 0.0 { largest * most_steps / most_added } else { 1.0 };
        if factor < MIXED { 1.0 } else { factor }
    }

    /// An atom's integers on the calibration rows.
    fn on_calibration(&self, atom: u32) -> Atom {
        let Grid { offset, step, low, high, kept: _ } = self.grids[atom as usize];
        let integer = |value: f64| {
            if step > 0.0 { ((value - offset) / step).round().clamp(low as f64, high as f64) } else { 0.0 }
        };
        Atom::new(self.trace.atoms.iter().map(|row| integer(row[atom as usize])).collect())
    }

    fn layer(&mut self, layer: &Activation) -> Result<Regime> {
        let regime = self.regime(layer);
        let weight_bits = match regime {
            Regime::Rotate => ROTATED_WEIGHT_BITS,
            Regime::Bootstrap => self.options.weight_bits(),
        };
        let (matrix, operands) = self.matrix(&layer.rows, weight_bits, layer.exact)?;
        let sums =
            tables::Sums { offset: &matrix.offset, step: &matrix.step, ranges: &matrix.ranges, kept: &matrix.kept };
        let reached = |element: usize| -> Vec<f64> {
            self.trace.atoms.iter().map(|row| row[layer.first_atom as usize + element]).collect()
        };
        let Tables { tables, table, stride, grids } = tables(layer, &sums, reached, self.options)?;
        self.grids.extend(grids);
        let Matrix { start, column, weight, ranges, spread, exact, .. } = matrix;
        let low = ranges.iter().map(|range| range.0).collect();
        let op = QuantOp::Affine { start, column, weight, spread, exact: exact.then_some(true) };
        let sums = self.push(op, operands, &layer.loc)?;
        let op = QuantOp::Lookup { regime, low, stride, tables: tables.into(), table };
        let value = self.push(op, vec![sums], &layer.loc)?;
        for element in 0..layer.rows.len() {
            self.places[layer.first_atom as usize + element] = Some((value, element as u32));
        }
        Ok(regime)
    }
}

/// Standard deviation.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Elements of a value.
fn elements(quant: &Graph<Quant>, id: ValueId) -> u32 {
    match &quant.node(id).ty {
        QuantType::Codes(largest) => largest.len() as u32,
        QuantType::Ints(ranges) => ranges.len() as u32,
        _ => 0,
    }
}
