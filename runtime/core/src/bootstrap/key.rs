//! The evaluation key: read, checked, expanded from its seed and transformed.

use super::keyswitch::KeyswitchKey;
use super::rotation::BlindRotation;
use crate::external::zeros;
use crate::prepare::Expansion;
use rayon::prelude::*;
use tacit_ir::artifact::v1::{
    SEED_BYTES, bootstrapping_key_bytes, bootstrapping_row_bytes, evaluation_key_bytes, key_body_bits,
};
use tacit_ir::artifact::{CircuitDigest, Kind, SectionId, View, decode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::params::BootstrapParams;
use tacit_ir::plan::Layout;
use tacit_torus::masks::MaskStream;
use tacit_torus::{ABox, c64};

/// What the server needs to bootstrap: a bootstrapping key, and a keyswitching key where a value needs it.
#[derive(Debug)]
pub struct EvaluationKey {
    pub(crate) digest: CircuitDigest,
    pub(crate) layout: Layout,
    pub(super) params: BootstrapParams,
    pub(crate) rotation: BlindRotation,
    /// The GGSWs of each block of the small key, in the layout of [`tacit_torus::blocks`].
    pub(super) blocks: Vec<ABox<[f64]>>,
    pub(super) keyswitch: Option<KeyswitchKey>,
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
        let rotation = BlindRotation::new(&layout.glwe, &params);
        let shape = rotation.blocks.shape;
        let body_bits = key_body_bits(layout);
        let row_bytes = bootstrapping_row_bytes(layout, &params) as usize;
        let blocks = bootstrapping
            .par_chunks_exact(row_bytes * shape.block)
            .enumerate()
            .map_init(
                || Expansion::new(&layout.glwe, &rotation.gadget, &rotation.fft),
                |expansion, (block, bodies)| {
                    let mut table = zeros(shape.table_len(rotation.fft.fourier_size()));
                    for (index, bodies) in bodies.chunks_exact(row_bytes).enumerate() {
                        let put = |transform: &[c64], row, column| shape.set(&mut table, transform, index, row, column);
                        let at = (block * shape.block + index) as u64;
                        expansion.ggsw(&masks, at, (bodies, body_bits), put, |_, _| {});
                    }
                    table
                },
            )
            .collect();
        let keyswitch =
            params.keyswitch.map(|gadget| KeyswitchKey::expand(layout, &params, gadget, &masks, keyswitching));
        Ok(EvaluationKey { digest: *digest, layout: layout.clone(), params, rotation, blocks, keyswitch })
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
