//! Vectors of LWE ciphertexts: look-ups to test polynomials, sums to matrices with the constant that centres them.

use super::Emitter;
use std::collections::HashMap;
use tacit_ir::artifact::{Encoder, Samples};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::ValueId;
use tacit_ir::plan::{BLOCK, Layer};
use tacit_ir::stage::circuit::network::digits;
use tacit_ir::stage::circuit::{CircuitOp, CircuitType};
use tacit_ir::stage::quant::{look_up, matrix_ranges};

/// What reads a vector: it decides where the middle of its intervals lies on the torus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    /// Another sum: zero stays at zero.
    Sum,
    /// A table over half a turn: the middle lies at a quarter.
    Table,
    /// The client: the middle lies at zero.
    Client,
}

/// A real number of turns on the 32-bit torus.
fn torus(turns: f64) -> u32 {
    (turns * 32f64.exp2()).round() as i64 as u32
}

/// Collects distinct test polynomials.
#[derive(Default)]
struct Tables {
    all: Vec<Vec<u32>>,
    known: HashMap<Vec<u32>, u32>,
    index: Vec<u32>,
}

impl Tables {
    fn push(&mut self, table: Vec<u32>) {
        let next = self.all.len() as u32;
        let at = *self.known.entry(table).or_insert_with_key(|table| {
            self.all.push(table.clone());
            next
        });
        self.index.push(at);
    }
}

