//! The executable form of a circuit: what the server runs, with every buffer and every parallel task decided.
//!
//! All arithmetic is on the 64-bit torus (wrapping `u64`). A *slot* holds one GLWE ciphertext, (k+1)*N coefficients.
//! Slots are either shared (written once by a task, readable by all later phases) or scratch (private to a task).
//! The plan fixes the order of every addition, so results do not depend on the number of threads.

use crate::params::{BootstrapParams, GadgetParams, GlweParams};
use crate::stage::circuit::network::Turns;
use serde::{Deserialize, Serialize};

/// Shapes of what travels between client and server; both sides hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// Parameters of every GLWE ciphertext (inputs, intermediate values and results).
    pub glwe: GlweParams,
    /// Decomposition of the selectors; `None` when there are none.
    pub gadget: Option<GadgetParams>,
    /// Number of selector bits, each one GGSW ciphertext of a bit.
    pub selectors: u32,
    /// Number of packed inputs, each one GLWE ciphertext whose coefficients the client fills.
    pub packed_inputs: u32,
    /// Top bits kept of each body coefficient of selectors and packed inputs (the rest is below the noise).
    pub body_bits: u32,
    /// Number of result slots (coefficients 0..n that leave the server) of each result ciphertext.
    pub result_slots: Vec<u32>,
    /// Top bits kept of each mask and body coefficient of a result.
    pub result_bits: u32,
    /// Partitions of the bootstraps, each with a small key and keys of its own. At most one has inputs under its small key.
    pub partitions: Vec<BootstrapParams>,
    /// Number of inputs under a small key, each one GLWE ciphertext of its partition's `small_dimension` masks.
    pub small_inputs: u32,
    /// LWE ciphertexts under the flattened GLWE key of each further result.
    pub lwe_results: Vec<u32>,
}

impl Layout {
    /// The number of the partition under whose small key inputs are, and the partition.
    pub fn input_partition(&self) -> Option<(usize, &BootstrapParams)> {
        self.partitions.iter().enumerate().find(|(_, params)| params.small_dimension > 0)
    }
    /// Coefficients of an input under a small key.
    pub fn small_size(&self) -> u32 {
        let size = |params: &BootstrapParams| params.lwe.dimension.checked_div(params.small_dimension);
        self.input_partition().and_then(|(_, params)| size(params)).unwrap_or(0)
    }
}

/// Where a GLWE value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// Written once, readable by later phases.
    Shared(u32),
    /// Private to the task.
    Scratch(u32),
}

/// A linear form over ciphertexts with clear integer weights:
/// `sum weight*slot + sum weight * X^-shift * packed + sum weight * X^shift * bit/B + constant`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// `(slot, weight)`.
    pub slots: Vec<(Slot, i64)>,
    /// `(packed input, shift, weight)`: the ciphertext times `weight * X^(-shift)`, 0 <= shift < 2N (X^N = -1), so that
    /// coefficient `shift` of the message arrives in coefficient 0.
    pub packed: Vec<(u32, u32, i64)>,
    /// `(selector, shift, weight)`: the selector's bit, times `weight * 2^(64 - base_log*levels) * X^shift`, taken from
    /// the last-level body row of its GGSW.
    pub bits: Vec<(u32, u32, i64)>,
    /// `(coefficient, torus value)` added to the body.
    pub constant: Vec<(u32, u64)>,
}

/// One step of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// `out = base + selector [x] difference`: one external product.
    CMux {
        /// Written; never read by `base` or `difference` unless it is scratch and dead after.
        out: Slot,
        /// The GGSW.
        selector: u32,
        /// The value when the bit is 0.
        base: Form,
        /// The value when the bit is 1, less `base`.
        difference: Form,
    },
    /// `out = table`, then for each `(selector, shift)`: `out += selector [x] (X^(-shift) * out - out)`: one external
    /// product each.
    Rotate {
        /// Written.
        out: Slot,
        /// What is rotated.
        table: Form,
        /// `(selector, shift)` with 0 < shift < 2N.
        rotations: Vec<(u32, u32)>,
    },
    /// `out = form`.
    Sum {
        /// Written.
        out: Slot,
        /// The sum.
        form: Form,
    },
    /// `out = packed input * polynomial`, a dense product by clear integers through the FFT.
    PolyMul {
        /// Written.
        out: Slot,
        /// The packed input.
        packed: u32,
        /// N integer coefficients, lowest degree first.
        polynomial: Vec<i64>,
    },
}

