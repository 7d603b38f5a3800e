//! The one container that every file of Tacit travels in, and the versioned contents of each kind.
//!
//! Layout, all integers little-endian (`spec/artifact.md` has the same table):
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic `89 54 41 43 49 54 0D 0A` |
//! | 1 | [`Kind`] |
//! | 2 | format version, [`FORMAT_VERSION`] |
//! | 1 + n | length and text of the tool's version, for people; never compared |
//! | 32 | circuit digest |
//! | 2 | number of sections |
//! | 26 each | section id (2), length (8), [`checksum`] of the section (16) |
//! | 16 | checksum of all the bytes before |
//! | | the sections, in the order of the table, with nothing between or after them |
//!
//! Reading checks the whole before it returns anything: a file that was cut, padded or changed is
//! [`Code::FileCorrupted`]. The checksums guard against accidents, not against an adversary, who could compute any digest
//! too; what is inside is checked again against the circuit ([`Code::NotConformant`]).

use crate::diag::{Code, Diagnostic, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::ops::Range;
use twox_hash::XxHash3_128;

pub mod contents;
pub mod encode;
pub mod envelope;
pub mod v1;

pub use contents::{
    Artifact, ClientSpec, CodedColumn, Decoder, Encoder, RawGraph, RawNode, Report, Samples, Scale, ServerArtifact,
    Thermometer,
};

/// The first bytes of every file: not text, and damaged by a text-mode transfer.
pub const MAGIC: [u8; 8] = *b"\x89TACIT\r\n";
/// The format version this build writes and reads. Version 1 had SHA-256 digests in the place of checksums.
pub const FORMAT_VERSION: u16 = 2;
/// Sections a file may have.
const MAX_SECTIONS: u16 = 64;
const TABLE_ENTRY: usize = 2 + 8 + CHECKSUM_BYTES;

/// Bytes of a [`checksum`].
const CHECKSUM_BYTES: usize = 16;

/// A SHA-256 digest that names a circuit.
pub type CircuitDigest = [u8; 32];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The whole compiled model: client part and server part.
    Artifact,
    /// The client's part alone.
    ClientArtifact,
    /// A secret key.
    ClientKey,
    /// What a server bootstraps with.
    EvaluationKey,
    /// Encrypted inputs.
    Query,
    /// Encrypted results.
    Result,
    /// The server's part alone.
    ServerArtifact,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Artifact,
        Kind::ClientArtifact,
        Kind::ClientKey,
        Kind::EvaluationKey,
        Kind::Query,
        Kind::Result,
        Kind::ServerArtifact,
    ];

    fn byte(self) -> u8 {
        match self {
            Kind::Artifact => 1,
            Kind::ClientArtifact => 2,
            Kind::ClientKey => 3,
            Kind::EvaluationKey => 4,
            Kind::Query => 5,
            Kind::Result => 6,
            Kind::ServerArtifact => 7,
        }
    }

    /// What the file that begins with these bytes claims to be; `None` when it is too short or none of Tacit's.
    pub fn of_file(head: &[u8]) -> Option<Kind> {
        let kind = *head.strip_prefix(&MAGIC)?.first()?;
        Kind::ALL.into_iter().find(|known| known.byte() == kind)
    }

    /// The name in messages, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Artifact => "a compiled artifact",
            Kind::ClientArtifact => "a client artifact",
            Kind::ClientKey => "a client key",
            Kind::EvaluationKey => "an evaluation key",
            Kind::Query => "a query",
            Kind::Result => "a result",
            Kind::ServerArtifact => "a server artifact",
        }
    }

    /// Default limit on the size of a whole file of this kind, in bytes.
    pub fn default_limit(self) -> u64 {
        match self {
            Kind::Artifact | Kind::EvaluationKey | Kind::ServerArtifact => 1 << 30,
            Kind::ClientArtifact => 64 << 20,
            Kind::ClientKey => 1 << 20,
            Kind::Query | Kind::Result => 4 << 30,
        }
    }
}

/// Names a section inside a file; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionId(pub u16);

