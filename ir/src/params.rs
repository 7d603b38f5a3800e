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
    /// Most tables that one blind rotation turns.
    pub const MAX_RESULTS: u32 = 8;
    /// Whether one blind rotation may give so many results.
    pub fn may_give(results: u32) -> bool {
        results.is_power_of_two() && results <= BootstrapParams::MAX_RESULTS
    }
    /// Levels of the keyswitch, 0 where there is none.
    pub fn keyswitch_levels(&self) -> u32 {
        self.keyswitch.map_or(0, |gadget| gadget.levels)
    }
}

impl LweParams {
    /// The parameters of this dimension with the least noise allowed.
    pub fn secure(dimension: u32, block: u32) -> Self {
        LweParams { dimension, log2_std: Self::minimal_log2_std(dimension, block), block }
    }
    /// log2 of the least standard deviation at this dimension and block length.
    fn minimal_log2_std(dimension: u32, block: u32) -> f64 {
        let curve = if block == 1 { minimal_log2_std } else { minimal_block_log2_std };
        curve(f64::from(dimension))
    }
    /// log2 of the operations that the cheapest known attack takes, from [`BLOCK_KEY_ESTIMATES`]: the lesser of the rows
    /// around this dimension, since more noise than the curve's only costs more. `None` for plain binary keys, whose curve
    /// is a fit to estimates, and for parameters that are not [secure](Self::is_secure).
    pub fn estimated_bits(&self) -> Option<f64> {
        let above = BLOCK_KEY_ESTIMATES.partition_point(|row| row.0 < self.dimension);
        let at = above.saturating_sub(usize::from(BLOCK_KEY_ESTIMATES.get(above)?.0 > self.dimension));
        let least = BLOCK_KEY_ESTIMATES[at..=above].iter().map(|row| row.1.min(row.2)).reduce(f64::min);
        least.filter(|_| self.block > 1 && self.is_secure())
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
            && self.log2_std >= Self::minimal_log2_std(self.dimension, self.block) - 1e-9
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

/// The same for block-binary keys in blocks of two or three: a line above the noise at which the cheapest known attack on
/// blocks of three takes 2^128 operations, at 600 to 1,280.
///
/// Source: `spec/estimates/block_binary.py`; derivation in `spec/security.md`.
pub fn minimal_block_log2_std(dimension: f64) -> f64 {
    5.07 - 0.026_37 * dimension
}

/// log2 of the operations to recover a key in blocks of three on the curve: dimension, primal and dual hybrid attacks.
///
/// Source: `spec/estimates/block_binary.py`; a test compares `spec/security.md`.
pub const BLOCK_KEY_ESTIMATES: [(u32, f64, f64); 27] = [
    (600, 150.5, 128.0),
    (624, 149.7, 128.1),
    (648, 149.0, 128.1),
    (672, 148.3, 128.1),
    (696, 147.8, 128.1),
    (720, 147.1, 128.2),
    (744, 146.5, 128.2),
    (768, 146.0, 128.2),
    (792, 145.5, 128.2),
    (816, 144.9, 128.2),
    (840, 144.5, 128.1),
    (864, 144.0, 128.1),
    (888, 143.5, 128.1),
    (912, 143.2, 128.1),
    (936, 142.7, 128.1),
    (960, 142.4, 128.1),
    (984, 142.0, 128.2),
    (1008, 141.6, 128.2),
    (1032, 141.4, 128.1),
    (1056, 141.0, 128.1),
    (1080, 140.7, 128.1),
    (1104, 140.4, 128.1),
    (1128, 140.2, 128.1),
    (1152, 139.9, 128.1),
    (1176, 139.6, 128.1),
    (1200, 139.4, 128.0),
    (1280, 138.6, 128.0),
];
