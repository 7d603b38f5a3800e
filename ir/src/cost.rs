//! What primitives cost: microseconds on one core, and bytes on the wire.
//!
//! The shapes of the formulas are those of the algorithms; the nanoseconds are measured. Those of [`CostProfile::default`] are
//! of `cargo bench -p tacit-runtime --bench primitives`, `-p tacit-tests --bench bootstrap` and `-p tacit-client --bench
//! encryption` on one thread of a 2-core AMD EPYC with AVX2 and without AVX-512; `tacit profile` measures those of another
//! machine. They rank parameter sets; predictions are printed beside measurements.

use crate::params::{BootstrapParams, GadgetParams, GlweParams};
use crate::plan::{BLOCK, Layer, Layout, Plan, Step};
use serde::{Deserialize, Serialize};

pub use crate::artifact::v1::{packed_bytes, packed_input_bytes, query_row_bytes, result_row_bytes, selector_bytes};

/// Nanoseconds of the steps that primitives are made of, on one core.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct CostProfile {
    /// One N log2 N step of the FFTs of an external product, conversions included.
    pub product_fft_ns: f64,
    /// One complex multiply-add of an external product, per N. With the selector in the second cache it is about 0.3,
    /// streamed from memory 0.7; circuits have more selectors than the cache holds and use some of them often.
    pub product_pointwise_ns: f64,
    /// One N log2 N step of the FFTs of a blind rotation, conversions included.
    pub rotation_fft_ns: f64,
    /// One complex multiply-add of a blind rotation, per N, with the key read once for a batch.
    pub rotation_pointwise_ns: f64,
    /// One 32-bit multiply-add of a batched keyswitch.
    pub keyswitch_ns: f64,
    /// One coefficient of a GLWE ciphertext that a form term reads and adds.
    pub term_ns: f64,
    /// One word of an LWE ciphertext that a sum reads, multiplies and adds.
    pub lwe_term_ns: f64,
    /// Expanding and transforming one coefficient of a selector.
    pub prepare_ns: f64,
    /// Encrypting one coefficient of a selector (masks times key), per mask coefficient.
    pub encrypt_ns: f64,
}

impl Default for CostProfile {
    fn default() -> Self {
        CostProfile {
            product_fft_ns: 0.136,
            product_pointwise_ns: 0.5,
            rotation_fft_ns: 0.152,
            rotation_pointwise_ns: 0.19,
            keyswitch_ns: 0.033,
            term_ns: 0.23,
            lwe_term_ns: 0.2,
            prepare_ns: 4.3,
            encrypt_ns: 10.0,
        }
    }
}

/// `N log2 N` steps of the FFTs of an external product, or of one block of a blind rotation: `(k+1)(l+1)` transforms.
pub fn fft_steps(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    let (k, n, l) = (f64::from(glwe.dimension), f64::from(glwe.polynomial_size), f64::from(gadget.levels));
    (k + 1.0) * (l + 1.0) * n * n.log2()
}

/// Complex multiply-adds of one external product, times two: `(k+1)^2 l N`.
pub fn pointwise_steps(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    let (k, n, l) = (f64::from(glwe.dimension), f64::from(glwe.polynomial_size), f64::from(gadget.levels));
    (k + 1.0).powi(2) * l * n
}

/// Coefficients of the rows of a selector.
pub fn selector_steps(glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
    (f64::from(glwe.dimension) + 1.0) * f64::from(gadget.levels) * glwe.ciphertext_len() as f64
}

/// 32-bit multiply-adds of a keyswitch.
pub fn keyswitch_steps(glwe: &GlweParams, params: &BootstrapParams) -> f64 {
    let levels = params.keyswitch.map_or(0.0, |gadget| f64::from(gadget.levels));
    f64::from(glwe.lwe_dimension()) * levels * (f64::from(params.lwe.dimension) + 1.0)
}

impl CostProfile {
    /// Whether every cost is a positive number.
    pub fn is_positive(&self) -> bool {
        let CostProfile {
            product_fft_ns,
            product_pointwise_ns,
            rotation_fft_ns,
            rotation_pointwise_ns,
            keyswitch_ns,
            term_ns,
            lwe_term_ns,
            prepare_ns,
            encrypt_ns,
        } = *self;
        let products = [product_fft_ns, product_pointwise_ns, rotation_fft_ns, rotation_pointwise_ns];
        let rest = [keyswitch_ns, term_ns, lwe_term_ns, prepare_ns, encrypt_ns];
        products.iter().chain(&rest).all(|value| value.is_finite() && *value > 0.0)
    }

    /// Microseconds of one external product.
    pub fn external_product_us(&self, glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
        let ffts = self.product_fft_ns * fft_steps(glwe, gadget);
        (ffts + self.product_pointwise_ns * pointwise_steps(glwe, gadget)) / 1000.0
    }

    /// Microseconds of one scaled ciphertext added into a form.
    pub fn form_term_us(&self, glwe: &GlweParams) -> f64 {
        self.term_ns * glwe.ciphertext_len() as f64 / 1000.0
    }

    /// Microseconds the server spends on one selector before it can be used.
    pub fn prepare_selector_us(&self, glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
        self.prepare_ns * selector_steps(glwe, gadget) / 1000.0
    }

    /// Microseconds the client spends on encrypting one selector.
    pub fn encrypt_selector_us(&self, glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
        self.encrypt_ns * selector_steps(glwe, gadget) / 1000.0
    }

