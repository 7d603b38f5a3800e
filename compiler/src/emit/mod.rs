//! Circuits to artifacts: the layout of queries and results, the server's plan, the client's specification.

mod network;
mod schedule;

use network::Reader;
use schedule::{SharedSlots, Wiring, add_diagram};
use std::collections::BTreeMap;
use tacit_ir::artifact::{ClientSpec, CodedColumn, Decoder, Encoder, Scale, Thermometer};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Atom, Diagram};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::noise;
use tacit_ir::params::{BootstrapParams, GadgetParams, GlweParams};
use tacit_ir::plan::{Layout, Phase, Plan, Slot, Step, Task};
use tacit_ir::stage::circuit::{Circuit, CircuitOp, CircuitType};
use tacit_ir::stage::tensor::Tensor;

/// The largest 1-norm of a row of integer weights, at least 1.
pub(crate) fn row_norm(weights: &[i64], width: u32) -> f64 {
    let rows = weights.chunks(width.max(1) as usize);
    rows.map(|row| row.iter().map(|&w| (w as f64).abs()).sum::<f64>()).fold(1.0, f64::max)
}

/// Emits a circuit with parameters: the client's part and the server's.
///
/// # Errors
/// [`Code::IrInvalid`] for a circuit without parameters or outputs.
pub fn emit(
    circuit: &Graph<Circuit>,
    head: &Graph<Tensor>,
    tail: &Graph<Tensor>,
    failure_bits: u32,
) -> Result<(ClientSpec, Plan)> {
    let (glwe, gadget) = parameters(circuit)?;
    let partitions = circuit.values().filter_map(|id| match &circuit.node(id).ty {
        CircuitType::BootstrapParams(params) => Some((id, *params)),
        _ => None,
    });
    let partitions = partitions.collect();
    let mut emitter = Emitter {
        circuit,
        glwe,
        gadget,
        selectors: BTreeMap::new(),
        selector_count: 0,
        packed: 0,
        encoders: Vec::new(),
        encoder_of: BTreeMap::new(),
        plan: Plan::default(),
        shared: SharedSlots::default(),
        decoders: Vec::new(),
        result_slots: Vec::new(),
        tolerance: f64::INFINITY,
        partitions,
        small_inputs: 0,
        vectors: BTreeMap::new(),
        lwe_results: Vec::new(),
        lwe_decoders: Vec::new(),
    };
    for id in circuit.values() {
        emitter.input(id);
    }
    for (name, id) in circuit.outputs() {
        emitter.output(name, *id)?;
    }
    Ok(emitter.finish(head, tail, failure_bits))
}

fn parameters(circuit: &Graph<Circuit>) -> Result<(GlweParams, Option<GadgetParams>)> {
    let found = circuit.values().find_map(|id| match &circuit.node(id).ty {
        CircuitType::Params(glwe, gadget) => Some((*glwe, *gadget)),
        _ => None,
    });
    found.ok_or_else(|| {
        Diagnostic::new(Code::IrInvalid, "the circuit has no parameters").help("run `choose-parameters` first")
    })
}

struct Emitter<'a> {
    circuit: &'a Graph<Circuit>,
    glwe: GlweParams,
    gadget: Option<GadgetParams>,
    /// Per codes node: `(feature, bit)` to selector.
    selectors: BTreeMap<ValueId, BTreeMap<(u32, u32), u32>>,
    selector_count: u32,
    packed: u32,
    encoders: Vec<Encoder>,
    encoder_of: BTreeMap<ValueId, usize>,
    plan: Plan,
    shared: SharedSlots,
    decoders: Vec<Decoder>,
    result_slots: Vec<u32>,
    /// The smallest tolerated error of a result, as a standard deviation of the torus.
    tolerance: f64,
    /// Partitions, in the order of their `bootstrap_params`.
    partitions: Vec<(ValueId, BootstrapParams)>,
    small_inputs: u32,
    /// Layers made for values, by reader.
    vectors: BTreeMap<(ValueId, Reader), u32>,
    lwe_results: Vec<u32>,
    /// Decoders of LWE results: they come after those of GLWE results.
    lwe_decoders: Vec<Decoder>,
}

