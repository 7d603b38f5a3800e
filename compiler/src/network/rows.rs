//! Sparse affine forms over numbered atoms.

/// `sum weight * atom + constant`, atoms increasing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// `(atom, weight)`, no weight 0.
    pub(crate) terms: Vec<(u32, f64)>,
    /// The constant.
    pub(crate) constant: f64,
}

impl Row {
    /// One atom alone.
    pub(crate) fn atom(atom: u32) -> Self {
        Row { terms: vec![(atom, 1.0)], constant: 0.0 }
    }

    /// The value for these atoms.
    pub(crate) fn value(&self, atoms: &[f64]) -> f64 {
        self.constant + self.terms.iter().map(|&(atom, weight)| weight * atoms[atom as usize]).sum::<f64>()
    }

    /// `self - other`.
    pub(crate) fn minus(&self, other: &Row) -> Row {
        Combiner::default().combine([(self, 1.0), (other, -1.0)], 0.0)
    }
}

/// Adds rows; keeps its memory between sums.
#[derive(Debug, Default)]
pub(crate) struct Combiner {
    sums: Vec<f64>,
    touched: Vec<u32>,
}

impl Combiner {
    /// `sum weight * row + constant`.
    pub(crate) fn combine<'a>(&mut self, rows: impl IntoIterator<Item = (&'a Row, f64)>, constant: f64) -> Row {
        let mut out = Row { terms: Vec::new(), constant };
        for (row, factor) in rows {
            out.constant += factor * row.constant;
            for &(atom, weight) in &row.terms {
                let at = atom as usize;
                if self.sums.len() <= at {
                    self.sums.resize(at + 1, 0.0);
                }
                if self.sums[at] == 0.0 {
                    self.touched.push(atom);
                }
                self.sums[at] += factor * weight;
            }
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        for atom in self.touched.drain(..) {
            let weight = std::mem::take(&mut self.sums[atom as usize]);
            if weight != 0.0 {
                out.terms.push((atom, weight));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_cancel_and_keep_order() {
        let a = Row { terms: vec![(0, 1.0), (2, 2.0)], constant: 1.0 };
        let b = Row { terms: vec![(1, 3.0), (2, 1.0)], constant: 5.0 };
        let sum = Combiner::default().combine([(&a, 1.0), (&b, -2.0)], 0.5);
        assert_eq!(sum, Row { terms: vec![(0, 1.0), (1, -6.0)], constant: -8.5 });
        assert_eq!(a.value(&[1.0, 7.0, -1.0]), 0.0);
    }
}