/// Steps that run in order on one thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Scratch slots the task needs.
    pub scratch: u32,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Tasks that may run at the same time; they write disjoint shared slots and read only slots of earlier phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// The tasks.
    pub tasks: Vec<Task>,
}

/// The server's program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of shared slots.
    pub shared: u32,
    /// Phases, in order.
    pub phases: Vec<Phase>,
    /// For each result, the shared slot that holds it.
    pub results: Vec<u32>,
    /// What runs on LWE ciphertexts, after the phases.
    pub network: Network,
}

/// Selectors of a block.
pub const BLOCK: usize = 3;

/// Layers over vectors of LWE ciphertexts on the 32-bit torus; layer i makes vector i.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// First selectors of blocks, ascending: of a block's [`BLOCK`] consecutive selectors at most one is 1, and they rotate a
    /// table together.
    pub blocks: Vec<u32>,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Vectors that leave the server, under the flattened GLWE key.
    pub results: Vec<u32>,
}

/// How a vector of LWE ciphertexts comes about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Layer {
    /// Coefficients of inputs: element e is coefficient `e % size` of input `first + e / size`, with `size` coefficients
    /// an input.
    Samples {
        /// Inputs under a small key, else packed inputs.
        small: bool,
        /// The first input.
        first: u32,
        /// Number of elements.
        count: u32,
    },
    /// The first coefficients of a shared slot.
    SampleExtract {
        /// The slot.
        slot: u32,
        /// Number of elements.
        count: u32,
    },
    /// For each element a table, rotated by `X^-shift` for each selector whose bit is 1; coefficient 0.
    Rotate {
        /// Tables of N torus values.
        tables: Vec<Vec<u32>>,
        /// Per element: its table.
        table: Vec<u32>,
        /// Per element: `(selector, shift)` with 0 < shift < 2N.
        rotations: Vec<Vec<(u32, u32)>>,
    },
    /// Integer combinations of the elements of vectors, numbered through, and a constant each.
    Affine {
        /// The vectors.
        operands: Vec<u32>,
        /// First entry of each row, and the number of entries.
        start: Vec<u32>,
        /// Column of each entry.
        column: Vec<u32>,
        /// Weight of each entry.
        weight: Vec<i32>,
        /// Per row: torus value added.
        constant: Vec<u32>,
    },
    /// For each element of a vector a table, rotated by the element's phase; its first coefficients, as many as there are
    /// results. Elements under the flattened GLWE key are switched to the partition's small key first.
    Bootstrap {
        /// The partition.
        partition: u32,
        /// The vector.
        operand: u32,
        /// Results of each rotation, a power of two t: phases are rounded to multiples of `t/2N`, so that a table holds t
        /// tables, entry by entry in turn (Chillotti, Ligier, Orfila, Tap, "Improved programmable bootstrapping with larger
        /// precision and efficient arithmetic circuits for TFHE", ASIACRYPT 2021).
        results: u32,
        /// Tables of N torus values.
        tables: Vec<Vec<u32>>,
        /// Per element of the vector: its table.
        table: Vec<u32>,
    },
}

impl Layer {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Layer::Samples { count, .. } | Layer::SampleExtract { count, .. } => *count as usize,
            Layer::Rotate { table, .. } => table.len(),
            Layer::Bootstrap { results, table, .. } => table.len().saturating_mul(*results as usize),
            Layer::Affine { constant, .. } => constant.len(),
        }
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Counts of the costly operations of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// External products (GGSW times GLWE).
    pub external_products: u64,
    /// Products with the selectors of a block.
    pub block_products: u64,
    /// Ciphertexts scaled and added in linear forms.
    pub form_terms: u64,
    /// Dense products by clear polynomials.
    pub polynomial_products: u64,
    /// Programmable bootstraps.
    pub bootstraps: u64,
    /// Keyswitches.
    pub keyswitches: u64,
    /// LWE ciphertexts scaled and added.
    pub lwe_terms: u64,
}

