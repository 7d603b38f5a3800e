//! The secret key: made on the client, kept on the client.

use crate::random::{Noise, system_bytes};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;
use tacit_ir::artifact::v1::{KeySection, SecretKey};
use tacit_ir::artifact::{CircuitDigest, Container, Kind, SectionId, View, decode, encode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::plan::check_layout;
use tacit_ir::params::LweParams;
use tacit_ir::plan::Layout;
use tacit_torus::fft::Fft;
use tacit_torus::{AVec, c64};
use zeroize::{Zeroize, Zeroizing};

/// Argon2id cost of new files: 64 MiB, three passes (RFC 9106, second recommended option).
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// Costs accepted from a file, so that a hostile one cannot exhaust memory or time.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;

/// A binary GLWE secret key and what encryption precomputes from it. Zeroized when dropped; neither printed nor cloned.
pub struct ClientKey {
    pub(crate) digest: CircuitDigest,
    pub(crate) layout: Layout,
    /// The k*N bits, one a byte.
    pub(crate) bits: Zeroizing<Vec<u8>>,
    pub(crate) fft: Fft,
    /// Transforms of the k key polynomials in units of `2^-64`.
    pub(crate) fourier: Vec<AVec<c64>>,
    /// The n bits of each partition's small key, one a byte.
    pub(crate) small: Vec<Zeroizing<Vec<u8>>>,
    /// Transforms of the polynomials of the small key under which inputs are, and the plan for them.
    pub(crate) small_fourier: Vec<AVec<c64>>,
    pub(crate) small_fft: Option<Fft>,
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientKey(secret)")
    }
}

impl Drop for ClientKey {
    fn drop(&mut self) {
        for value in self.fourier.iter_mut().chain(&mut self.small_fourier).flat_map(|poly| poly.iter_mut()) {
            value.re.zeroize();
            value.im.zeroize();
        }
    }
}

impl ClientKey {
    /// A fresh key for a circuit, from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// [`Code::NotConformant`] when the layout's parameters are not sane and secure.
    pub fn generate(layout: &Layout, digest: CircuitDigest) -> Result<Self> {
        check_layout(layout)?;
        let mut random = Noise::new(&system_bytes(), 0);
        let mut bits = Zeroizing::new(vec![0u8; layout.glwe.lwe_dimension() as usize]);
        random.rng().fill_bytes(&mut bits);
        for bit in bits.iter_mut() {
            *bit &= 1;
        }
        let small = layout.partitions.iter().map(|params| block_binary(&params.lwe, &mut random)).collect();
        Ok(Self::assemble(layout.clone(), digest, bits, small))
    }

    fn assemble(
        layout: Layout,
        digest: CircuitDigest,
        bits: Zeroizing<Vec<u8>>,
        small: Vec<Zeroizing<Vec<u8>>>,
    ) -> Self {
        let fft = Fft::new(layout.glwe.polynomial_size as usize);
        let fourier = transforms(&fft, &bits);
        let small_fft = (layout.small_inputs > 0).then(|| Fft::new(layout.small_size() as usize));
        let inputs = small_fft.as_ref().zip(layout.input_partition());
        let small_fourier = inputs.map_or_else(Vec::new, |(fft, (at, _))| transforms(fft, &small[at]));
        ClientKey { digest, layout, bits, fft, fourier, small, small_fourier, small_fft }
    }

    /// The circuit the key was made for.
    pub fn digest(&self) -> &CircuitDigest {
        &self.digest
    }

    /// The layout the key was made for.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A name of the key that tells nothing about it: the SHA-256 digest of its bits, of which there are more than 500.
    pub fn fingerprint(&self) -> [u8; 32] {
        let label: &[u8] = b"tacit client key";
        let small = self.small.iter().map(|bits| bits.as_slice());
        tacit_ir::artifact::digest(&[label, &self.digest, &self.bits].into_iter().chain(small).collect::<Vec<_>>())
    }

    /// Checks that the key was made for this circuit.
    ///
    /// # Errors
    ///
    /// [`Code::OtherCircuit`] and [`Code::NotConformant`].
    pub fn check(&self, layout: &Layout, digest: &CircuitDigest) -> Result<()> {
        if self.digest != *digest {
            return Err(Diagnostic::new(Code::OtherCircuit, "the client key belongs to another circuit")
                .help("use the key that was made with this artifact, or make one with `tacit keygen`"));
        }
        if self.layout != *layout {
            return Err(Diagnostic::new(Code::NotConformant, "the client key has other parameters than the circuit"));
        }
        Ok(())
    }

