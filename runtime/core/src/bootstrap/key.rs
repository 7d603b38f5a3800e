//! The evaluation key: read, checked, expanded from its seed and transformed.

use super::rotation::BlindRotation;
use crate::external::{Gadget, zeros};
use crate::prepare::Expansion;
use rayon::prelude::*;
use tacit_ir::artifact::v1::{
    SEED_BYTES, bootstrapping_key_bytes, bootstrapping_row_bytes, evaluation_key_bytes, key_body_bits,
};
use tacit_ir::artifact::{CircuitDigest, Kind, SectionId, View, decode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::params::BootstrapParams;
use tacit_ir::plan::Layout;
use tacit_torus::fft::Fft;
use tacit_torus::masks::MaskStream;
use tacit_torus::{ABox, c64};

/// What the server needs to bootstrap: a bootstrapping key, and a keyswitching key where a value needs it.
#[derive(Debug)]
pub struct EvaluationKey {
    pub(crate) digest: CircuitDigest,
    pub(crate) layout: Layout,
    pub(super) params: BootstrapParams,
    pub(crate) rotation: BlindRotation,
    /// One GGSW for each bit of the small key, in the layout of [`Gadget::set`].
    pub(super) ggsws: Vec<ABox<[c64]>>,
    /// For each bit of the flattened GLWE key and each level, the most significant first, an LWE ciphertext of n+1 words.
    pub(super) keyswitch: ABox<[u32]>,
}

impl EvaluationKey {
    /// Reads an evaluation key file of the circuit with this layout and digest and expands it, in parallel on the current
    /// rayon pool.
    ///
    /// # Errors
    ///
    /// Those of [`View::read`]; `OtherCircuit`; `NotConformant` when it was made under other parameters or its length is
    /// wrong, or when the circuit needs none.
    pub fn from_bytes(bytes: &[u8], layout: &Layout, digest: &CircuitDigest) -> Result<Self> {
        let file = View::read(bytes, &[Kind::EvaluationKey], Kind::EvaluationKey.default_limit())?;
        file.check_circuit(digest)?;
        let own: Layout = decode(file.section(SectionId::HEADER)?)?;
        if own != *layout {
            return Err(Diagnostic::new(
                Code::NotConformant,
                "the evaluation key was made under other parameters than the circuit's",
            )
            .help("make a new one with `tacit keygen`"));
        }
        let Some(params) = layout.bootstrap else {
            return Err(Diagnostic::new(Code::NotConformant, "the circuit needs no evaluation key"));
        };
        let section = file.section(SectionId::KEY)?;
        let expected = evaluation_key_bytes(layout);
        if section.len() as u64 != expected {
            let what = format!("the evaluation key has {} bytes, not {expected}", section.len());
            return Err(Diagnostic::new(Code::NotConformant, what));
        }
        let (seed, bodies) = section.split_at(SEED_BYTES);
        let masks = MaskStream::new(seed.try_into().unwrap_or_default());
        let (bootstrapping, keyswitching) = bodies.split_at(bootstrapping_key_bytes(layout) as usize);
        let gadget = Gadget::new(&params.gadget);
        let fft = Fft::new(layout.glwe.polynomial_size as usize);
        let row_bytes = bootstrapping_row_bytes(layout, &params) as usize;
        let body_bits = key_body_bits(layout);
        let ggsws = bootstrapping
            .par_chunks_exact(row_bytes)
            .enumerate()
            .map_init(
                || Expansion::new(&layout.glwe, &gadget, &fft),
                |expansion, (at, bodies)| {
                    let mut ggsw = zeros(gadget.fourier_len(&layout.glwe));
                    expansion.ggsw(&masks, at as u64, (bodies, body_bits), &mut ggsw, |_, _| {});
                    ggsw
                },
            )
            .collect();
        let keyswitch = keyswitching_key(layout, &params, &masks, keyswitching);
        let rotation = BlindRotation::new(&layout.glwe, &params);
        Ok(EvaluationKey { digest: *digest, layout: layout.clone(), params, rotation, ggsws, keyswitch })
    }

    /// The circuit the key was made for.
    pub fn digest(&self) -> &CircuitDigest {
        &self.digest
    }

    /// Whether the key is for this circuit.
    pub(crate) fn is_for(&self, layout: &Layout, digest: &CircuitDigest) -> bool {
        self.digest == *digest && self.layout == *layout
    }
}

/// The keyswitching key: 32-bit bodies as they travel, masks the top halves of the stream's words.
fn keyswitching_key(layout: &Layout, params: &BootstrapParams, masks: &MaskStream, bodies: &[u8]) -> ABox<[u32]> {
    let n = params.lwe.dimension as usize;
    let count = bodies.len() / 4;
    let mut key: ABox<[u32]> = zeros(count * (n + 1));
    let rows = params.gadget.levels as u64 * (u64::from(layout.glwe.dimension) + 1);
    let start = u64::from(params.lwe.dimension) * rows * u64::from(layout.glwe.lwe_dimension());
    key.par_chunks_exact_mut(n + 1).zip(bodies.par_chunks_exact(4)).enumerate().for_each_init(
        || vec![0u64; n],
        |words, (at, (row, body))| {
            masks.fill(start + at as u64 * n as u64, words);
            for (to, word) in row.iter_mut().zip(words.iter()) {
                *to = (word >> 32) as u32;
            }
            row[n] = body.try_into().map(u32::from_le_bytes).unwrap_or_default();
        },
    );
    key
}