impl SectionId {
    /// The client's part of an artifact.
    pub const CLIENT: SectionId = SectionId(1);
    /// The server's plan in an artifact.
    pub const SERVER: SectionId = SectionId(2);
    /// The compiler's report in an artifact.
    pub const REPORT: SectionId = SectionId(3);
    /// IR text of all stages in an artifact.
    pub const TEXT: SectionId = SectionId(4);
    /// What a row is predicted to cost the server; in client artifacts only, where no plan says it.
    pub const PREDICTION: SectionId = SectionId(5);
    /// A secret key, in clear or sealed with a passphrase.
    pub const KEY: SectionId = SectionId(16);
    /// Shape of a query or result; the layout of an evaluation key or server artifact.
    pub const HEADER: SectionId = SectionId(32);
    /// The ciphertexts of a query or result.
    pub const ROWS: SectionId = SectionId(33);
}

/// A file in memory, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What it is.
    pub kind: Kind,
    /// The circuit it belongs to.
    pub digest: CircuitDigest,
    /// Its sections, in file order; ids are distinct.
    pub sections: Vec<(SectionId, Vec<u8>)>,
}

/// A file that was read and checked; the sections borrow from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// What it is.
    pub kind: Kind,
    /// Version of the tool that wrote it, for messages only.
    pub tool_version: String,
    /// The circuit it belongs to.
    pub digest: CircuitDigest,
    sections: Vec<(SectionId, &'a [u8])>,
}

/// Tells a file that was damaged: XXH3 of 128 bits, little-endian. A query of megabytes is checked in a tenth of the time that
/// SHA-256 takes.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    XxHash3_128::oneshot(bytes).to_le_bytes()
}

/// The SHA-256 digest of the concatenation of `parts`.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

impl Container {
    /// The file's bytes: the same container always gives the same bytes.
    pub fn write(&self) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        let payload: usize = self.sections.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut out = Vec::with_capacity(128 + self.sections.len() * TABLE_ENTRY + payload);
        out.extend_from_slice(&MAGIC);
        out.push(self.kind.byte());
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.push(version.len() as u8);
        out.extend_from_slice(version);
        out.extend_from_slice(&self.digest);
        out.extend_from_slice(&(self.sections.len() as u16).to_le_bytes());
        for (id, bytes) in &self.sections {
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(&checksum(bytes));
        }
        let header = checksum(&out);
        out.extend_from_slice(&header);
        for (_, bytes) in &self.sections {
            out.extend_from_slice(bytes);
        }
        out
    }

    /// Reads and checks a whole file, and copies its sections; [`View::read`] does not copy.
    ///
    /// # Errors
    ///
    /// As [`View::read`].
    pub fn read(bytes: &[u8], kinds: &[Kind], limit: u64) -> Result<Container> {
        let view = View::read(bytes, kinds, limit)?;
        let sections = view.sections.iter().map(|(id, bytes)| (*id, bytes.to_vec())).collect();
        Ok(Container { kind: view.kind, digest: view.digest, sections })
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.0.split_at_checked(count) {
            Some((head, tail)) => {
                self.0 = tail;
                Ok(head)
            }
            None => Err(truncated()),
        }
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| truncated())
    }
}

fn truncated() -> Diagnostic {
    Diagnostic::new(Code::FileCorrupted, "the file ends before its header says").help("copy or download the file again")
}

fn corrupted(what: &str) -> Diagnostic {
    Diagnostic::new(Code::FileCorrupted, what).help("copy or download the file again")
}

/// The header of a file: what the file is, and where its sections lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// What it is.
    pub kind: Kind,
    /// Version of the tool that wrote it, for messages only.
    pub tool_version: String,
    /// The circuit it belongs to.
    pub digest: CircuitDigest,
    sections: Vec<Place>,
    /// Bytes of the whole file.
    length: u64,
}

/// A section's place in a file, and its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    id: SectionId,
    /// Bytes of the file.
    pub bytes: Range<u64>,
    checksum: [u8; CHECKSUM_BYTES],
}