    /// The key file's bytes, encrypted when a passphrase is given. Anyone who has them without one can decrypt: write them
    /// to a file that only its owner can read.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] when encryption fails.
    pub fn to_bytes(&self, passphrase: Option<&str>) -> Result<Zeroizing<Vec<u8>>> {
        let small = self.small.iter().map(|bits| packed(bits)).collect();
        let mut secret = SecretKey { layout: self.layout.clone(), bits: packed(&self.bits), small };
        let plain = Zeroizing::new(encode(&secret)?);
        secret.bits.zeroize();
        secret.small.zeroize();
        let mut section = match passphrase {
            None => KeySection::Clear(plain.to_vec()),
            Some(passphrase) => {
                let random = system_bytes();
                let (mut salt, mut nonce) = ([0; 16], [0; 24]);
                let mut rng = Noise::new(&random, 0);
                rng.rng().fill_bytes(&mut salt);
                rng.rng().fill_bytes(&mut nonce);
                let cipher = cipher(passphrase, &salt, MEMORY_KIB, PASSES)?;
                let payload = Payload { msg: &plain, aad: &self.digest };
                let ciphertext = cipher
                    .encrypt(&XNonce::from(nonce), payload)
                    .map_err(|_| Diagnostic::internal("cannot encrypt the key"))?;
                KeySection::Sealed { salt, memory_kib: MEMORY_KIB, passes: PASSES, nonce, ciphertext }
            }
        };
        let bytes = encode(&section)?;
        if let KeySection::Clear(plain) = &mut section {
            plain.zeroize();
        }
        let mut file =
            Container { kind: Kind::ClientKey, digest: self.digest, sections: vec![(SectionId::KEY, bytes)] };
        let written = Zeroizing::new(file.write());
        for (_, bytes) in &mut file.sections {
            bytes.zeroize();
        }
        Ok(written)
    }

    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// Those of [`View::read`]; [`Code::KeyUnusable`] when the passphrase is missing or wrong; [`Code::NotConformant`] when
    /// the contents do not fit together.
    pub fn from_bytes(bytes: &[u8], passphrase: Option<&str>) -> Result<Self> {
        let file = View::read(bytes, &[Kind::ClientKey], Kind::ClientKey.default_limit())?;
        let plain = match (decode::<KeySection>(file.section(SectionId::KEY)?)?, passphrase) {
            (KeySection::Clear(plain), _) => Zeroizing::new(plain),
            (KeySection::Sealed { .. }, None) => {
                return Err(Diagnostic::new(Code::KeyUnusable, "the client key is protected by a passphrase")
                    .help("give the passphrase that the key was made with"));
            }
            (KeySection::Sealed { salt, memory_kib, passes, nonce, ciphertext }, Some(passphrase)) => {
                if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES {
                    let what = format!("the key file asks for {memory_kib} KiB and {passes} passes of Argon2");
                    return Err(Diagnostic::new(Code::KeyUnusable, what));
                }
                let cipher = cipher(passphrase, &salt, memory_kib, passes)?;
                let payload = Payload { msg: &ciphertext, aad: &file.digest };
                let plain = cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| {
                    Diagnostic::new(Code::KeyUnusable, "the passphrase of the client key is wrong")
                        .help("give the passphrase that the key was made with")
                })?;
                Zeroizing::new(plain)
            }
        };
        let SecretKey { layout, bits, small } = decode(&plain)?;
        check_layout(&layout)?;
        let bits = unpacked(Zeroizing::new(bits), layout.glwe.lwe_dimension())?;
        // Wiped even when one of them does not fit.
        let small: Vec<Zeroizing<Vec<u8>>> = small.into_iter().map(Zeroizing::new).collect();
        if small.len() != layout.partitions.len() {
            let what = format!("a key with {} small keys for {} partitions", small.len(), layout.partitions.len());
            return Err(Diagnostic::new(Code::NotConformant, what));
        }
        let pairs = small.into_iter().zip(&layout.partitions);
        let small = pairs.map(|(bits, params)| unpacked(bits, params.lwe.dimension)).collect::<Result<_>>()?;
        Ok(Self::assemble(layout, file.digest, bits, small))
    }
}

/// A small key: in each block at most one bit is 1, each of the block+1 cases equally likely.
fn block_binary(lwe: &LweParams, random: &mut Noise) -> Zeroizing<Vec<u8>> {
    let mut bits = Zeroizing::new(vec![0u8; lwe.dimension as usize]);
    for block in bits.chunks_mut(lwe.block.max(1) as usize) {
        let cases = block.len() as u32 + 1;
        // Rejection: a remainder alone would favour small cases.
        let case = loop {
            let word = random.rng().next_u32();
            if word < u32::MAX / cases * cases {
                break word % cases;
            }
        };
        if let Some(bit) = block.get_mut(case as usize) {
            *bit = 1;
        }
    }
    bits
}

/// Transforms of the polynomials that key bits are the coefficients of.
fn transforms(fft: &Fft, bits: &[u8]) -> Vec<AVec<c64>> {
    let mut scratch = fft.scratch();
    let mut integers: Zeroizing<Vec<i64>> = Zeroizing::new(Vec::new());
    let mut all = Vec::new();
    for poly in bits.chunks_exact(fft.polynomial_size()) {
        integers.clear();
        integers.extend(poly.iter().map(|bit| i64::from(*bit)));
        let mut transform: AVec<c64> = AVec::with_capacity(0, fft.fourier_size());
        transform.resize(fft.fourier_size(), c64::default());
        fft.forward_units(&mut transform, &integers, &mut scratch);
        all.push(transform);
    }
    all
}

/// Bits, eight a byte.
fn packed(bits: &[u8]) -> Vec<u8> {
    let mut packed = vec![0u8; bits.len().div_ceil(8)];
    for (at, bit) in bits.iter().enumerate() {
        packed[at / 8] |= bit << (at % 8);
    }
    packed
}

fn unpacked(packed: Zeroizing<Vec<u8>>, count: u32) -> Result<Zeroizing<Vec<u8>>> {
    let count = count as usize;
    if packed.len() != count.div_ceil(8) {
        let what = format!("a key of {} bytes for dimension {count}", packed.len());
        return Err(Diagnostic::new(Code::NotConformant, what));
    }
    Ok(Zeroizing::new((0..count).map(|at| packed[at / 8] >> (at % 8) & 1).collect()))
}

fn cipher(passphrase: &str, salt: &[u8], memory_kib: u32, passes: u32) -> Result<XChaCha20Poly1305> {
    let wrong = |why: argon2::Error| Diagnostic::new(Code::KeyUnusable, format!("the key's derivation cost: {why}"));
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(wrong)?;
    let mut derived = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, derived.as_mut_slice())
        .map_err(wrong)?;
    Ok(XChaCha20Poly1305::new(&(*derived).into()))
}
