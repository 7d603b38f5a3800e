//! The part of `lower-to-circuit` for networks: which key every vector is under, and what 1 is on the torus.
//!
//! All vectors that one affine map adds share a unit, the largest with which every sum keeps within the half torus that a
//! table fills, or within the torus where it leaves the server.

use super::diagrams::ill_typed;
use std::collections::BTreeMap;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::circuit::network::{FILL, digits, one_hot_bits, pattern};
use tacit_ir::stage::circuit::{Circuit, CircuitOp, SelectorRecord};
use tacit_ir::stage::quant::{CodedFeature, Quant, QuantOp, QuantType, Regime};

/// From so many tables a code turns on, one-hot digits pay: a digit of three bits costs the client one bit more and the
/// server its preparation, and saves a product's transforms on each table.
const ONE_HOT_USES: usize = 8;

/// What became of an operation.
pub(super) enum Lowered {
    /// An operation and its operands.
    Op(Box<CircuitOp>, Vec<ValueId>),
    /// A map that only rotated look-ups read: they take it in, and this value stands in its place.
    TakenIn(ValueId),
}

/// Places of a network's vectors.
pub(super) struct Places {
    /// Per value: the torus value of 1.
    unit: Vec<f64>,
    /// Per value: whether it feeds only bootstraps of samples, so that it may be under the small key.
    small: Vec<bool>,
    /// Operands of maps that rotated look-ups take in, in the new graph.
    taken_in: BTreeMap<ValueId, Vec<ValueId>>,
    /// Samples already made, by codes and key.
    samples: BTreeMap<(ValueId, bool), ValueId>,
}

fn root(parents: &mut [usize], at: usize) -> usize {
    let mut top = at;
    while parents[top] != top {
        top = parents[top];
    }
    parents[at] = top;
    top
}

impl Places {
    /// Finds them for a whole graph.
    pub(super) fn of(graph: &Graph<Quant>) -> Self {
        let count = graph.len();
        let mut readers: Vec<Vec<ValueId>> = vec![Vec::new(); count];
        for id in graph.values() {
            for operand in &graph.node(id).operands {
                readers[operand.index()].push(id);
            }
        }
        // Vectors added by one map share a unit: union-find over values.
        let mut parents: Vec<usize> = (0..count).collect();
        let mut limit = vec![f64::INFINITY; count];
        let mut small = vec![false; count];
        for id in graph.values() {
            let node = graph.node(id);
            let (QuantOp::Affine { .. }, QuantType::Ints(ranges)) = (&node.op, &node.ty) else { continue };
            let is = |regime: Regime| {
                let reads =
                    |id: &ValueId| matches!(&graph.node(*id).op, QuantOp::Lookup { regime: own, .. } if *own == regime);
                !readers[id.index()].is_empty() && readers[id.index()].iter().all(reads)
            };
            if is(Regime::Rotate) {
                continue;
            }
            let codes = |id: &ValueId| matches!(graph.node(*id).op, QuantOp::Codes { .. });
            small[id.index()] = is(Regime::Bootstrap) && node.operands.iter().all(codes);
            let widest = ranges.iter().map(|&(low, high)| (high - low) as f64).fold(1.0, f64::max);
            let room = if is(Regime::Bootstrap) { 0.5 } else { 1.0 };
            // Samples under either key are apart, so codes themselves join nothing.
            let members: Vec<usize> =
                node.operands.iter().filter(|id| !codes(id)).map(|id| id.index()).chain([id.index()]).collect();
            let first = root(&mut parents, members[0]);
            for member in members {
                let other = root(&mut parents, member);
                limit[first] = limit[first].min(limit[other]);
                parents[other] = first;
            }
            limit[first] = limit[first].min(room * FILL / widest);
            // A diagram's integers are within half the torus on their own.
            for operand in node.operands.iter().filter(|id| matches!(graph.node(**id).op, QuantOp::Trees { .. })) {
                if let QuantType::Ints(own) = &graph.node(*operand).ty {
                    let largest = own.iter().map(|&(low, high)| low.abs().max(high.abs()) as f64).fold(1.0, f64::max);
                    limit[first] = limit[first].min(0.5 * FILL / largest);
                }
            }
        }
        let mut unit: Vec<f64> = (0..count).map(|at| limit[root(&mut parents, at)]).collect();
        // Diagrams have a power of two for 1, and so has what is added with them.
        for id in graph.values().filter(|id| matches!(graph.node(*id).op, QuantOp::Trees { .. })) {
            let class = root(&mut parents, id.index());
            if limit[class].is_infinite() {
                continue;
            }
            let own = limit[class].log2().floor().exp2();
            for at in (0..count).filter(|at| root(&mut parents, *at) == class) {
                unit[at] = own;
            }
        }
        Places { unit, small, taken_in: BTreeMap::new(), samples: BTreeMap::new() }
    }

    /// log2 of what is 1 for trees that a sum reads; `None` for those that leave the server.
    pub(super) fn log2_delta(&self, id: ValueId) -> Option<u32> {
        let unit = self.unit[id.index()];
        unit.is_finite().then(|| (64.0 + unit.log2()).clamp(1.0, 62.0) as u32)
    }

