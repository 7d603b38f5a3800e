//! The evaluation key that a server bootstraps with: the small key's bits as GGSWs under the GLWE key, and the GLWE key's
//! bits under the small key. Seeded: only bodies travel.

use crate::encrypt::Encryptor;
use crate::key::ClientKey;
use crate::random::{Noise, public_seed, system_bytes};
use rayon::prelude::*;
use tacit_ir::artifact::v1::{bootstrapping_row_bytes, evaluation_key_bytes, key_body_bits};
use tacit_ir::artifact::{Container, Kind, SectionId, encode};
use tacit_ir::diag::{Diagnostic, Result};
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
        let Some(params) = layout.bootstrap else { return Ok(None) };
        let seed = public_seed();
        let noise_key = Zeroizing::new(system_bytes());
        let mut section = Vec::with_capacity(evaluation_key_bytes(layout) as usize);
        section.extend_from_slice(&seed);
        let start = section.len();
        let row_bytes = bootstrapping_row_bytes(layout, &params) as usize;
        section.resize(start + row_bytes * self.small.len(), 0);
        let rows = params.gadget.levels as usize * (layout.glwe.dimension as usize + 1);
        section[start..].par_chunks_exact_mut(row_bytes).zip(self.small.par_iter()).enumerate().for_each_init(
            || Encryptor::new(self, MaskStream::new(seed), &noise_key),
            |encryptor, (at, (place, bit))| {
                let bodies = encryptor.ggsw(&params.gadget, at * rows, at as u64, *bit == 1);
                let mut packed = Vec::with_capacity(row_bytes);
                bits::pack(&bodies, key_body_bits(layout), &mut packed);
                place.copy_from_slice(&packed);
            },
        );
        if let Some(gadget) = params.keyswitch {
            let n = self.small.len();
            let first = (n * rows) as u64 * u64::from(layout.glwe.lwe_dimension());
            let levels = gadget.levels as usize;
            let std = (32.0 + params.lwe.log2_std).exp2();
            let masks = MaskStream::new(seed);
            let bodies: Vec<Vec<u8>> = self
                .bits
                .par_iter()
                .enumerate()
                .map(|(at, bit)| {
                    // Noise streams behind those of the GGSWs.
                    let mut noise = Noise::new(&noise_key, (n + at) as u64);
                    let mut words = vec![0u64; n];
                    let mut out = Vec::with_capacity(4 * levels);
                    for level in 1..=gadget.levels {
                        let row = at as u64 * u64::from(gadget.levels) + u64::from(level) - 1;
                        masks.fill(first + row * n as u64, &mut words);
                        let product = words.iter().zip(self.small.iter()).fold(0u32, |sum, (word, bit)| {
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
        if section.len() as u64 != evaluation_key_bytes(layout) {
            return Err(Diagnostic::internal("an evaluation key of the wrong length"));
        }
        let sections = vec![(SectionId::HEADER, encode(layout)?), (SectionId::KEY, section)];
        Ok(Some(Container { kind: Kind::EvaluationKey, digest: self.digest, sections }.write()))
    }
}
