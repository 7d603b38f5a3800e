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
