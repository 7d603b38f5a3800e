//! Which of several encrypted values is the greatest (ArgMax, TopK, votes), and Softmax.
//!
//! A position is a sum over *truth values*, tables that are 0 or 1. By [`HeadRule::Pairs`] every two values are compared, and
//! a value is the greatest where it wins all its comparisons: two tables deep, `n(n-1)/2 + n - 1` of them. By
//! [`HeadRule::Tournament`] winners are compared, carried on as `max(a, b) = max(a - b, 0) + b`, and a value is the greatest
//! where it wins all comparisons on its path: `3n - 4` tables, as deep as the tree, with the errors of what is carried on.

use super::function::{Function, Scalar};
use super::rows::{Combiner, Row};
use super::trace::{Traced, Tracer};
use crate::options::HeadRule;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::stage::tensor::{Dim, Tensor, TensorOp};

/// Truth values that one table counts at most: half a step of the count has to be seen through the noise.
const MOST_COUNTED: usize = 12;

/// Which positions are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) axis: usize,
    /// How many of the greatest.
    pub(super) count: usize,
    /// The least instead.
    pub(super) least: bool,
    /// Of equal values the last instead of the first.
    pub(super) last: bool,
}

/// The most values that one position of a graph's heads is chosen of, where the rule makes a difference.
pub(crate) fn widest(graph: &Graph<Tensor>) -> usize {
    let width = |id: ValueId| {
        let node = graph.node(id);
        let axis = match &node.op {
            TensorOp::ArgMax { axis, .. } | TensorOp::TopK { axis, count: 1, positions: true, .. } => *axis,
            _ => return 0,
        };
        let shape = node.operands.first().map(|operand| graph.node(*operand).ty.shape.as_slice());
        match shape.and_then(|shape| shape.get(axis)) {
            Some(Dim::Fixed(size)) => *size,
            _ => 0,
        }
    };
    graph.values().map(width).max().unwrap_or(0)
}

fn weighted<'a>(terms: impl IntoIterator<Item = (&'a Row, f64)>, constant: f64) -> Row {
    Combiner::default().combine(terms, constant)
}

/// 1 where a truth value is 0.
fn not(truth: &Row) -> Row {
    weighted([(truth, -1.0)], 1.0)
}

/// Pairs `(i, j)`, `i < j`, by `i`, then `j`.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |i| (i + 1..count).map(move |j| (i, j)))
}

/// For each position of the other axes, last axis fastest: the elements along this one. Of one row.
fn lanes(sizes: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let inner: usize = sizes[axis + 1..].iter().product();
    let outer: usize = sizes[..axis].iter().product();
    let lane = |o: usize, i: usize| (0..sizes[axis]).map(|at| (o * sizes[axis] + at) * inner + i).collect();
    (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| lane(o, i)).collect()
}

/// `found[lane][place]` in the order of a tensor whose axis has as many places.
fn in_order(found: &[Vec<Row>], sizes: &[usize], axis: usize) -> Vec<Row> {
    let inner = sizes[axis + 1..].iter().product::<usize>().max(1);
    let places = found.first().map_or(0, Vec::len);
    let of = |outer: &[Vec<Row>]| -> Vec<Row> {
        (0..places).flat_map(|place| outer.iter().map(move |lane| lane[place].clone())).collect()
    };
    found.chunks(inner).flat_map(of).collect()
}

/// Of neighbours, the first less the second; the last of an odd number has none.
fn differences(lane: &[Row]) -> Vec<Row> {
    lane.chunks_exact(2).map(|pair| pair[0].minus(&pair[1])).collect()
}

/// The greater of neighbours, `max(a - b, 0) + b`, by the gains `max(a - b, 0)`.
fn winners(lane: &[Row], gains: &[Row]) -> Vec<Row> {
    let best = |(at, pair): (usize, &[Row])| match pair {
        [_, b] => weighted([(&gains[at], 1.0), (b, 1.0)], 0.0),
        rest => rest[0].clone(),
    };
    lane.chunks(2).enumerate().map(best).collect()
}

/// Rows back in sets of these sizes.
fn regroup(rows: Vec<Row>, counts: impl Iterator<Item = usize>) -> Vec<Vec<Row>> {
    let mut rows = rows.into_iter();
    counts.map(|count| rows.by_ref().take(count).collect()).collect()
}

