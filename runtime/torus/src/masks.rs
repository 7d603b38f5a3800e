//! Masks of seeded ciphertexts: AES-128 in counter mode, the seed as its key.
//!
//! A seed is fresh and random for each row of a query, and its stream is cut into disjoint parts by position, so no
//! mask is ever used twice. The masks are public; they only have to look uniform.

use aes::Aes128;
use ctr::Ctr128LE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

/// The masks of one row.
#[derive(Clone, Copy, Debug)]
pub struct MaskStream {
    seed: [u8; 16],
}

impl MaskStream {
    /// The stream of a seed.
    pub fn new(seed: [u8; 16]) -> Self {
        MaskStream { seed }
    }

    /// Fills `out` with the words of the stream from word `position` on.
    pub fn fill(&self, position: u64, out: &mut [u64]) {
        let mut cipher: Ctr128LE<Aes128> = Ctr128LE::new(&self.seed.into(), &[0; 16].into());
        out.fill(0);
        cipher.seek(u128::from(position) * 8);
        cipher.apply_keystream(bytemuck::cast_slice_mut(out));
        if cfg!(target_endian = "big") {
            for word in out {
                *word = word.swap_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_agree_with_the_whole() {
        let stream = MaskStream::new([7; 16]);
        let mut whole = vec![0; 1024];
        stream.fill(0, &mut whole);
        let mut part = vec![1; 100];
        stream.fill(511, &mut part);
        assert_eq!(part, whole[511..611]);
        let mut other = vec![0; 1024];
        MaskStream::new([8; 16]).fill(0, &mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn the_stream_is_aes_of_the_little_endian_counter() {
        // FIPS 197, appendix B key, blocks 0 and 1: fixed so that the format cannot change unseen.
        let stream = MaskStream::new([0; 16]);
        let mut words = [0; 2];
        stream.fill(0, &mut words);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        // AES-128 of the zero block under the zero key (NIST AESAVS).
        assert_eq!(
            bytes,
            [0x66, 0xe9, 0x4b, 0xd4, 0xef, 0x8a, 0x2c, 0x3b, 0x88, 0x4c, 0xfa, 0x59, 0xca, 0x34, 0x2b, 0x2e]
        );
    }
}