    fn sample(&mut self, new: &mut Graph<Circuit>, codes: ValueId, unit: f64, small: bool) -> Result<ValueId> {
        if let Some(known) = self.samples.get(&(codes, small)) {
            // Another unit is another vector.
            if matches!(&new.node(*known).op, CircuitOp::Samples { unit: own, .. } if *own == unit) {
                return Ok(*known);
            }
        }
        let loc = new.loc(codes).clone();
        let made =
            new.push(CircuitOp::Samples { unit, small }, vec![codes], None, loc).map_err(|why| ill_typed(&why))?;
        self.samples.insert((codes, small), made);
        Ok(made)
    }

    /// Selector codes: binary where a rotated look-up reads the codes, none where only samples are made of them. Left to
    /// `assign-codes` where diagrams read them.
    pub(super) fn selectors(
        &self,
        graph: &Graph<Quant>,
        id: ValueId,
        features: &[CodedFeature],
    ) -> Vec<SelectorRecord> {
        let mut network = false;
        let mut rotated = false;
        let mut terms = 0;
        for reader in graph.values().filter(|at| graph.node(*at).operands.contains(&id)) {
            if matches!(graph.node(reader).op, QuantOp::Affine { .. }) {
                network = true;
                rotated |= self.is_taken_in(graph, reader);
                if let (true, QuantOp::Affine { column, .. }) =
                    (self.is_taken_in(graph, reader), &graph.node(reader).op)
                {
                    terms += column.len();
                }
            }
        }
        if !network {
            return Vec::new();
        }
        let one_hot = terms >= ONE_HOT_USES * features.len();
        let record = |feature: &CodedFeature| {
            let largest = if rotated { feature.largest() } else { 0 };
            let digits = digits(largest, if one_hot { one_hot_bits(largest) } else { 0 });
            SelectorRecord {
                cuts: (1..=largest).collect(),
                patterns: (0..=largest).map(|code| pattern(&digits, code)).collect(),
                bits: digits.iter().map(|digit| digit.len() as u32).sum(),
            }
        };
        features.iter().map(record).collect()
    }

    /// Lowers an affine map or a look-up.
    pub(super) fn lower(
        &mut self,
        graph: &Graph<Quant>,
        new: &mut Graph<Circuit>,
        id: ValueId,
        operands: &[ValueId],
    ) -> Result<Lowered> {
        let node = graph.node(id);
        match &node.op {
            QuantOp::Affine { start, column, weight, spread, exact } => {
                if self.is_taken_in(graph, id) {
                    self.taken_in.insert(id, operands.to_vec());
                    let first = operands.first().ok_or_else(|| Diagnostic::internal("a sum of nothing"))?;
                    return Ok(Lowered::TakenIn(*first));
                }
                let (unit, small) = (self.unit[id.index()], self.small[id.index()]);
                let mut vectors = Vec::with_capacity(operands.len());
                for (old, operand) in node.operands.iter().zip(operands) {
                    let codes = matches!(graph.node(*old).op, QuantOp::Codes { .. });
                    vectors.push(if codes { self.sample(new, *operand, unit, small)? } else { *operand });
                }
                let op = CircuitOp::Affine {
                    start: start.clone(),
                    column: column.clone(),
                    weight: weight.clone(),
                    spread: *spread,
                    exact: *exact,
                };
                Ok(Lowered::Op(Box::new(op), vectors))
            }
            QuantOp::Lookup { regime, low, stride, tables, table } => {
                let unit = self.unit[id.index()];
                let unit = if unit.is_finite() { unit } else { 2f64.powi(-20) };
                let (low, stride, tables, table) = (low.clone(), stride.clone(), tables.clone(), table.clone());
                if *regime == Regime::Bootstrap {
                    let op = CircuitOp::Bootstrap { low, stride, tables, table, unit, results: None };
                    return Ok(Lowered::Op(Box::new(op), operands.to_vec()));
                }
                let source = node.operands.first().map(|id| graph.node(*id));
                let Some(QuantOp::Affine { start, column, weight, spread, exact: _ }) = source.map(|node| &node.op)
                else {
                    return Err(Diagnostic::internal("a rotated look-up of something else than sums of codes"));
                };
                let op = CircuitOp::RotateLookup {
                    start: start.clone(),
                    column: column.clone(),
                    weight: weight.clone(),
                    spread: *spread,
                    low,
                    stride,
                    tables,
                    table,
                    unit,
                };
                let source = node.operands.first().and_then(|id| self.taken_in.get(id));
                Ok(Lowered::Op(Box::new(op), source.cloned().unwrap_or_default()))
            }
            _ => Err(Diagnostic::internal("not an operation of a network")),
        }
    }

    /// Whether only rotated look-ups read an affine map: then it is not lowered on its own.
    fn is_taken_in(&self, graph: &Graph<Quant>, id: ValueId) -> bool {
        matches!(graph.node(id).op, QuantOp::Affine { .. }) && !self.unit[id.index()].is_finite()
    }
}