impl Emitter<'_> {
    fn lwe(&self, id: ValueId) -> Result<(&[(i64, i64)], f64)> {
        match &self.circuit.node(id).ty {
            CircuitType::Lwe { ranges, log2_unit, .. } => Ok((ranges, log2_unit.0.exp2())),
            _ => Err(Diagnostic::new(Code::IrInvalid, "a network reads what is not LWE ciphertexts")),
        }
    }

    /// The middle of each element's interval.
    pub(super) fn middles(&self, id: ValueId) -> Result<Vec<f64>> {
        Ok(self.lwe(id)?.0.iter().map(|&(low, high)| (low as f64 + high as f64) / 2.0).collect())
    }

    /// The layer that makes a value for a reader.
    pub(super) fn vector(&mut self, id: ValueId, reader: Reader) -> Result<u32> {
        if let Some(known) = self.vectors.get(&(id, reader)) {
            return Ok(*known);
        }
        let node = self.circuit.node(id);
        let layer = match &node.op {
            CircuitOp::Samples { unit, small } if reader == Reader::Sum => {
                self.samples(&node.operands, *unit, *small)?
            }
            CircuitOp::SampleExtract { .. } if reader == Reader::Sum => self.sample_extract(&node.operands)?,
            CircuitOp::RotateLookup { .. } if reader == Reader::Sum => self.rotate(id)?,
            CircuitOp::Bootstrap { .. } if reader == Reader::Sum => self.bootstrap(id)?,
            CircuitOp::Affine { start, column, weight, .. } => {
                let operands = node.operands.iter().map(|id| self.vector(*id, Reader::Sum)).collect::<Result<_>>()?;
                let (_, unit) = self.lwe(id)?;
                let middle = |middle: f64| match reader {
                    Reader::Sum => 0,
                    Reader::Table => torus(0.25 - middle * unit),
                    Reader::Client => torus(-middle * unit),
                };
                let constant = self.middles(id)?.into_iter().map(middle).collect();
                let narrow = |w: &i64| {
                    i32::try_from(*w).map_err(|_| {
                        Diagnostic::new(Code::CircuitTooLarge, format!("the integer weight {w} is over 31 bits"))
                            .at(self.circuit.loc(id).to_string())
                            .help("give weights fewer bits (--set weight-bits=6), or scale them down")
                    })
                };
                let weight = weight.iter().map(narrow).collect::<Result<_>>()?;
                Layer::Affine { operands, start: start.clone(), column: column.clone(), weight, constant }
            }
            _ => {
                return Err(Diagnostic::new(
                    Code::IrInvalid,
                    "a bootstrap or a result reads something else than `affine`",
                )
                .help("put an `affine` between"));
            }
        };
        let number = self.plan.network.layers.len() as u32;
        self.plan.network.layers.push(layer);
        self.vectors.insert((id, reader), number);
        Ok(number)
    }

    /// The partition whose `bootstrap_params` is among the operands of an operation.
    fn partition(&self, operands: &[ValueId]) -> Option<usize> {
        self.partitions.iter().position(|(id, _)| operands.contains(id))
    }

    fn samples(&mut self, operands: &[ValueId], unit: f64, small: bool) -> Result<Layer> {
        let wrong = || Diagnostic::internal("samples of something else than codes");
        let codes = *operands.first().ok_or_else(wrong)?;
        let CircuitType::Codes { largest, .. } = &self.circuit.node(codes).ty else { return Err(wrong()) };
        let count = largest.len() as u32;
        let partition = self.partition(operands).and_then(|at| self.partitions.get(at));
        let (size, next) = match (small, partition) {
            (true, Some((_, params))) => (params.lwe.dimension / params.small_dimension.max(1), &mut self.small_inputs),
            _ => (self.glwe.polynomial_size, &mut self.packed),
        };
        let first = *next;
        *next += count.div_ceil(size.max(1));
        let encoder = self.encoder_of.get(&codes).and_then(|&at| self.encoders.get_mut(at));
        let Some(Encoder::Codes { samples, .. }) = encoder else { return Err(wrong()) };
        samples.push(Samples { small, first, unit });
        Ok(Layer::Samples { small, first, count })
    }

    fn sample_extract(&mut self, operands: &[ValueId]) -> Result<Layer> {
        let wrong = || Diagnostic::new(Code::IrInvalid, "`sample_extract` of something else than `decide`");
        let decide = self.circuit.node(*operands.first().ok_or_else(wrong)?);
        let (CircuitOp::Decide { log2_delta, diagram }, Some(codes)) = (&decide.op, decide.operands.first()) else {
            return Err(wrong());
        };
        let slot = self.diagram(*codes, diagram, *log2_delta)?;
        Ok(Layer::SampleExtract { slot, count: diagram.slots })
    }

    fn rotate(&mut self, id: ValueId) -> Result<Layer> {
        let node = self.circuit.node(id);
        let CircuitOp::RotateLookup { start, column, weight, low, stride, tables, table, unit, .. } = &node.op else {
            return Err(Diagnostic::internal("not a rotated look-up"));
        };
        let n = self.glwe.polynomial_size as usize;
        // Per column: the selectors of its bits with their values, and its interval.
        let mut wires: Vec<Vec<(u32, u32)>> = Vec::new();
        let mut inputs = Vec::new();
        for operand in &node.operands {
            let CircuitType::Codes { largest, bits } = &self.circuit.node(*operand).ty else { continue };
            let own = self.selectors.get(operand);
            for (feature, (&largest, &bits)) in (0u32..).zip(largest.iter().zip(bits)) {
                let wire = |bit| own.and_then(|own| own.get(&(feature, bit)).copied()).unwrap_or_default();
                let mut next = 0;
                let mut all = Vec::with_capacity(bits as usize);
                for digit in digits(largest, bits) {
                    if digit.len() == BLOCK {
                        self.plan.network.blocks.push(wire(next));
                    }
                    for value in digit {
                        all.push((wire(next), value));
                        next += 1;
                    }
                }
                wires.push(all);
                inputs.push((0, i64::from(largest)));
            }
        }
        let ranges = matrix_ranges(start, column, weight, &inputs).map_err(Diagnostic::internal)?;
        let mut out = Tables::default();
        let mut rotations = Vec::with_capacity(ranges.len());
        for (element, pair) in start.windows(2).enumerate() {
            let (least, greatest) = ranges[element];
            let entries = pair[0] as usize..pair[1] as usize;
            let terms: Vec<(u32, f64)> = entries
                .flat_map(|at| {
                    let weight = weight[at] as f64;
                    let bits = wires[column[at] as usize].iter();
                    bits.map(move |&(selector, value)| (selector, weight * f64::from(value)))
                })
                .collect();
            // Slots for each step of the sum: rounding each shift may widen the whole by half a slot a term.
            let mut scale = (n as f64 - 1.0) / ((greatest - least) as f64).max(1.0);
            let shifts = loop {
                let shifts: Vec<i64> = terms.iter().map(|(_, weight)| (weight * scale).round() as i64).collect();
                let span: i64 = shifts.iter().map(|shift| shift.abs()).sum();
                if span < n as i64 {
                    break shifts;
                }
                scale *= (n as f64 - 1.0) / span as f64 * 0.999;
            };
            let up: i64 = shifts.iter().filter(|shift| **shift > 0).sum();
            let value = |slot: i64| {
                let argument = (slot as f64 / scale).round() as i64;
                let entry = look_up(argument, low[element], stride[element], &tables[table[element] as usize]);
                torus(entry as f64 * unit)
            };
            // Slots of negative sums lie at the end of the polynomial, with the other sign, since X^N = -1.
            let place = |at: i64| if at <= up { value(at) } else { value(at - n as i64).wrapping_neg() };
            out.push((0..n as i64).map(place).collect());
            let turn = |((selector, _), shift): (&(u32, f64), &i64)| {
                (*shift != 0).then_some((*selector, shift.rem_euclid(2 * n as i64) as u32))
            };
            rotations.push(terms.iter().zip(&shifts).filter_map(turn).collect());
        }
        self.plan.network.blocks.sort_unstable();
        self.plan.network.blocks.dedup();
        Ok(Layer::Rotate { tables: out.all, table: out.index, rotations })
    }

    fn bootstrap(&mut self, id: ValueId) -> Result<Layer> {
        let node = self.circuit.node(id);
        let (CircuitOp::Bootstrap { low, stride, tables, table, unit, results }, Some(&argument)) =
            (&node.op, node.operands.first())
        else {
            return Err(Diagnostic::internal("not a bootstrap"));
        };
        let partition = self.partition(&node.operands).ok_or_else(|| {
            Diagnostic::new(Code::IrInvalid, "a bootstrap has no parameters").help("run `choose-parameters` first")
        })? as u32;
        let operand = self.vector(argument, Reader::Table)?;
        let middles = self.middles(argument)?;
        let (_, argument_unit) = self.lwe(argument)?;
        let n = self.glwe.polynomial_size;
        let results = results.unwrap_or(1);
        let mut out = Tables::default();
        for (first, middle) in (0..).step_by(results as usize).zip(middles) {
            // The tables of an element in turn, all at the argument of the first entry.
            let value = |at: u32| {
                let turns = f64::from(at - at % results) / f64::from(2 * n) - 0.25;
                let argument = (middle + turns / argument_unit).round() as i64;
                let element = first + (at % results) as usize;
                let entry = look_up(argument, low[element], stride[element], &tables[table[element] as usize]);
                torus(entry as f64 * unit)
            };
            out.push((0..n).map(value).collect());
        }
        Ok(Layer::Bootstrap { partition, operand, results, tables: out.all, table: out.index })
    }
}