impl Outline {
    /// Reads the header that a file of one of `kinds` begins with; what follows it is not looked at.
    ///
    /// # Errors
    ///
    /// [`Code::NotTacitFile`], [`Code::FormatVersion`], [`Code::FileCorrupted`] (cut or changed) and [`Code::WrongFileKind`].
    pub fn read(bytes: &[u8], kinds: &[Kind]) -> Result<Outline> {
        let mut cursor = Cursor(bytes);
        if !bytes.starts_with(&MAGIC) {
            // A prefix of the magic is a file that was cut; anything else was never ours.
            let cut = !bytes.is_empty() && MAGIC.starts_with(bytes);
            return Err(if cut {
                truncated()
            } else {
                Diagnostic::new(Code::NotTacitFile, "the file does not begin with Tacit's magic bytes")
            });
        }
        cursor.take(MAGIC.len())?;
        let [kind] = cursor.array()?;
        let version = u16::from_le_bytes(cursor.array()?);
        if version != FORMAT_VERSION {
            return Err(Diagnostic::new(
                Code::FormatVersion,
                format!("the file has format version {version}, this Tacit reads version {FORMAT_VERSION}"),
            )
            .help("use the Tacit version that wrote the file, or make the file again with this one"));
        }
        let [version_len] = cursor.array()?;
        let tool_version = String::from_utf8_lossy(cursor.take(usize::from(version_len))?).into_owned();
        let digest = cursor.array()?;
        let count = u16::from_le_bytes(cursor.array()?);
        if count > MAX_SECTIONS {
            return Err(corrupted(&format!("the file claims {count} sections, the limit is {MAX_SECTIONS}")));
        }
        let mut table = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let id = SectionId(u16::from_le_bytes(cursor.array()?));
            let length = u64::from_le_bytes(cursor.array()?);
            table.push((id, length, cursor.array()?));
        }
        let header_len = bytes.len() - cursor.0.len();
        if checksum(&bytes[..header_len]) != cursor.array()? {
            return Err(corrupted("the file's header does not match its checksum"));
        }
        let mut length = (bytes.len() - cursor.0.len()) as u64;
        let mut sections: Vec<Place> = Vec::with_capacity(table.len());
        for (id, section, checksum) in table {
            if sections.iter().any(|other| other.id == id) {
                return Err(corrupted(&format!("section {} occurs twice", id.0)));
            }
            let end = length.checked_add(section).ok_or_else(truncated)?;
            sections.push(Place { id, bytes: length..end, checksum });
            length = end;
        }
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.byte() == kind) else {
            return Err(Diagnostic::new(Code::WrongFileKind, format!("the file is of the unknown kind {kind}")));
        };
        if !kinds.contains(&kind) {
            let wanted: Vec<&str> = kinds.iter().map(|kind| kind.describe()).collect();
            return Err(Diagnostic::new(
                Code::WrongFileKind,
                format!("the file is {}, expected {}", kind.describe(), wanted.join(" or ")),
            ));
        }
        Ok(Outline { kind, tool_version, digest, sections, length })
    }

    /// Checks that the file has as many bytes as its header says.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`].
    pub fn check_length(&self, length: u64) -> Result<()> {
        match length.checked_sub(self.length) {
            None => Err(truncated()),
            Some(0) => Ok(()),
            Some(rest) => Err(corrupted(&format!("the file has {rest} bytes after its end"))),
        }
    }

    /// Where the section of that id lies.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`] when the file has none.
    pub fn place(&self, id: SectionId) -> Result<&Place> {
        self.sections.iter().find(|place| place.id == id).ok_or_else(|| no_section(id))
    }

    /// Checks that the file belongs to the circuit of this digest.
    ///
    /// # Errors
    ///
    /// [`Code::OtherCircuit`].
    pub fn check_circuit(&self, digest: &CircuitDigest) -> Result<()> {
        check_circuit(self.kind, &self.digest, digest)
    }
}