impl Tracer<'_> {
    /// The values of an operand by lanes along an axis, and the sizes of one row, the batch among them as 1.
    fn lanes_of(&mut self, operand: ValueId, axis: usize) -> Result<(Vec<Vec<Row>>, Vec<usize>)> {
        let shape = &self.graph.node(operand).ty.shape;
        if matches!(shape.get(axis), None | Some(Dim::Batch)) {
            return Err(Diagnostic::new(Code::VariantUnsupported, "an operation along the rows")
                .help("a model must treat every row alike: use another axis"));
        }
        let sizes: Vec<usize> = shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).collect();
        let rows = self.rows(operand)?;
        let lane = |own: Vec<usize>| own.into_iter().map(|at| rows[at].clone()).collect();
        Ok((lanes(&sizes, axis).into_iter().map(lane).collect(), sizes))
    }

    /// One layer for rows in sets, given back in the same sets.
    fn layer_of_sets(&mut self, sets: Vec<Vec<Row>>, scalar: Scalar, loc: &Loc) -> Result<Vec<Vec<Row>>> {
        let counts: Vec<usize> = sets.iter().map(Vec::len).collect();
        let rows = self.add_layer(sets.into_iter().flatten().collect(), Function::Scalar(scalar), loc.clone())?;
        Ok(regroup(rows, counts.into_iter()))
    }

    /// The positions of the greatest values along an axis.
    pub(super) fn positions(&mut self, id: ValueId, operand: ValueId, wanted: Wanted) -> Result<Traced> {
        let loc = self.graph.loc(id).clone();
        let (lanes, sizes) = self.lanes_of(operand, wanted.axis)?;
        let winners = match (wanted.count, self.head) {
            (1, HeadRule::Tournament) => {
                let paths = self.tournament(lanes, wanted, &loc)?;
                one_each(self.all_hold(paths, &loc)?)
            }
            (1, HeadRule::Pairs) => {
                let literals = self.comparisons(lanes, wanted, &loc)?;
                one_each(self.all_hold(literals, &loc)?)
            }
            (count, _) => {
                let literals = self.comparisons(lanes, wanted, &loc)?;
                self.ranked(&literals, count, &loc)?
            }
        };
        // `winners[lane][place][at]`: whether the value there has that place.
        let position = |own: &Vec<Row>| weighted(own.iter().enumerate().map(|(at, truth)| (truth, at as f64)), 0.0);
        let found: Vec<Vec<Row>> = winners.iter().map(|places| places.iter().map(position).collect()).collect();
        Ok(Traced::Affine(in_order(&found, &sizes, wanted.axis)))
    }

    /// For each lane, for each of its values, whether it wins against each other one.
    fn comparisons(&mut self, lanes: Vec<Vec<Row>>, wanted: Wanted, loc: &Loc) -> Result<Vec<Vec<Vec<Row>>>> {
        let sign = if wanted.least { -1.0 } else { 1.0 };
        let difference = |own: &Vec<Row>| {
            pairs(own.len()).map(|(i, j)| weighted([(&own[i], sign), (&own[j], -sign)], 0.0)).collect()
        };
        let truths = self.layer_of_sets(lanes.iter().map(difference).collect(), first_wins(wanted.last), loc)?;
        let wins = |(lane, truths): (&Vec<Row>, Vec<Row>)| {
            let mut wins = vec![Vec::new(); lane.len()];
            for ((i, j), truth) in pairs(lane.len()).zip(truths) {
                wins[j].push(not(&truth));
                wins[i].push(truth);
            }
            wins
        };
        Ok(lanes.iter().zip(truths).map(wins).collect())
    }

    /// For each lane, for each of its values, the comparisons that it has to win to be the greatest.
    fn tournament(&mut self, lanes: Vec<Vec<Row>>, wanted: Wanted, loc: &Loc) -> Result<Vec<Vec<Vec<Row>>>> {
        let width = lanes.first().map_or(0, Vec::len);
        let mut paths = vec![vec![Vec::new(); width]; lanes.len()];
        // The values that each contender stands for, alike in all lanes.
        let mut members: Vec<Vec<usize>> = (0..width).map(|at| vec![at]).collect();
        let sign = if wanted.least { -1.0 } else { 1.0 };
        let mut contenders: Vec<Vec<Row>> =
            lanes.iter().map(|lane| lane.iter().map(|row| weighted([(row, sign)], 0.0)).collect()).collect();
        while members.len() > 1 {
            let compared: Vec<Vec<Row>> = contenders.iter().map(|lane| differences(lane)).collect();
            let truths = self.layer_of_sets(compared.clone(), first_wins(wanted.last), loc)?;
            for (paths, truths) in paths.iter_mut().zip(&truths) {
                for (pair, truth) in members.chunks_exact(2).zip(truths) {
                    pair[0].iter().for_each(|at| paths[*at].push(truth.clone()));
                    pair[1].iter().for_each(|at| paths[*at].push(not(truth)));
                }
            }
            // Whose value the last comparison finds is not read.
            if members.len() > 2 {
                let gains = self.layer_of_sets(compared, Scalar::Relu, loc)?;
                contenders = contenders.iter().zip(&gains).map(|(lane, gains)| winners(lane, gains)).collect();
            }
            members = members.chunks(2).map(<[_]>::concat).collect();
        }
        Ok(paths)
    }

    /// For each lane and value, whether all of its truths hold.
    fn all_hold(&mut self, mut literals: Vec<Vec<Vec<Row>>>, loc: &Loc) -> Result<Vec<Vec<Row>>> {
        // The position of the first value is 0 whatever its truths are.
        literals.iter_mut().for_each(|lane| lane[0] = vec![Row::default()]);
        while literals.iter().flatten().any(|own| own.len() > 1) {
            let counted = |own: &Vec<Row>| -> Vec<Row> {
                let parts = own.len().div_ceil(MOST_COUNTED).max(1);
                let chunks = own.chunks(own.len().div_ceil(parts).max(1)).filter(|chunk| chunk.len() > 1);
                chunks.map(|chunk| weighted(chunk.iter().map(|t| (t, 1.0)), 0.5 - chunk.len() as f64)).collect()
            };
            let sets: Vec<Vec<Row>> = literals.iter().flatten().map(counted).collect();
            let mut found = self.layer_of_sets(sets, Scalar::Above(0.0), loc)?.into_iter();
            for own in literals.iter_mut().flatten() {
                let found = found.next().unwrap_or_default();
                if !found.is_empty() {
                    let parts = own.len().div_ceil(MOST_COUNTED).max(1);
                    let alone = own.chunks(own.len().div_ceil(parts).max(1)).filter(|chunk| chunk.len() == 1);
                    *own = found.into_iter().chain(alone.flatten().cloned().collect::<Vec<_>>()).collect();
                }
            }
        }
        let only = |own: Vec<Row>| own.into_iter().next().unwrap_or_default();
        Ok(literals.into_iter().map(|lane| lane.into_iter().map(only).collect()).collect())
    }

    /// For each lane and place, whether each value has that place: it loses against as many others.
    fn ranked(&mut self, literals: &[Vec<Vec<Row>>], count: usize, loc: &Loc) -> Result<Vec<Vec<Vec<Row>>>> {
        let off = |lane: &Vec<Vec<Row>>, place: usize| -> Vec<Row> {
            let missing = |own: &Vec<Row>| weighted(own.iter().map(|t| (t, 1.0)), place as f64 - own.len() as f64);
            lane.iter().skip(1).map(missing).collect()
        };
        let sets = literals.iter().flat_map(|lane| (0..count).map(move |place| off(lane, place))).collect();
        let found = self.layer_of_sets(sets, Scalar::Between(-0.5, 0.5), loc)?;
        // The position of the first value is 0.
        let with_first = |own: &Vec<Row>| [Row::default()].into_iter().chain(own.iter().cloned()).collect();
        Ok(found.chunks(count.max(1)).map(|places| places.iter().map(with_first).collect()).collect())
    }

    /// The greatest values along an axis, in order: each is the greatest of those that the ones before it left.
    pub(super) fn greatest(&mut self, id: ValueId, operand: ValueId, wanted: Wanted) -> Result<Traced> {
        let loc = self.graph.loc(id).clone();
        let (mut lanes, sizes) = self.lanes_of(operand, wanted.axis)?;
        let sign = if wanted.least { -1.0 } else { 1.0 };
        let mut found: Vec<Vec<Row>> = vec![Vec::new(); lanes.len()];
        for lane in lanes.iter_mut().flatten() {
            *lane = weighted([(&*lane, sign)], 0.0);
        }
        for _ in 0..wanted.count {
            let mut losers: Vec<Vec<Row>> = vec![Vec::new(); lanes.len()];
            while lanes.iter().any(|lane| lane.len() > 1) {
                let gains =
                    self.layer_of_sets(lanes.iter().map(|lane| differences(lane)).collect(), Scalar::Relu, &loc)?;
                for ((lane, gains), losers) in lanes.iter_mut().zip(&gains).zip(&mut losers) {
                    let pairs = lane.chunks_exact(2).zip(gains);
                    losers.extend(pairs.map(|(pair, gain)| weighted([(&pair[0], 1.0), (gain, -1.0)], 0.0)));
                    *lane = winners(lane, gains);
                }
            }
            for (found, lane) in found.iter_mut().zip(&lanes) {
                found.extend(lane.iter().map(|row| weighted([(row, sign)], 0.0)));
            }
            lanes = losers;
        }
        Ok(Traced::Affine(in_order(&found, &sizes, wanted.axis)))
    }

    /// One-against-one votes: `[rows, pairs]` of decisions to `[rows, classes]`.
    pub(super) fn votes(&mut self, id: ValueId, operand: ValueId, classes: usize) -> Result<Traced> {
        let decisions = self.rows(operand)?;
        let truths = self.add_layer(decisions, Function::Scalar(Scalar::Above(0.0)), self.graph.loc(id).clone())?;
        let mut votes = vec![Row::default(); classes];
        for ((i, j), truth) in pairs(classes).zip(truths) {
            votes[i] = weighted([(&votes[i], 1.0), (&truth, 1.0)], 0.0);
            votes[j] = weighted([(&votes[j], 1.0), (&not(&truth), 1.0)], 0.0);
        }
        Ok(Traced::Affine(votes))
    }

    /// Softmax along an axis: with the maximum m, `ln(sum e^(x - m))` and what it is taken off, `e` to that.
    pub(super) fn softmax(&mut self, id: ValueId, operand: ValueId, axis: usize, log: bool) -> Result<Traced> {
        let loc = self.graph.loc(id).clone();
        let (lanes, sizes) = self.lanes_of(operand, axis)?;
        let mut greatest = lanes.clone();
        while greatest.iter().any(|lane| lane.len() > 1) {
            let gains =
                self.layer_of_sets(greatest.iter().map(|lane| differences(lane)).collect(), Scalar::Relu, &loc)?;
            greatest = greatest.iter().zip(&gains).map(|(lane, gains)| winners(lane, gains)).collect();
        }
        let below = |(lane, most): (&Vec<Row>, &Vec<Row>)| lane.iter().map(|row| row.minus(&most[0])).collect();
        let shifted: Vec<Vec<Row>> = lanes.iter().zip(&greatest).map(below).collect();
        let powers = self.layer_of_sets(shifted.clone(), Scalar::Exp, &loc)?;
        let sum = |own: &Vec<Row>| vec![weighted(own.iter().map(|row| (row, 1.0)), 0.0)];
        let logs = self.layer_of_sets(powers.iter().map(sum).collect(), Scalar::Log, &loc)?;
        let taken_off = |(lane, log): (&Vec<Row>, &Vec<Row>)| lane.iter().map(|row| row.minus(&log[0])).collect();
        let mut found: Vec<Vec<Row>> = shifted.iter().zip(&logs).map(taken_off).collect();
        if !log {
            found = self.layer_of_sets(found, Scalar::Exp, &loc)?;
        }
        Ok(Traced::Affine(in_order(&found, &sizes, axis)))
    }
}

/// Whether the first of two values wins, by their difference.
fn first_wins(last: bool) -> Scalar {
    if last { Scalar::Above(0.0) } else { Scalar::From(0.0) }
}

/// Winners of one place each.
fn one_each(winners: Vec<Vec<Row>>) -> Vec<Vec<Vec<Row>>> {
    winners.into_iter().map(|lane| vec![lane]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_run_along_an_axis_and_places_come_back_in_order() {
        let sizes = [1, 2, 3];
        assert_eq!(lanes(&sizes, 2), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(lanes(&sizes, 1), [vec![0, 3], vec![1, 4], vec![2, 5]]);
        for axis in [1, 2] {
            let own = lanes(&sizes, axis);
            let rows: Vec<Vec<Row>> =
                own.iter().map(|lane| lane.iter().map(|at| Row::atom(*at as u32)).collect()).collect();
            assert_eq!(in_order(&rows, &sizes, axis), (0..6).map(Row::atom).collect::<Vec<_>>());
        }
    }
}
