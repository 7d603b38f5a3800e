//! Encryption parameters as data, and the security curve they must stay on.

use serde::{Deserialize, Serialize};

/// A GLWE parameter set over the 64-bit torus with a binary secret key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlweParams {
    /// Number of mask polynomials, k.
    pub dimension: u32,
    /// Coefficients per polynomial, N, a power of two.
    pub polynomial_size: u32,
    /// Standard deviation of the fresh Gaussian noise as a fraction of the torus, base-2 logarithm.
    pub log2_std: f64,
}

/// The gadget decomposition of a GGSW: base `2^base_log`, `levels` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GadgetParams {
    /// Base-2 logarithm of the decomposition base.
    pub base_log: u32,
    /// Number of levels.
    pub levels: u32,
}

/// LWE ciphertexts under a *block-binary* secret key: in each run of `block` consecutive key bits at most one is 1, each
/// of the block+1 cases equally likely (Lee, Min, Seo, Song, "Faster TFHE bootstrapping with block binary keys", AsiaCCS
/// 2023). Block 1 is a plain binary key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LweParams {
    /// Number of mask elements, n, a multiple of `block`.
    pub dimension: u32,
    /// Standard deviation of the fresh Gaussian noise as a fraction of the torus, base-2 logarithm.
    pub log2_std: f64,
    /// Length of a block, 1 to 3.
    pub block: u32,
}

/// Most bits of a digit of a keyswitch, so that a digit fits 16 bits.
pub const KEYSWITCH_BASE_LOG: u32 = 15;

/// A partition: what the bootstraps that share a small key need beside the GLWE parameters of their outputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootstrapParams {
    /// The small key, under which the argument of a bootstrap is encrypted.
    pub lwe: LweParams,
    /// Decomposition of the keyswitch from the flattened GLWE key to the small key; `None` when no value needs it.
    pub keyswitch: Option<GadgetParams>,
    /// Decomposition of the blind rotation.
    pub gadget: GadgetParams,
    /// Number of mask polynomials of inputs encrypted under the small key; they have `lwe.dimension / small_dimension`
    /// coefficients each. 0 when there are none.
    pub small_dimension: u32,
}

impl BootstrapParams {
    /// The largest k that blind rotations are written for.
    pub const MAX_GLWE_DIMENSION: u32 = 4;
    /// Most partitions of a circuit.
    pub const MAX_PARTITIONS: usize = 16;
    /// Levels of the keyswitch, 0 where there is none.
    pub fn keyswitch_levels(&self) -> u32 {
        self.keyswitch.map_or(0, |gadget| gadget.levels)
    }
}

impl LweParams {
    /// The parameters of this dimension with the least noise allowed.
    ///
    /// The curve is that of binary keys. For block-binary keys it was estimated as a sparse binary key of the same weight
    /// (lattice estimator, June 2026, RC.BDGL16, q = 2^64): n = 768 at 2^-16.46 gives 134.4 bits for block 1, 133.6 for
    /// block 2, 131.6 for block 3; n = 840 at 2^-17.5 gives 136.9 bits for block 3. See `spec/security.md`.
    pub fn secure(dimension: u32, block: u32) -> Self {
        LweParams { dimension, log2_std: minimal_log2_std(f64::from(dimension)), block }
    }
    /// Variance of the fresh noise, as a fraction of the squared torus.
    pub fn variance(&self) -> f64 {
        (2.0 * self.log2_std).exp2()
    }
    /// The share of key bits that are 1, and the mean square of one.
    pub fn density(&self) -> f64 {
        1.0 / (f64::from(self.block) + 1.0)
    }
    /// Whether the shape is one the estimates cover and the noise is at or above the curve.
    pub fn is_secure(&self) -> bool {
        (1..=3).contains(&self.block)
            && (600..=1280).contains(&self.dimension)
            && self.dimension.is_multiple_of(self.block)
            && self.log2_std >= minimal_log2_std(f64::from(self.dimension)) - 1e-9
    }
}

impl GlweParams {
    /// The parameter set of this shape with the least noise that the security curve allows.
    pub fn secure(dimension: u32, polynomial_size: u32) -> Self {
        let log2_std = minimal_log2_std(f64::from(dimension) * f64::from(polynomial_size));
        GlweParams { dimension, polynomial_size, log2_std }
    }
    /// k*N, the dimension of the lattice problem and of an extracted LWE ciphertext.
    pub fn lwe_dimension(&self) -> u32 {
        self.dimension * self.polynomial_size
    }
    /// Coefficients of a whole ciphertext, (k+1)*N.
    pub fn ciphertext_len(&self) -> usize {
        (self.dimension as usize + 1) * self.polynomial_size as usize
    }
    /// Variance of the fresh noise, as a fraction of the squared torus.
    pub fn variance(&self) -> f64 {
        (2.0 * self.log2_std).exp2()
    }
    /// Whether the noise is at or above the security curve's (up to rounding of the logarithm).
    pub fn is_secure(&self) -> bool {
        self.log2_std >= minimal_log2_std(f64::from(self.lwe_dimension())) - 1e-9
    }
}

/// log2 of the least standard deviation (fraction of the torus, modulus 2^64, binary key, Gaussian noise) for 132
/// bits of security at this LWE dimension.
///
/// Source: tfhe-rs 1.8.2, `minimal_lwe_variance_for_132_bits_security_gaussian`, a fit to the lattice estimator;
/// a test in `tests/` compares the two.
pub fn minimal_log2_std(lwe_dimension: f64) -> f64 {
    // 2.88539008177793 is 2/ln 2, so the first term is 2^(4 - 2*64): never below two bits of the modulus.
    let floor = (4.0 - 2.885_390_081_777_93 * (64.0 * std::f64::consts::LN_2)).exp2();
    let curve = (5.314_691_876_750_68 - 0.049_782_913_165_266_1 * lwe_dimension).exp2();
    0.5 * (floor + curve).log2()
}
