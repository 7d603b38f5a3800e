//! The evaluation key that a server bootstraps with: for each partition the small key's bits as GGSWs under the GLWE key, and
//! the GLWE key's bits under the small key. Seeded: only bodies travel.

use crate::encrypt::Encryptor;
use crate::key::ClientKey;
use crate::random::{Noise, public_seed, system_bytes};
use rayon::prelude::*;
use tacit_ir::artifact::v1::{bootstrapping_row_bytes, evaluation_key_bytes, key_body_bits, partition_masks};
use tacit_ir::artifact::{Container, Kind, SectionId, encode};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::params::{BootstrapParams, GadgetParams};
use tacit_torus::bits;
use tacit_torus::masks::MaskStream;
use zeroize::Zeroizing;

impl ClientKey {
    /// The evaluation key file of this key, `None` where the circuit needs none. In parallel on the current rayon pool;
    /// twice the same key gives different files.
    ///
    /// # Errors
    ///
    /// An internal error when the header cannot be encoded.
    pub fn evaluation_key(&self) -> Result<Option<Vec<u8>>> {
        let layout = &self.layout;
        if layout.partitions.is_empty() {
            return Ok(None);
        }
        let seed = public_seed();
        let noise_key = Zeroizing::new(system_bytes());
        let mut section = Vec::with_capacity(evaluation_key_bytes(layout) as usize);
        section.extend_from_slice(&seed);
        let mut streams = Streams { seed, noise_key: &noise_key, first_mask: 0, first_noise: 0 };
        for (params, small) in layout.partitions.iter().zip(&self.small) {
            self.bootstrapping_key(params, small, &streams, &mut section);
            if let Some(gadget) = params.keyswitch {
                self.keyswitching_key(params, gadget, small, &streams, &mut section);
            }
            streams.first_mask += partition_masks(&layout.glwe, params);
            streams.first_noise += (small.len() + self.bits.len()) as u64;
        }
        if section.len() as u64 != evaluation_key_bytes(layout) {
            return Err(Diagnostic::internal("an evaluation key of the wrong length"));
        }
        let sections = vec![(SectionId::HEADER, encode(layout)?), (SectionId::KEY, section)];
        Ok(Some(Container { kind: Kind::EvaluationKey, digest: self.digest, sections }.write()))
    }

    /// Appends the bodies of a GGSW for each bit of a small key.
    fn bootstrapping_key(&self, params: &BootstrapParams, small: &[u8], streams: &Streams<'_>, section: &mut Vec<u8>) {
        let layout = &self.layout;
        let start = section.len();
        let row_bytes = bootstrapping_row_bytes(&layout.glwe, params) as usize;
        section.resize(start + row_bytes * small.len(), 0);
        let rows = params.gadget.levels as usize * (layout.glwe.dimension as usize + 1);
        section[start..].par_chunks_exact_mut(row_bytes).zip(small.par_iter()).enumerate().for_each_init(
            || Encryptor::new(self, MaskStream::new(streams.seed), streams.noise_key),
            |encryptor, (at, (place, bit))| {
                let first = streams.first_mask as usize + at * rows;
                let bodies = encryptor.ggsw(&params.gadget, first, streams.first_noise + at as u64, *bit == 1);
                let mut packed = Vec::with_capacity(row_bytes);
                bits::pack(&bodies, key_body_bits(&layout.glwe), &mut packed);
                place.copy_from_slice(&packed);
            },
        );
    }

    /// Appends the bodies of the GLWE key's bits, each at every level, under a small key.
    fn keyswitching_key(
        &self,
        params: &BootstrapParams,
        gadget: GadgetParams,
        small: &[u8],
        streams: &Streams<'_>,
        section: &mut Vec<u8>,
    ) {
        let glwe = &self.layout.glwe;
        let n = small.len();
        let ggsw_masks = n as u64 * u64::from(params.gadget.levels * (glwe.dimension + 1));
        let first_word = (streams.first_mask + ggsw_masks) * u64::from(glwe.lwe_dimension());
        let std = (32.0 + params.lwe.log2_std).exp2();
        let masks = MaskStream::new(streams.seed);
        let bodies: Vec<Vec<u8>> = self
            .bits
            .par_iter()
            .enumerate()
            .map(|(at, bit)| {
                // Noise streams behind those of the GGSWs.
                let mut noise = Noise::new(streams.noise_key, streams.first_noise + (n + at) as u64);
                let mut words = vec![0u64; n];
                let mut out = Vec::with_capacity(4 * gadget.levels as usize);
                for level in 1..=gadget.levels {
                    let row = at as u64 * u64::from(gadget.levels) + u64::from(level) - 1;
                    masks.fill(first_word + row * n as u64, &mut words);
                    let product = words.iter().zip(small).fold(0u32, |sum, (word, bit)| {
                        sum.wrapping_add(((word >> 32) as u32).wrapping_mul(u32::from(*bit)))
                    });
                    let message = u32::from(*bit) << (32 - gadget.base_log * level);
                    let mut error = [0u64];
                    noise.add_gaussian(&mut error, std);
                    let body = product.wrapping_add(message).wrapping_add(error[0] as u32);
                    out.extend_from_slice(&body.to_le_bytes());
                }
                out
            })
            .collect();
        section.extend(bodies.into_iter().flatten());
    }
}

/// Where a partition's masks and noise come from: no two rows share either.
struct Streams<'a> {
    seed: [u8; 16],
    noise_key: &'a [u8; 32],
    /// Number of the first mask, of kN words each.
    first_mask: u64,
    /// Number of the first stream of noise.
    first_noise: u64,
}