impl Emitter<'_> {
    fn input(&mut self, id: ValueId) {
        if let CircuitOp::Codes { value, single, features, selectors } = &self.circuit.node(id).op {
            let mut wires = BTreeMap::new();
            let mut columns = Vec::with_capacity(features.len());
            for (number, (feature, code)) in features.iter().zip(selectors.iter()).enumerate() {
                columns.push(CodedColumn {
                    column: feature.column,
                    boundaries: feature.boundaries.clone(),
                    missing: feature.missing.as_str().to_owned(),
                    cuts: code.cuts.clone(),
                    patterns: code.patterns.clone(),
                    bits: code.bits,
                    first_selector: self.selector_count,
                });
                for bit in 0..code.bits {
                    wires.insert((number as u32, bit), self.selector_count + bit);
                }
                self.selector_count += code.bits;
            }
            self.selectors.insert(id, wires);
            self.encoder_of.insert(id, self.encoders.len());
            let (thermometers, samples) = (Vec::new(), Vec::new());
            self.encoders.push(Encoder::Codes {
                value: value.clone(),
                single: *single,
                columns,
                thermometers,
                samples,
            });
        }
    }

    fn output(&mut self, name: &str, id: ValueId) -> Result<()> {
        let node = self.circuit.node(id);
        let wrong = || Diagnostic::internal("an output that is not a result");
        let (CircuitOp::Extract { step, offset, exact }, Some(&source)) = (&node.op, node.operands.first()) else {
            return Err(wrong());
        };
        let source_node = self.circuit.node(source);
        if let CircuitType::Lwe { ranges, log2_unit, noise, .. } = &source_node.ty {
            let unit = log2_unit.0.exp2();
            self.tolerance = self.tolerance.min(noise.map_or(f64::INFINITY, |noise| noise.0.exp2()));
            self.lwe_results.push(ranges.len() as u32);
            let middles = self.middles(source)?;
            let offset = offset.iter().zip(step).zip(middles).map(|((o, s), middle)| o + s * middle).collect();
            let vector = self.vector(source, Reader::Client)?;
            self.plan.network.results.push(vector);
            let scale = Scale::Torus { unit };
            self.lwe_decoders.push(Decoder { value: name.to_owned(), scale, step: step.clone(), offset });
            return Ok(());
        }
        let input = *source_node.operands.first().ok_or_else(wrong)?;
        let (slot, slots, scale) = match &source_node.op {
            CircuitOp::Decide { log2_delta, diagram } => {
                let slot = self.diagram(input, diagram, *log2_delta)?;
                (slot, diagram.slots, Scale::Integers { log2_delta: *log2_delta, exact: *exact })
            }
            CircuitOp::Polymul { outputs, weights } => {
                let (slot, encoder, log2_amplitude) = self.linear(input, *outputs, weights)?;
                // One slot more: the client's scale comes back in it.
                (slot, *outputs + 1, Scale::Reals { encoder: encoder as u32, log2_amplitude })
            }
            _ => return Err(wrong()),
        };
        if let CircuitType::Glwe { noise: Some(noise), .. } = &source_node.ty {
            self.tolerance = self.tolerance.min(noise.0.exp2());
        }
        self.plan.results.push(slot);
        self.result_slots.push(slots);
        self.decoders.push(Decoder { value: name.to_owned(), scale, step: step.clone(), offset: offset.clone() });
        Ok(())
    }

    /// The tasks of a diagram over codes; the shared slot of its value.
    fn diagram(&mut self, codes: ValueId, diagram: &Diagram, log2_delta: u32) -> Result<u32> {
        let wiring = Wiring {
            selectors: self.selectors.get(&codes).cloned().unwrap_or_default(),
            thermometer: self.thermometer(codes, diagram, log2_delta)?,
            polynomial_size: self.glwe.polynomial_size,
            log2_delta,
            gadget_bits: self.gadget.map_or(0, |gadget| gadget.base_log * gadget.levels),
        };
        Ok(add_diagram(&mut self.plan, &mut self.shared, diagram, &wiring))
    }

    /// Packs the thermometer terms a diagram uses, one every `slots` coefficients: then a term moved to its output leaves
    /// all others outside the output coefficients.
    fn thermometer(
        &mut self,
        codes: ValueId,
        diagram: &Diagram,
        log2_delta: u32,
    ) -> Result<BTreeMap<(u32, u32), (u32, u32)>> {
        let mut terms: BTreeMap<(u32, u32), (u32, u32)> = BTreeMap::new();
        for form in diagram.nodes.iter().flat_map(tacit_ir::diagram::Node::forms).chain([&diagram.root]) {
            for (atom, _) in form.atoms.keys() {
                if let Atom::AtLeast { feature, cut } = atom {
                    terms.insert((*feature, *cut), (0, 0));
                }
            }
        }
        let per_input = self.glwe.polynomial_size / diagram.slots.max(1);
        if per_input == 0 {
            return Err(Diagnostic::internal("more outputs than coefficients"));
        }
        for (number, place) in terms.values_mut().enumerate() {
            let number = number as u32;
            *place = (self.packed + number / per_input, number % per_input * diagram.slots);
        }
        let positions: Vec<(u32, u32, u32, u32)> =
            terms.iter().map(|(&(feature, cut), &(packed, at))| (feature, cut, packed, at)).collect();
        self.packed += (terms.len() as u32).div_ceil(per_input);
        if let (false, Some(Encoder::Codes { thermometers, .. })) =
            (positions.is_empty(), self.encoder_of.get(&codes).and_then(|&at| self.encoders.get_mut(at)))
        {
            thermometers.push(Thermometer { log2_delta, positions });
        }
        Ok(terms)
    }

    fn linear(&mut self, input: ValueId, outputs: u32, weights: &[i64]) -> Result<(u32, usize, i32)> {
        let CircuitOp::Reals { value, columns } = &self.circuit.node(input).op else {
            return Err(Diagnostic::internal("a product without packed reals"));
        };
        let n = self.glwe.polynomial_size;
        let width = *columns + 1;
        // Inputs are scaled to at most 1 in absolute value, so a sum is at most the row's 1-norm.
        let norm = row_norm(weights, width);
        let norm = norm.max(4.0);
        let log2_amplitude = 62 - norm.log2().ceil() as i32;
        // The last row gives back the constant column alone, at full amplitude: the scale that the client chose.
        let mut weights = weights.to_vec();
        weights.extend((1..width).map(|_| 0));
        // Three quarters of the power of two above the norm: far from both neighbours of any power of two.
        weights.push(3 << (norm.log2().ceil() as i32 - 2).max(0));
        let outputs = outputs + 1;
        let per_input = n / outputs;
        let inputs = width.div_ceil(per_input.max(1));
        let encoder = self.encoders.len();
        self.encoders.push(Encoder::Reals {
            value: value.clone(),
            columns: *columns,
            first_packed: self.packed,
            per_input,
            spacing: outputs,
            log2_amplitude,
        });
        let mut parts = Vec::new();
        let mut task = Task::default();
        for part in 0..inputs {
            let mut polynomial = vec![0i64; n as usize];
            for (output, row) in weights.chunks(width as usize).enumerate() {
                let from = (part * per_input) as usize;
                for (position, &weight) in row.iter().skip(from).take(per_input as usize).enumerate() {
                    // Coefficient position*spacing moves to `output`: exponent output - position*spacing, X^N = -1.
                    let shift = position * outputs as usize;
                    if shift <= output {
                        polynomial[output - shift] += weight;
                    } else {
                        polynomial[n as usize + output - shift] -= weight;
                    }
                }
            }
            let out = Slot::Scratch(part);
            task.steps.push(Step::PolyMul { out, packed: self.packed + part, polynomial });
            parts.push((out, 1));
        }
        task.scratch = inputs;
        let slot = self.shared.take(0, usize::MAX);
        let form = tacit_ir::plan::Form { slots: parts, ..Default::default() };
        task.steps.push(Step::Sum { out: Slot::Shared(slot), form });
        if self.plan.phases.is_empty() {
            self.plan.phases.push(Phase::default());
        }
        self.plan.phases[0].tasks.push(task);
        self.packed += inputs;
        self.plan.shared = self.plan.shared.max(slot + 1);
        Ok((slot, encoder, log2_amplitude))
    }

    fn finish(self, head: &Graph<Tensor>, tail: &Graph<Tensor>, failure_bits: u32) -> (ClientSpec, Plan) {
        // Rounding the result may add a sixteenth of the noise it has already.
        let budget = if self.tolerance.is_finite() { self.tolerance.powi(2) / 16.0 } else { (-60f64).exp2() };
        let network = !self.lwe_results.is_empty();
        let result_bits =
            (8..=if network { 32 } else { 64 }).find(|&bits| noise::result_rounding(&self.glwe, bits) <= budget);
        let result_bits = result_bits.unwrap_or(if network { 32 } else { 64 });
        let layout = Layout {
            glwe: self.glwe,
            gadget: self.gadget,
            selectors: self.selector_count,
            packed_inputs: self.packed,
            body_bits: noise::body_bits(self.glwe.log2_std),
            result_slots: self.result_slots,
            result_bits,
            partitions: self.partitions.into_iter().map(|(_, params)| params).collect(),
            small_inputs: self.small_inputs,
            lwe_results: self.lwe_results,
        };
        let decoders = self.decoders.into_iter().chain(self.lwe_decoders).collect();
        let spec = ClientSpec {
            layout,
            head: tacit_ir::artifact::RawGraph::from_graph(head),
            tail: tacit_ir::artifact::RawGraph::from_graph(tail),
            encoders: self.encoders,
            decoders,
            failure_bits,
        };
        (spec, self.plan)
    }
}
