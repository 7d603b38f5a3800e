//! What the client and the server both compute on polynomials over the 64-bit torus (`u64`, wrapping), in
//! `Z[X]/(X^N + 1)`.
//!
//! - [`fft`]: the negacyclic FFT in double precision (on `tfhe-fft`'s plans), with the conversions on both ends fused
//!   into one vectorised pass;
//! - [`blocks`]: the pointwise work of bootstrapping with block-binary keys;
//! - [`exact`]: products that come out exact, by splitting one operand;
//! - [`masks`]: the masks of seeded ciphertexts;
//! - [`bits`]: rounding coefficients to their top bits and packing them.

pub mod bits;
pub mod blocks;
pub mod exact;
pub mod fft;
pub mod masks;

pub use aligned_vec::{ABox, AVec};
pub use tfhe_fft::c64;