impl Place {
    /// The section in the bytes that a file begins with, checked.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`] when it is not all there or was changed.
    pub fn section<'a>(&self, file: &'a [u8]) -> Result<&'a [u8]> {
        let at = |byte| usize::try_from(byte).unwrap_or(usize::MAX);
        let section = file.get(at(self.bytes.start)..at(self.bytes.end)).ok_or_else(truncated)?;
        let mut sum = RunningChecksum::default();
        sum.update(section);
        sum.check(self)?;
        Ok(section)
    }
}

/// The checksum of a section that is read in parts.
#[derive(Clone, Default)]
pub struct RunningChecksum(XxHash3_128);

impl std::fmt::Debug for RunningChecksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunningChecksum")
    }
}

impl RunningChecksum {
    /// Takes the bytes that come next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Checks that the bytes taken are those of this section.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`].
    pub fn check(&self, place: &Place) -> Result<()> {
        if self.0.finish_128().to_le_bytes() == place.checksum {
            return Ok(());
        }
        Err(corrupted(&format!("section {} of the file does not match its checksum", place.id.0)))
    }
}

fn no_section(id: SectionId) -> Diagnostic {
    corrupted(&format!("the file has no section {}", id.0))
}

fn check_circuit(kind: Kind, own: &CircuitDigest, digest: &CircuitDigest) -> Result<()> {
    if own == digest {
        return Ok(());
    }
    let short = |digest: &CircuitDigest| digest[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Err(Diagnostic::new(
        Code::OtherCircuit,
        format!("{} belongs to circuit {}, not to {}", kind.describe(), short(own), short(digest)),
    )
    .help("use the artifact, key, query and result of one and the same compilation"))
}

impl<'a> View<'a> {
    /// Reads a file: its size against `limit` (bytes), its magic, version and checksums, and that it is one of `kinds`.
    ///
    /// # Errors
    ///
    /// [`Code::FileTooLarge`], and those of [`Outline::read`]; [`Code::FileCorrupted`] also with bytes after the end.
    pub fn read(bytes: &'a [u8], kinds: &[Kind], limit: u64) -> Result<View<'a>> {
        if bytes.len() as u64 > limit {
            return Err(Diagnostic::new(
                Code::FileTooLarge,
                format!("the file has {} bytes, the limit is {limit}", bytes.len()),
            ));
        }
        let outline = Outline::read(bytes, kinds)?;
        outline.check_length(bytes.len() as u64)?;
        let sections = outline.sections.iter().map(|place| Ok((place.id, place.section(bytes)?)));
        let sections = sections.collect::<Result<_>>()?;
        let Outline { kind, tool_version, digest, .. } = outline;
        Ok(View { kind, tool_version, digest, sections })
    }

    /// The section of that id.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`] when the file has none.
    pub fn section(&self, id: SectionId) -> Result<&'a [u8]> {
        self.find(id).ok_or_else(|| no_section(id))
    }

    /// The section of that id, if the file has one.
    pub fn find(&self, id: SectionId) -> Option<&'a [u8]> {
        self.sections.iter().find(|(other, _)| *other == id).map(|(_, bytes)| *bytes)
    }

    /// Checks that the file belongs to the circuit of this digest.
    ///
    /// # Errors
    ///
    /// [`Code::OtherCircuit`].
    pub fn check_circuit(&self, digest: &CircuitDigest) -> Result<()> {
        check_circuit(self.kind, &self.digest, digest)
    }
}

/// The SHA-256 digest of the concatenation of `parts`, each preceded by its length: what names a circuit.
pub fn digest(parts: &[&[u8]]) -> CircuitDigest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Encodes a section's contents with postcard.
///
/// # Errors
///
/// [`Code::Internal`] when the type cannot be encoded (maps without a length), which no type of [`v1`] does.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|why| Diagnostic::internal(format!("cannot encode a section: {why}")))
}

/// Decodes a whole section. A lying length prefix cannot make it allocate more than a small multiple of the section:
/// serde caps what it reserves ahead, and every element of every type used takes at least one byte.
///
/// # Errors
///
/// [`Code::FileCorrupted`] when the bytes are not an encoding of `T` or go on after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(corrupted(&format!("a section has {} bytes after its end", rest.len()))),
        Err(why) => Err(corrupted(&format!("a section cannot be decoded: {why}"))),
    }
}