impl Step {
    /// The linear forms the step evaluates.
    pub fn forms(&self) -> Vec<&Form> {
        match self {
            Step::CMux { out: _, selector: _, base, difference } => vec![base, difference],
            Step::Rotate { out: _, table, rotations: _ } => vec![table],
            Step::Sum { out: _, form } => vec![form],
            Step::PolyMul { out: _, packed: _, polynomial: _ } => vec![],
        }
    }
    /// The slot the step writes.
    pub fn out(&self) -> Slot {
        match self {
            Step::CMux { out, .. } | Step::Rotate { out, .. } | Step::Sum { out, .. } | Step::PolyMul { out, .. } => {
                *out
            }
        }
    }
}

impl Plan {
    /// Counts what the plan does.
    pub fn counts(&self) -> PlanCounts {
        let mut counts = PlanCounts::default();
        for step in self.phases.iter().flat_map(|phase| &phase.tasks).flat_map(|task| &task.steps) {
            counts.external_products += match step {
                Step::CMux { .. } => 1,
                Step::Rotate { rotations, .. } => rotations.len() as u64,
                Step::Sum { .. } | Step::PolyMul { .. } => 0,
            };
            counts.polynomial_products += u64::from(matches!(step, Step::PolyMul { .. }));
            for form in step.forms() {
                counts.form_terms += (form.slots.len() + form.packed.len() + form.bits.len()) as u64;
            }
        }
        let small = self.network.small();
        for layer in &self.network.layers {
            match layer {
                Layer::Samples { .. } | Layer::SampleExtract { .. } => {}
                Layer::Rotate { rotations, .. } => {
                    for turns in rotations.iter().map(|own| self.network.turns(own)) {
                        counts.external_products += u64::from(turns.singles);
                        counts.block_products += u64::from(turns.blocks);
                    }
                }
                Layer::Affine { column, .. } => counts.lwe_terms += column.len() as u64,
                Layer::Bootstrap { operand, table, .. } => {
                    counts.bootstraps += table.len() as u64;
                    if !small.get(*operand as usize).copied().unwrap_or(false) {
                        counts.keyswitches += table.len() as u64;
                    }
                }
            }
        }
        counts
    }
}

impl Network {
    /// The first selector of the block that a selector belongs to.
    pub fn block_of(&self, selector: u32) -> Option<u32> {
        let at = self.blocks.partition_point(|first| *first <= selector).checked_sub(1)?;
        self.blocks.get(at).copied().filter(|first| selector - first < BLOCK as u32)
    }

    /// What turns a table by these selectors, in the order of selectors.
    pub fn turns(&self, rotations: &[(u32, u32)]) -> Turns {
        let mut turns = Turns::default();
        let mut last = None;
        for (selector, _) in rotations {
            let block = self.block_of(*selector);
            turns.singles += u32::from(block.is_none());
            turns.blocks += u32::from(block.is_some() && block != last);
            last = block;
        }
        turns
    }

    /// Whether a layer reads shared slots.
    pub fn reads_slots(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Layer::SampleExtract { .. }))
    }

    /// Bootstraps of each partition.
    pub fn bootstraps(&self, partitions: usize) -> Vec<u64> {
        let mut counts = vec![0; partitions];
        for layer in &self.layers {
            if let Layer::Bootstrap { partition, table, .. } = layer
                && let Some(count) = counts.get_mut(*partition as usize)
            {
                *count += table.len() as u64;
            }
        }
        counts
    }

    /// Per vector: whether it is under a small key.
    pub fn small(&self) -> Vec<bool> {
        let mut small: Vec<bool> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            small.push(match layer {
                Layer::Samples { small, .. } => *small,
                Layer::Affine { operands, .. } => {
                    operands.iter().any(|at| small.get(*at as usize).copied().unwrap_or(false))
                }
                Layer::SampleExtract { .. } | Layer::Rotate { .. } | Layer::Bootstrap { .. } => false,
            });
        }
        small
    }
}
