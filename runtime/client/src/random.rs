//! Randomness: seeds from tfhe's seeders (RDSEED or the operating system), streams from ChaCha20.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};
use tfhe::core_crypto::seeders::new_seeder;
use zeroize::Zeroizing;

/// A fresh 128-bit seed, which may be published.
pub(crate) fn public_seed() -> [u8; 16] {
    new_seeder().seed().0.to_le_bytes()
}

/// 256 fresh secret bits.
pub(crate) fn system_bytes() -> Zeroizing<[u8; 32]> {
    let mut seeder = new_seeder();
    let mut bytes = Zeroizing::new([0; 32]);
    let (low, high) = bytes.split_at_mut(16);
    low.copy_from_slice(&seeder.seed().0.to_le_bytes());
    high.copy_from_slice(&seeder.seed().0.to_le_bytes());
    bytes
}

/// A stream of secret noise. Streams of one key with different numbers are independent.
pub(crate) struct Noise(ChaCha20Rng);

impl Noise {
    pub(crate) fn new(key: &[u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(*key);
        rng.set_stream(stream);
        Noise(rng)
    }

    pub(crate) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }

    /// Adds rounded Gaussian noise of this standard deviation (in units of `2^-64`) to each value. The sampler (the
    /// ziggurat of `rand_distr`) has exact tails; its resolution is that of a double, below one unit.
    pub(crate) fn add_gaussian(&mut self, values: &mut [u64], std: f64) {
        for value in values {
            let sample: f64 = StandardNormal.sample(&mut self.0);
            let scaled = sample * std;
            // A cast truncates; half a unit outwards first makes that rounding, without a call into the maths library.
            *value = value.wrapping_add((scaled + 0.5f64.copysign(scaled)) as i64 as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        let mut values = vec![0u64; 200_000];
        Noise::new(&system_bytes(), 3).add_gaussian(&mut values, 5000.0);
        let moment = |power: i32| {
            values.iter().map(|v| (*v as i64 as f64 / 5000.0).powi(power)).sum::<f64>() / values.len() as f64
        };
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.2);
    }

    #[test]
    fn seeds_and_streams_differ() {
        assert_ne!(public_seed(), public_seed());
        let key = system_bytes();
        let (mut a, mut b) = (vec![0; 8], vec![0; 8]);
        Noise::new(&key, 0).add_gaussian(&mut a, 1e9);
        Noise::new(&key, 1).add_gaussian(&mut b, 1e9);
        assert_ne!(a, b);
    }
}
