//! Tree ensembles, compared and summed as onnxruntime does.

use super::{Data, Fault, TensorValue};
use crate::stage::tensor::{Aggregate, Mode};
use std::collections::BTreeSet;

/// A borrowed `tree_ensemble` operation.
pub(super) struct Forest<'a> {
    pub(super) targets: usize,
    pub(super) aggregate: Aggregate,
    pub(super) single: bool,
    pub(super) base: &'a [f64],
    pub(super) roots: &'a [usize],
    pub(super) feature: &'a [usize],
    pub(super) mode: &'a [Mode],
    pub(super) threshold: &'a [f64],
    pub(super) on_true: &'a [usize],
    pub(super) on_false: &'a [usize],
    pub(super) missing_true: BTreeSet<usize>,
    pub(super) sets: &'a [Vec<f64>],
    pub(super) leaf_target: &'a [usize],
    pub(super) leaf_weight: &'a [f64],
}

impl Forest<'_> {
    pub(super) fn evaluate(&self, x: &TensorValue) -> Result<TensorValue, Fault> {
        let values = x.to_f64().ok_or_else(|| "a tree ensemble on strings".to_owned())?;
        let columns = x.columns();
        let mut out = Vec::with_capacity(x.rows() * self.targets);
        for row in values.chunks(columns.max(1)).take(x.rows()) {
            let row: Vec<f64> = row.iter().map(|&x| if self.single { f64::from(x as f32) } else { x }).collect();
            out.extend(self.row(&row));
        }
        let shape = vec![x.rows(), self.targets];
        Ok(if self.single {
            TensorValue::f32(shape, out.into_iter().map(|x| x as f32).collect())
        } else {
            TensorValue { shape, data: Data::F64(out) }
        })
    }

    fn leaf(&self, root: usize, row: &[f64]) -> usize {
        let mut node = root;
        while self.mode[node] != Mode::Leaf {
            let (x, t) = (row[self.feature[node]], self.threshold[node]);
            let holds = match self.mode[node] {
                Mode::Leq => x <= t,
                Mode::Lt => x < t,
                Mode::Gte => x >= t,
                Mode::Gt => x > t,
                Mode::Eq => x == t,
                Mode::Neq => x != t,
                Mode::Member => self.sets[t as usize].contains(&x),
                Mode::Leaf => false,
            };
            let holds = holds || (x.is_nan() && self.missing_true.contains(&node));
            node = if holds { self.on_true[node] } else { self.on_false[node] };
        }
        node
    }

    /// Scores of a row; onnxruntime sums in the type of the thresholds, in the order of the trees.
    fn row(&self, row: &[f64]) -> Vec<f64> {
        let rounded = |x: f64| if self.single { f64::from(x as f32) } else { x };
        let mut scores: Vec<Option<f64>> = vec![None; self.targets];
        for &root in self.roots {
            let leaf = self.leaf(root, row);
            for at in self.on_true[leaf]..self.on_false[leaf] {
                let score = &mut scores[self.leaf_target[at]];
                let weight = rounded(self.leaf_weight[at]);
                *score = Some(match (*score, self.aggregate) {
                    (None, _) => weight,
                    (Some(sum), Aggregate::Sum | Aggregate::Average) => rounded(sum + weight),
                    (Some(least), Aggregate::Min) => least.min(weight),
                    (Some(greatest), Aggregate::Max) => greatest.max(weight),
                });
            }
        }
        let finish = |(target, score): (usize, Option<f64>)| {
            let score = score.unwrap_or(0.0);
            let trees = self.roots.len().max(1) as f64;
            let score = if self.aggregate == Aggregate::Average { rounded(score / trees) } else { score };
            rounded(score + rounded(self.base.get(target).copied().unwrap_or(0.0)))
        };
        scores.into_iter().enumerate().map(finish).collect()
    }
}
