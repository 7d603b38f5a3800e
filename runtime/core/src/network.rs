//! Runs the layers of a network over vectors of LWE ciphertexts.

use crate::bootstrap::{EvaluationKey, batch_size, sample_extract};
use crate::circuit::Circuit;
use crate::evaluate::{Buffer, TurnedTable, read};
use crate::prepare::PreparedRow;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::sync::RwLock;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::plan::Layer;

/// LWE ciphertexts under one key: `width` words each, mask and body.
struct Vector {
    width: usize,
    words: Vec<u32>,
}

impl Circuit {
    /// Whether [`Circuit::evaluate`] needs an evaluation key.
    pub fn needs_evaluation_key(&self) -> bool {
        self.plan.network.layers.iter().any(|layer| matches!(layer, Layer::Bootstrap { .. }))
    }

    /// The results of the plan's network.
    pub(crate) fn network(
        &self,
        row: &PreparedRow,
        shared: &[RwLock<Buffer>],
        key: Option<&EvaluationKey>,
    ) -> Result<Vec<Vec<u32>>> {
        if key.is_some_and(|key| !key.is_for(self.layout(), self.digest())) {
            return Err(Diagnostic::new(Code::OtherCircuit, "the evaluation key belongs to another circuit")
                .help("use the key that was made with this artifact, or make one with `tacit keygen`"));
        }
        let mut vectors: Vec<Vector> = Vec::with_capacity(self.plan.network.layers.len());
        for layer in &self.plan.network.layers {
            let made = match layer {
                Layer::Samples { small, first, count } => self.samples(row, *small, *first, *count),
                Layer::SampleExtract { slot, count } => self.sample_extract(&read(&shared[*slot as usize]), *count),
                Layer::Rotate { tables, table, rotations } => self.rotate(row, tables, table, rotations),
                Layer::Affine { operands, start, column, weight, constant } => {
                    let operands: Vec<&Vector> = operands.iter().map(|at| &vectors[*at as usize]).collect();
                    affine(&operands, start, column, weight, constant)
                }
                Layer::Bootstrap { partition, operand, results, tables, table } => {
                    let key = key.ok_or_else(|| {
                        Diagnostic::new(Code::EvaluationKeyMissing, "the circuit needs an evaluation key")
                            .help("`tacit keygen` makes one beside the client key; give it with --evaluation-key")
                    })?;
                    // The plan and the key are of one layout, under which the plan was checked.
                    let key = &key.partitions()[*partition as usize];
                    let argument = &vectors[*operand as usize];
                    let switched;
                    let words = if argument.width == self.layout().glwe.lwe_dimension() as usize + 1 {
                        switched = key.keyswitch(&argument.words);
                        &switched
                    } else {
                        &argument.words
                    };
                    Vector {
                        width: self.layout().glwe.lwe_dimension() as usize + 1,
                        words: key.bootstrap(words, *results, tables, table),
                    }
                }
            };
            vectors.push(made);
        }
        Ok(self.plan.network.results.iter().map(|at| vectors[*at as usize].words.clone()).collect())
    }

    fn samples(&self, row: &PreparedRow, small: bool, first: u32, count: u32) -> Vector {
        let layout = self.layout();
        let (inputs, size) = if small {
            (&row.small, layout.small_size() as usize)
        } else {
            (&row.packed, layout.glwe.polynomial_size as usize)
        };
        let width = inputs.first().map_or(1, |glwe| glwe.len() - size + 1);
        let mut words = vec![0u32; count as usize * width];
        words.par_chunks_exact_mut(width).enumerate().for_each(|(element, out)| {
            sample_extract(&inputs[first as usize + element / size], size, element % size, out);
        });
        Vector { width, words }
    }

    fn sample_extract(&self, slot: &[u64], count: u32) -> Vector {
        let n = self.layout().glwe.polynomial_size as usize;
        let width = self.layout().glwe.lwe_dimension() as usize + 1;
        let mut words = vec![0u32; count as usize * width];
        for (at, out) in words.chunks_exact_mut(width).enumerate() {
            sample_extract(slot, n, at, out);
        }
        Vector { width, words }
    }

    fn rotate(&self, row: &PreparedRow, tables: &[Vec<u32>], table: &[u32], rotations: &[Vec<(u32, u32)>]) -> Vector {
        let glwe = &self.layout().glwe;
        let width = glwe.lwe_dimension() as usize + 1;
        // Elements that read the same selectors next to each other.
        let mut order: Vec<usize> = (0..table.len()).collect();
        order.sort_by(|&a, &b| rotations[a].iter().map(|r| r.0).cmp(rotations[b].iter().map(|r| r.0)));
        let batch = batch_size(order.len(), glwe);
        let mut words = vec![0u32; table.len() * width];
        words.par_chunks_mut(batch * width).zip(order.par_chunks(batch)).for_each(|(words, elements)| {
            let of = |&e: &usize| TurnedTable { table: &tables[table[e] as usize], rotations: &rotations[e] };
            let own: Vec<_> = elements.iter().map(of).collect();
            self.rotate_tables(row, &own, |at, value| {
                sample_extract(value, glwe.polynomial_size as usize, 0, &mut words[at * width..][..width]);
            });
        });
        let mut sorted = vec![0u32; words.len()];
        for (element, words) in order.into_iter().zip(words.chunks_exact(width)) {
            sorted[element * width..][..width].copy_from_slice(words);
        }
        Vector { width, words: sorted }
    }
}

/// Integer combinations of ciphertexts, row by row in parallel.
fn affine(operands: &[&Vector], start: &[u32], column: &[u32], weight: &[i32], constant: &[u32]) -> Vector {
    let width = operands.first().map_or(1, |vector| vector.width);
    let elements: Vec<&[u32]> = operands.iter().flat_map(|vector| vector.words.chunks_exact(width)).collect();
    let mut words = vec![0u32; constant.len() * width];
    words.par_chunks_exact_mut(width).zip(start.par_windows(2)).zip(constant).for_each(|((out, pair), constant)| {
        let entries = pair[0] as usize..pair[1] as usize;
        Arch::new().dispatch(Combine {
            out,
            elements: &elements,
            column: &column[entries.clone()],
            weight: &weight[entries],
        });
        out[width - 1] = out[width - 1].wrapping_add(*constant);
    });
    Vector { width, words }
}

/// `out = sum weight * element`, in pieces that stay in the first cache.
struct Combine<'a> {
    out: &'a mut [u32],
    elements: &'a [&'a [u32]],
    column: &'a [u32],
    weight: &'a [i32],
}

impl WithSimd for Combine<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Combine { out, elements, column, weight } = self;
        let mut pairs = column.chunks_exact(2).zip(weight.chunks_exact(2));
        for (columns, weights) in &mut pairs {
            let (a, b) = (elements[columns[0] as usize], elements[columns[1] as usize]);
            let (x, y) = (weights[0] as u32, weights[1] as u32);
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = out.wrapping_add(a.wrapping_mul(x)).wrapping_add(b.wrapping_mul(y));
            }
        }
        if column.len() % 2 == 1 {
            let (Some(column), Some(weight)) = (column.last(), weight.last()) else { return };
            for (out, a) in out.iter_mut().zip(elements[*column as usize]) {
                *out = out.wrapping_add(a.wrapping_mul(*weight as u32));
            }
        }
    }
}
