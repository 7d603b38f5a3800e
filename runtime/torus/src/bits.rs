//! The top bits of torus values, rounded and packed without gaps, least significant bit first.

/// Appends the `bits` top bits (1..=64) of each value, rounded to nearest, to `out`; pads the last byte with zeros.
pub fn pack(values: &[u64], bits: u32, out: &mut Vec<u8>) {
    let mut pending: u128 = 0;
    let mut held = 0;
    let drop = 64 - bits;
    let half = if drop == 0 { 0 } else { 1u64 << (drop - 1) };
    for value in values {
        pending |= u128::from(value.wrapping_add(half) >> drop) << held;
        held += bits;
        if held >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            held -= 64;
        }
    }
    let rest = held.div_ceil(8) as usize;
    out.extend_from_slice(&pending.to_le_bytes()[..rest]);
}

/// Reads as many values of `bits` bits (1..=64) as `out` holds, each moved to the top of its word. Missing bytes read
/// as zeros; callers check lengths before.
pub fn unpack(bytes: &[u8], bits: u32, out: &mut [u64]) {
    let drop = 64 - bits;
    let mut words = bytes.chunks(8).map(|chunk| match chunk.try_into() {
        Ok(word) => u64::from_le_bytes(word),
        Err(_) => chunk.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    });
    let mut pending: u128 = 0;
    let mut held = 0;
    for value in out {
        if held < bits {
            pending |= u128::from(words.next().unwrap_or(0)) << held;
            held += 64;
        }
        *value = (pending as u64) << drop;
        pending >>= bits;
        held -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_top_bits_and_back() {
        let values: Vec<u64> = (0..1000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        for bits in 1..=64 {
            for count in [1, 7, 8, 1000] {
                let mut packed = Vec::new();
                pack(&values[..count], bits, &mut packed);
                assert_eq!(packed.len() as u64, (count as u64 * u64::from(bits)).div_ceil(8));
                let mut back = vec![0; count];
                unpack(&packed, bits, &mut back);
                for (value, back) in values.iter().zip(&back) {
                    let error = back.wrapping_sub(*value) as i64;
                    assert!(bits == 64 && error == 0 || error.unsigned_abs() <= 1 << (63 - bits), "{bits}");
                }
            }
        }
    }
}
