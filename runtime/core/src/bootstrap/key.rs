//! The evaluation key: read, checked, expanded from its seed and transformed.

use super::keyswitch::KeyswitchKey;
use super::rotation::BlindRotation;
use crate::external::zeros;
use crate::prepare::Expansion;
use rayon::prelude::*;
use tacit_ir::artifact::v1::{
    SEED_BYTES, bootstrapping_key_bytes, bootstrapping_row_bytes, evaluation_key_bytes, key_body_bits,
    partition_key_bytes, partition_masks,
};
use tacit_ir::artifact::{CircuitDigest, Kind, SectionId, View, decode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::params::{BootstrapParams, GlweParams};
use tacit_ir::plan::Layout;
use tacit_torus::masks::MaskStream;
use tacit_torus::{ABox, c64};

/// What the server needs to bootstrap: the keys of each partition.
#[derive(Debug)]
pub struct EvaluationKey {
    digest: CircuitDigest,
    layout: Layout,
    partitions: Vec<PartitionKey>,
}

/// What the bootstraps of one partition need: a bootstrapping key, and a keyswitching key where a value needs it.
#[derive(Debug)]
pub struct PartitionKey {
    pub(super) glwe: GlweParams,
    pub(super) params: BootstrapParams,
    pub(super) rotation: BlindRotation,
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
        if layout.partitions.is_empty() {
            return Err(Diagnostic::new(Code::NotConformant, "the circuit needs no evaluation key"));
        }
        let section = file.section(SectionId::KEY)?;
        let expected = evaluation_key_bytes(layout);
        if section.len() as u64 != expected {
            let what = format!("the evaluation key has {} bytes, not {expected}", section.len());
            return Err(Diagnostic::new(Code::NotConformant, what));
        }
        let (seed, mut bodies) = section.split_at(SEED_BYTES);
        let masks = MaskStream::new(seed.try_into().unwrap_or_default());
        let mut first_mask = 0;
        let mut partitions = Vec::with_capacity(layout.partitions.len());
        for params in &layout.partitions {
            let (own, rest) = bodies.split_at(partition_key_bytes(&layout.glwe, params) as usize);
            partitions.push(PartitionKey::expand(&layout.glwe, params, &masks, first_mask, own));
            bodies = rest;
            first_mask += partition_masks(&layout.glwe, params);
        }
        Ok(EvaluationKey { digest: *digest, layout: layout.clone(), partitions })
    }

    /// The circuit the key was made for.
    pub fn digest(&self) -> &CircuitDigest {
        &self.digest
    }

    /// The keys of each partition of the layout.
    pub fn partitions(&self) -> &[PartitionKey] {
        &self.partitions
    }

    /// Bytes of memory that the expanded keys take, for caches.
    pub fn memory_bytes(&self) -> usize {
        self.partitions.iter().map(PartitionKey::memory_bytes).sum()
    }

    /// Whether the key is for this circuit.
    pub(crate) fn is_for(&self, layout: &Layout, digest: &CircuitDigest) -> bool {
        self.digest == *digest && self.layout == *layout
    }
}

impl PartitionKey {
    /// Expands the bodies of a partition's keys; masks of kN words, and in their place those of the keyswitching key, begin
    /// with number `first_mask` of the stream.
    fn expand(
        glwe: &GlweParams,
        params: &BootstrapParams,
        masks: &MaskStream,
        first_mask: u64,
        bodies: &[u8],
    ) -> PartitionKey {
        let (bootstrapping, keyswitching) = bodies.split_at(bootstrapping_key_bytes(glwe, params) as usize);
        let rotation = BlindRotation::new(glwe, params);
        let shape = rotation.blocks.shape;
        let body_bits = key_body_bits(glwe);
        let row_bytes = bootstrapping_row_bytes(glwe, params) as usize;
        let blocks = bootstrapping
            .par_chunks_exact(row_bytes * shape.block)
            .enumerate()
            .map_init(
                || Expansion::new(glwe, &rotation.gadget, &rotation.fft),
                |expansion, (block, bodies)| {
                    let mut table = zeros(shape.table_len(rotation.fft.fourier_size()));
                    for (index, bodies) in bodies.chunks_exact(row_bytes).enumerate() {
                        let put = |transform: &[c64], row, column| shape.set(&mut table, transform, index, row, column);
                        let at = first_mask + ((block * shape.block + index) * shape.rows) as u64;
                        expansion.ggsw(masks, at, (bodies, body_bits), put, |_, _| {});
                    }
                    table
                },
            )
            .collect();
        let ggsw_masks = u64::from(params.lwe.dimension) * shape.rows as u64;
        let first_word = (first_mask + ggsw_masks) * u64::from(glwe.lwe_dimension());
        let keyswitch = params
            .keyswitch
            .map(|gadget| KeyswitchKey::expand(glwe, &params.lwe, gadget, masks, first_word, keyswitching));
        PartitionKey { glwe: *glwe, params: *params, rotation, blocks, keyswitch }
    }

    fn memory_bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|table| size_of_val::<[f64]>(table)).sum();
        blocks + self.keyswitch.as_ref().map_or(0, KeyswitchKey::memory_bytes)
    }
}