    /// Microseconds of turning a table by one selector: the difference, and its product.
    pub fn rotation_us(&self, glwe: &GlweParams, gadget: &GadgetParams) -> f64 {
        self.external_product_us(glwe, gadget) + 2.0 * self.form_term_us(glwe)
    }

    /// Microseconds of one blind rotation, in a batch that reads the key once for several ciphertexts: for each block of
    /// key bits `(k+1)(l+1)` FFTs, and pointwise products with each bit's GGSW and with the digits.
    pub fn bootstrap_us(&self, glwe: &GlweParams, params: &BootstrapParams) -> f64 {
        let block = f64::from(params.lwe.block);
        f64::from(params.lwe.dimension) / block * self.block_us(glwe, &params.gadget, block)
    }

    /// Microseconds of the product with the selectors of a block, in a batch.
    pub fn block_us(&self, glwe: &GlweParams, gadget: &GadgetParams, block: f64) -> f64 {
        let products = (block + 1.0) * pointwise_steps(glwe, gadget);
        (self.rotation_fft_ns * fft_steps(glwe, gadget) + self.rotation_pointwise_ns * products) / 1000.0
    }

    /// Microseconds of one keyswitch from the flattened GLWE key to the small key, in a batch.
    pub fn keyswitch_us(&self, glwe: &GlweParams, params: &BootstrapParams) -> f64 {
        self.keyswitch_ns * keyswitch_steps(glwe, params) / 1000.0
    }

    /// Predicted microseconds of one row of a plan on one core, preparing its selectors included.
    pub fn plan_us(&self, layout: &Layout, plan: &Plan) -> f64 {
        self.stages(layout, plan).iter().map(|stage| stage.us).sum()
    }

    /// Predicted microseconds of one row of a plan on several cores, each as fast as the profile's. In every stage the cores share
    /// the work evenly, down to the longest task, which is one core's: no schedule is faster.
    pub fn latency_us(&self, layout: &Layout, plan: &Plan, cores: u32) -> f64 {
        let cores = f64::from(cores.max(1));
        self.stages(layout, plan).iter().map(|stage| (stage.us / cores).max(stage.longest_us)).sum()
    }

    /// What runs one after another: preparing the selectors, each phase, each layer.
    fn stages(&self, layout: &Layout, plan: &Plan) -> Vec<Work> {
        let glwe = &layout.glwe;
        let mut stages = Vec::new();
        if let Some(gadget) = &layout.gadget {
            let one = self.prepare_selector_us(glwe, gadget);
            stages.push(Work { us: f64::from(layout.selectors) * one, longest_us: one });
        }
        for phase in &plan.phases {
            let tasks = phase.tasks.iter().map(|task| task.steps.iter().map(|step| self.step_us(layout, step)).sum());
            stages.push(Work::of(tasks));
        }
        let small = plan.network.small();
        for (at, layer) in plan.network.layers.iter().enumerate() {
            stages.push(match layer {
                Layer::Samples { .. } | Layer::SampleExtract { .. } => Work::default(),
                Layer::Rotate { rotations, .. } => Work::of(rotations.iter().map(|own| {
                    let turns = plan.network.turns(own);
                    layout.gadget.map_or(0.0, |gadget| {
                        f64::from(turns.singles) * self.rotation_us(glwe, &gadget)
                            + f64::from(turns.blocks) * self.block_us(glwe, &gadget, BLOCK as f64)
                    })
                })),
                Layer::Affine { column, .. } => {
                    let words = match layout.input_partition() {
                        Some((_, params)) if small[at] => f64::from(params.lwe.dimension) + 1.0,
                        _ => f64::from(glwe.lwe_dimension()) + 1.0,
                    };
                    let one = self.lwe_term_ns * words / 1000.0;
                    Work { us: column.len() as f64 * one, longest_us: one }
                }
                Layer::Bootstrap { partition, operand, table, .. } => {
                    let switched = !small.get(*operand as usize).copied().unwrap_or(false);
                    let one = layout.partitions.get(*partition as usize).map_or(0.0, |params| {
                        self.bootstrap_us(glwe, params) + if switched { self.keyswitch_us(glwe, params) } else { 0.0 }
                    });
                    Work { us: table.len() as f64 * one, longest_us: one }
                }
            });
        }
        stages
    }

    fn step_us(&self, layout: &Layout, step: &Step) -> f64 {
        let glwe = &layout.glwe;
        let products = match step {
            Step::CMux { .. } => 1,
            Step::Rotate { rotations, .. } => rotations.len(),
            Step::Sum { .. } | Step::PolyMul { .. } => 0,
        };
        let forms = step.forms();
        let terms: usize = forms.iter().map(|form| form.slots.len() + form.packed.len() + form.bits.len()).sum();
        products as f64 * layout.gadget.map_or(0.0, |gadget| self.external_product_us(glwe, &gadget))
            + terms as f64 * self.form_term_us(glwe)
    }
}

/// Work that several cores can share.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// Microseconds on one core.
    us: f64,
    /// Of the longest part that one core does alone.
    longest_us: f64,
}

impl Work {
    fn of(tasks: impl Iterator<Item = f64>) -> Self {
        tasks.fold(Work::default(), |work, us| Work { us: work.us + us, longest_us: work.longest_us.max(us) })
    }
}
