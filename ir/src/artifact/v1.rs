//! Contents of keys, queries and results since format version 1. Each struct is one postcard section.
//!
//! Ciphertexts are not postcard: they are raw bytes whose exact length the [`Layout`] fixes, so that a query of many
//! megabytes is read without copying and a wrong length is found at once. See [`query_row_bytes`] and
//! [`result_row_bytes`].

use crate::diag::{Code, Diagnostic, Result};
use crate::params::{BootstrapParams, GlweParams};
use crate::plan::Layout;
use serde::{Deserialize, Serialize};

/// Bytes of the seed that the masks of one row are expanded from: an AES-128 key.
pub const SEED_BYTES: usize = 16;

/// Rows that one query may have.
pub const MAX_ROWS: u32 = 1 << 20;

/// Section [`HEADER`](super::SectionId::HEADER) of a query and of a result: repeated here so that a mismatch can be
/// told from damage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// Number of rows (samples).
    pub rows: u32,
    /// The layout the rows are encoded under.
    pub layout: Layout,
}

/// Section [`KEY`](super::SectionId::KEY) of a client key.
#[allow(missing_debug_implementations, reason = "secrets are not printed")]
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum KeySection {
    /// The key itself, a postcard [`SecretKey`]: `(layout, bits)`.
    Clear(Vec<u8>),
    /// The same, encrypted with XChaCha20-Poly1305 under a key that Argon2id derives from a passphrase.
    Sealed {
        /// Argon2id salt.
        salt: [u8; 16],
        /// Argon2id memory in KiB.
        memory_kib: u32,
        /// Argon2id passes.
        passes: u32,
        /// Nonce of the cipher.
        nonce: [u8; 24],
        /// Ciphertext and tag.
        ciphertext: Vec<u8>,
    },
}

/// What a [`KeySection`] holds.
#[allow(missing_debug_implementations, reason = "secrets are not printed")]
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretKey {
    /// The layout the key was made for.
    pub layout: Layout,
    /// The k*N bits of the binary GLWE key, polynomial after polynomial, lowest degree first, eight a byte from the
    /// least significant bit.
    pub bits: Vec<u8>,
    /// The n bits of each partition's small LWE key in the same way.
    pub small: Vec<Vec<u8>>,
}

impl std::fmt::Debug for KeySection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeySection::Clear(_) => "KeySection::Clear(secret)",
            KeySection::Sealed { .. } => "KeySection::Sealed",
        })
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(secret)")
    }
}

/// Bytes of one seeded GGSW: `(k+1) * levels` bodies of N coefficients, `body_bits` each, the whole rounded up to
/// whole bytes.
pub fn selector_bytes(layout: &Layout) -> u64 {
    let rows = layout.gadget.map_or(0, |gadget| u64::from(gadget.levels) * (u64::from(layout.glwe.dimension) + 1));
    packed_bytes(rows * u64::from(layout.glwe.polynomial_size), layout.body_bits)
}

/// Bytes of one seeded packed input: the N coefficients of its body.
pub fn packed_input_bytes(layout: &Layout) -> u64 {
    packed_bytes(u64::from(layout.glwe.polynomial_size), layout.body_bits)
}

/// Bytes of one row of a query: seed, selectors, packed inputs.
pub fn query_row_bytes(layout: &Layout) -> u64 {
    SEED_BYTES as u64
        + u64::from(layout.selectors) * selector_bytes(layout)
        + u64::from(layout.packed_inputs) * packed_input_bytes(layout)
        + u64::from(layout.small_inputs) * small_input_bytes(layout)
}

/// Bytes of one seeded input under a small key: the coefficients of its body.
pub fn small_input_bytes(layout: &Layout) -> u64 {
    packed_bytes(u64::from(layout.small_size()), small_body_bits(layout))
}

/// Bits kept of each body coefficient of an input under the small key.
pub fn small_body_bits(layout: &Layout) -> u32 {
    layout.input_partition().map_or(0, |(_, params)| crate::noise::body_bits(params.lwe.log2_std))
}

/// Words of the mask stream before the masks of the inputs under the small key: those of selectors and packed inputs.
pub fn small_masks_start(layout: &Layout) -> u64 {
    let rows = layout.gadget.map_or(0, |gadget| u64::from(gadget.levels) * (u64::from(layout.glwe.dimension) + 1));
    let ciphertexts = u64::from(layout.selectors) * rows + u64::from(layout.packed_inputs);
    ciphertexts * u64::from(layout.glwe.lwe_dimension())
}

/// Bytes of one LWE result: the mask and the body of each value.
pub fn lwe_result_bytes(layout: &Layout, values: u32) -> u64 {
    packed_bytes((u64::from(layout.glwe.lwe_dimension()) + 1) * u64::from(values), layout.result_bits)
}

