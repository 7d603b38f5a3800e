//! A checked plan with everything precomputed that does not depend on a query.

use crate::evaluate::WorkspacePool;
use crate::external::{BlockProduct, Gadget, zeros};
use crate::prepare::Pools;
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::artifact::CircuitDigest;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp;
use tacit_ir::plan::{BLOCK, Layout, Plan, Step};
use tacit_torus::fft::Fft;
use tacit_torus::{ABox, c64, exact};

/// A circuit ready to run. Cheap to share between threads.
#[derive(Debug)]
pub struct Circuit {
    digest: CircuitDigest,
    layout: Layout,
    pub(crate) plan: Plan,
    pub(crate) fft: Fft,
    pub(crate) gadget: Option<Gadget>,
    /// For plans with blocks of selectors.
    pub(crate) blocks: Option<BlockProduct>,
    /// Transforms of the clear polynomials, in the order of the plan's steps.
    pub(crate) polynomials: Vec<Multiplier>,
    /// For each task of each phase: the first of its `polynomials`.
    pub(crate) first_polynomial: Vec<Vec<usize>>,
    /// Selectors whose last-level body row forms read, and where the prepared row keeps it.
    pub(crate) bit_rows: BTreeMap<u32, usize>,
    /// Packed inputs that dense products read with this digit width, and where the prepared row keeps the digits.
    pub(crate) digit_inputs: BTreeMap<(u32, u32), usize>,
    /// First selectors of the units that a row is prepared by: a selector each, or a block of them.
    pub(crate) units: Vec<u32>,
    pub(crate) workspaces: WorkspacePool,
    pub(crate) pools: Pools,
}

/// A clear polynomial of a dense product.
#[derive(Debug)]
pub(crate) struct Multiplier {
    pub(crate) fourier: ABox<[c64]>,
    /// Width of the ciphertext's digits with which the product is exact.
    pub(crate) digit_bits: u32,
}

impl Circuit {
    /// Checks a plan under its layout and prepares it. `digest` names the circuit that queries must belong to.
    ///
    /// # Errors
    ///
    /// `NotConformant` when the plan or the layout fails [`interp::plan::check`], or when a clear polynomial is too large
    /// for an exact product.
    pub fn new(layout: Layout, plan: Plan, digest: CircuitDigest) -> Result<Self> {
        interp::plan::check(&plan, &layout)?;
        let fft = Fft::new(layout.glwe.polynomial_size as usize);
        let mut scratch = fft.scratch();
        let mut polynomials: Vec<Multiplier> = Vec::new();
        let mut first_polynomial = Vec::with_capacity(plan.phases.len());
        let mut bit_rows = BTreeSet::new();
        let mut digit_inputs = BTreeSet::new();
        for phase in &plan.phases {
            let mut firsts = Vec::with_capacity(phase.tasks.len());
            for task in &phase.tasks {
                firsts.push(polynomials.len());
                for step in &task.steps {
                    bit_rows.extend(step.forms().iter().flat_map(|form| &form.bits).map(|(selector, ..)| *selector));
                    if let Step::PolyMul { out: _, packed, polynomial } = step {
                        let squared_norm: f64 = polynomial.iter().map(|weight| (*weight as f64).powi(2)).sum();
                        let digit_bits = exact::digit_bits(squared_norm).ok_or_else(|| {
                            let size = 0.5 * squared_norm.log2();
                            Diagnostic::new(
                                Code::NotConformant,
                                format!("a clear polynomial of norm 2^{size:.1} is too large"),
                            )
                        })?;
                        let mut fourier = zeros(fft.fourier_size());
                        fft.forward_units(&mut fourier, polynomial, &mut scratch);
                        polynomials.push(Multiplier { fourier, digit_bits });
                        digit_inputs.insert((*packed, digit_bits));
                    }
                }
            }
            first_polynomial.push(firsts);
        }
        let gadget = layout.gadget.as_ref().map(Gadget::new);
        let with_blocks = gadget.as_ref().filter(|_| !plan.network.blocks.is_empty());
        let blocks = with_blocks.map(|gadget| BlockProduct::new(&fft, &layout.glwe, gadget, BLOCK));
        let units = (0..layout.selectors)
            .filter(|selector| plan.network.block_of(*selector).is_none_or(|first| first == *selector))
            .collect();
        Ok(Circuit {
            digest,
            plan,
            fft,
            gadget,
            blocks,
            polynomials,
            first_polynomial,
            bit_rows: bit_rows.into_iter().zip(0..).collect(),
            digit_inputs: digit_inputs.into_iter().zip(0..).collect(),
            units,
            workspaces: WorkspacePool::default(),
            pools: Pools::default(),
            layout,
        })
    }

    /// The circuit's digest.
    pub fn digest(&self) -> &CircuitDigest {
        &self.digest
    }

    /// Shapes of queries and results.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}