/// Bytes of a client key's bits: the GLWE key, and the small key of each partition.
pub fn client_key_bytes(layout: &Layout) -> u64 {
    let small = layout.partitions.iter().map(|params| packed_bytes(u64::from(params.lwe.dimension), 1));
    packed_bytes(u64::from(layout.glwe.lwe_dimension()), 1) + small.sum::<u64>()
}

/// Bytes of a partition's seeded bootstrapping key: for each bit of the small key the bodies of a GGSW.
pub fn bootstrapping_key_bytes(glwe: &GlweParams, params: &BootstrapParams) -> u64 {
    u64::from(params.lwe.dimension) * bootstrapping_row_bytes(glwe, params)
}

/// Bytes of one GGSW of a bootstrapping key: `(k+1) * levels` bodies of N coefficients.
pub fn bootstrapping_row_bytes(glwe: &GlweParams, params: &BootstrapParams) -> u64 {
    let rows = u64::from(params.gadget.levels) * (u64::from(glwe.dimension) + 1);
    packed_bytes(rows * u64::from(glwe.polynomial_size), key_body_bits(glwe))
}

/// Bits kept of each body of a bootstrapping key.
pub fn key_body_bits(glwe: &GlweParams) -> u32 {
    crate::noise::body_bits(glwe.log2_std)
}

/// Bytes of a partition's seeded keyswitching key: 32-bit bodies, `levels` for each bit of the flattened GLWE key.
pub fn keyswitching_key_bytes(glwe: &GlweParams, params: &BootstrapParams) -> u64 {
    4 * u64::from(params.keyswitch_levels()) * u64::from(glwe.lwe_dimension())
}

/// Bytes of a partition's bootstrapping and keyswitching key.
pub fn partition_key_bytes(glwe: &GlweParams, params: &BootstrapParams) -> u64 {
    bootstrapping_key_bytes(glwe, params) + keyswitching_key_bytes(glwe, params)
}

/// Bytes of an evaluation key's section: a seed, and each partition's bootstrapping and keyswitching key. 0 where none is
/// needed.
pub fn evaluation_key_bytes(layout: &Layout) -> u64 {
    let all: u64 = layout.partitions.iter().map(|params| partition_key_bytes(&layout.glwe, params)).sum();
    if all == 0 { 0 } else { SEED_BYTES as u64 + all }
}

/// Masks of an evaluation key's stream, kN words each, that one partition's keys take: one for each row of the GGSWs, and as
/// many words for the rows of the keyswitching key, n for each of kN bits and each level.
pub fn partition_masks(glwe: &GlweParams, params: &BootstrapParams) -> u64 {
    let rows = params.gadget.levels * (glwe.dimension + 1);
    u64::from(params.lwe.dimension) * u64::from(rows + params.keyswitch_levels())
}

/// Bytes of one result ciphertext with `slots` body coefficients: k masks of N coefficients, then the bodies, all of
/// `result_bits` bits. One coefficient needs its own mask just as many do: all share the k masks.
pub fn result_bytes(layout: &Layout, slots: u32) -> u64 {
    let masks = u64::from(layout.glwe.dimension) * u64::from(layout.glwe.polynomial_size);
    packed_bytes(masks + u64::from(slots), layout.result_bits)
}

/// Bytes of one row of a result: all its ciphertexts.
pub fn result_row_bytes(layout: &Layout) -> u64 {
    let glwe: u64 = layout.result_slots.iter().map(|slots| result_bytes(layout, *slots)).sum();
    glwe + layout.lwe_results.iter().map(|values| lwe_result_bytes(layout, *values)).sum::<u64>()
}

/// Bytes that `count` values of `bits` bits take.
pub fn packed_bytes(count: u64, bits: u32) -> u64 {
    (count * u64::from(bits)).div_ceil(8)
}

impl BatchHeader {
    /// Checks a header against the circuit's layout and the length of the rows' section.
    ///
    /// # Errors
    ///
    /// [`Code::NotConformant`].
    pub fn check(&self, layout: &Layout, row_bytes: u64, section_bytes: usize) -> Result<()> {
        let BatchHeader { rows, layout: own } = self;
        if own != layout {
            return Err(Diagnostic::new(
                Code::NotConformant,
                "the file was made under other parameters than the circuit's",
            ));
        }
        if *rows == 0 || *rows > MAX_ROWS {
            return Err(Diagnostic::new(
                Code::NotConformant,
                format!("the file has {rows} rows; between 1 and {MAX_ROWS} are possible"),
            ));
        }
        let expected = u64::from(*rows) * row_bytes;
        if expected != section_bytes as u64 {
            return Err(Diagnostic::new(
                Code::NotConformant,
                format!("{rows} rows take {expected} bytes, the file has {section_bytes}"),
            ));
        }
        Ok(())
    }
}
