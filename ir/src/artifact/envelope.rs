//! The body of a request to a server: an optional key section, then one query section.
//!
//! | key section, bytes | what | query section, bytes | what |
//! | --- | --- | --- | --- |
//! | 8 | magic `TACITKEY` | 8 | magic `TACITQRY` |
//! | 2 | [`ENVELOPE_VERSION`] | 2 | [`ENVELOPE_VERSION`] |
//! | 6 | zero | 2 | zero |
//! | 8 | length of the evaluation key file | 4 | rows of the query |
//! | 32 | SHA-256 of that file | 8 | length of the query file |
//! | 32 | circuit digest | 16 | request id |
//! | | the file | 32 | SHA-256 of the evaluation key file, zero where the circuit needs none |
//! | | | 32 | circuit digest |
//! | | | | the file |
//!
//! All integers are little-endian. The key section of a key is the same for every query, so that it can be stored once as
//! an object of its own and be the first part of every request that is composed from stored parts.

use super::{CircuitDigest, Cursor, sha256, truncated};
use crate::diag::{Code, Diagnostic, Result};

/// The version this build writes and reads.
pub const ENVELOPE_VERSION: u16 = 1;
const KEY_MAGIC: [u8; 8] = *b"TACITKEY";
const QUERY_MAGIC: [u8; 8] = *b"TACITQRY";

/// The fixed part of a key section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHeader {
    /// Bytes of the evaluation key file that follows.
    pub length: u64,
    /// SHA-256 of that file: the name of the key.
    pub sha256: [u8; 32],
    /// The circuit the key was made for.
    pub circuit: CircuitDigest,
}

/// The fixed part of a query section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryHeader {
    /// Rows of the query, for limits and predictions before it is read.
    pub rows: u32,
    /// Bytes of the query file that follows.
    pub length: u64,
    /// Chosen by the client, new for each request.
    pub request_id: [u8; 16],
    /// The name of the evaluation key to use; `None` where the circuit needs none.
    pub key: Option<[u8; 32]>,
    /// The circuit the query was made for.
    pub circuit: CircuitDigest,
}

/// What a body begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A key section; a query section follows the file.
    Key(KeyHeader),
    /// A query section.
    Query(QueryHeader),
}

/// A body that was read and checked; the files borrow from its bytes and are not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The evaluation key file that came along, with its header; its hash is checked by [`KeyHeader::check`].
    pub key: Option<(KeyHeader, &'a [u8])>,
    /// The query section's header.
    pub header: QueryHeader,
    /// The query file.
    pub query: &'a [u8],
}

fn invalid(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::EnvelopeInvalid, message).help("send a request that `tacit invoke` made")
}

fn check_version(version: u16) -> Result<()> {
    if version == ENVELOPE_VERSION {
        return Ok(());
    }
    let message = format!("the request has envelope version {version}, this Tacit reads version {ENVELOPE_VERSION}");
    Err(Diagnostic::new(Code::FormatVersion, message).help("use the same version of Tacit on both sides"))
}

impl KeyHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 88;

    /// The header of an evaluation key file of this circuit.
    pub fn new(file: &[u8], circuit: CircuitDigest) -> Self {
        KeyHeader { length: file.len() as u64, sha256: sha256(&[file]), circuit }
    }

    /// The header's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.extend_from_slice(&KEY_MAGIC);
        out.extend_from_slice(&ENVELOPE_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.sha256);
        out.extend_from_slice(&self.circuit);
        out
    }

    /// Checks that a file is the one the header names.
    ///
    /// # Errors
    ///
    /// [`Code::FileCorrupted`].
    pub fn check(&self, file: &[u8]) -> Result<()> {
        if file.len() as u64 == self.length && sha256(&[file]) == self.sha256 {
            return Ok(());
        }
        Err(Diagnostic::new(Code::FileCorrupted, "the evaluation key does not match the hash it was sent with")
            .help("upload the key again"))
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Self> {
        check_version(u16::from_le_bytes(cursor.array()?))?;
        if cursor.array()? != [0u8; 6] {
            return Err(invalid("the key section has bits set that have no meaning"));
        }
        let length = u64::from_le_bytes(cursor.array()?);
        Ok(KeyHeader { length, sha256: cursor.array()?, circuit: cursor.array()? })
    }
}

impl QueryHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 104;

    /// The header's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.extend_from_slice(&QUERY_MAGIC);
        out.extend_from_slice(&ENVELOPE_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.request_id);
        out.extend_from_slice(&self.key.unwrap_or_default());
        out.extend_from_slice(&self.circuit);
        out
    }

    /// Checks that the query belongs to the key section before it.
    ///
    /// # Errors
    ///
    /// [`Code::EnvelopeInvalid`].
    pub fn check_key(&self, key: &KeyHeader) -> Result<()> {
        if key.circuit != self.circuit {
            return Err(invalid("the request's key and query belong to different circuits"));
        }
        if self.key != Some(key.sha256) {
            return Err(invalid("the request's query names another key than the one that came along"));
        }
        Ok(())
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Self> {
        check_version(u16::from_le_bytes(cursor.array()?))?;
        if cursor.array()? != [0u8; 2] {
            return Err(invalid("the query section has bits set that have no meaning"));
        }
        let rows = u32::from_le_bytes(cursor.array()?);
        let length = u64::from_le_bytes(cursor.array()?);
        let request_id = cursor.array()?;
        let key: [u8; 32] = cursor.array()?;
        let key = Some(key).filter(|key| *key != [0; 32]);
        Ok(QueryHeader { rows, length, request_id, key, circuit: cursor.array()? })
    }
}

impl Head {
    /// Bytes that [`Head::read`] needs at most.
    pub const BYTES: usize = QueryHeader::BYTES;

    /// Reads the beginning of a body, so that a wrong one is refused before the rest of it is received.
    ///
    /// # Errors
    ///
    /// [`Code::EnvelopeInvalid`], [`Code::FormatVersion`], [`Code::FileCorrupted`] when it is cut.
    pub fn read(bytes: &[u8]) -> Result<Head> {
        Self::take(&mut Cursor(bytes))
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Head> {
        if cursor.0.is_empty() {
            return Err(invalid("the request has no body"));
        }
        // A prefix of a magic is a body that was cut; anything else was never ours.
        if [KEY_MAGIC, QUERY_MAGIC].iter().any(|magic| magic.starts_with(cursor.0)) {
            return Err(truncated());
        }
        match cursor.array::<8>() {
            Ok(KEY_MAGIC) => KeyHeader::take(cursor).map(Head::Key),
            Ok(QUERY_MAGIC) => QueryHeader::take(cursor).map(Head::Query),
            _ => Err(invalid("the request begins with neither a key section nor a query section")),
        }
    }

    /// The circuit it names.
    pub fn circuit(&self) -> &CircuitDigest {
        match self {
            Head::Key(header) => &header.circuit,
            Head::Query(header) => &header.circuit,
        }
    }
}

impl<'a> Request<'a> {
    /// Splits a whole body.
    ///
    /// # Errors
    ///
    /// Those of [`Head::read`]; [`Code::EnvelopeInvalid`] when the sections belong to different circuits or keys, when two
    /// key sections come, or when bytes follow the query.
    pub fn read(body: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor(body);
        let file =
            |cursor: &mut Cursor<'a>, length: u64| cursor.take(usize::try_from(length).map_err(|_| truncated())?);
        let mut head = Head::take(&mut cursor)?;
        let mut key = None;
        if let Head::Key(header) = head {
            key = Some((header, file(&mut cursor, header.length)?));
            head = Head::take(&mut cursor)?;
        }
        let Head::Query(header) = head else {
            return Err(invalid("the request has two key sections"));
        };
        let query = file(&mut cursor, header.length)?;
        if !cursor.0.is_empty() {
            return Err(invalid(format!("the request has {} bytes after its query", cursor.0.len())));
        }
        if let Some((own, _)) = &key {
            header.check_key(own)?;
        }
        Ok(Request { key, header, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> (KeyHeader, QueryHeader, Vec<u8>) {
        let key = KeyHeader::new(b"evaluation key", [7; 32]);
        let header =
            QueryHeader { rows: 2, length: 5, request_id: [3; 16], key: Some(key.sha256), circuit: key.circuit };
        let body = [&key.write()[..], b"evaluation key", &header.write(), b"query"].concat();
        (key, header, body)
    }

    #[test]
    fn what_is_written_is_read() {
        let (key, header, body) = parts();
        let read = Request::read(&body).unwrap();
        assert_eq!(read, Request { key: Some((key, b"evaluation key")), header, query: b"query" });
        assert!(read.key.is_some_and(|(header, file)| header.check(file).is_ok()));
        assert_eq!(Head::read(&body[..Head::BYTES]).unwrap(), Head::Key(key));
        assert_eq!(key.write().len(), KeyHeader::BYTES);
        assert_eq!(header.write().len(), QueryHeader::BYTES);
    }

    #[test]
    fn every_cut_and_every_appendix_is_refused() {
        let (_, _, body) = parts();
        for end in 0..body.len() {
            assert!(Request::read(&body[..end]).is_err(), "cut at {end}");
        }
        let longer = [&body[..], b"x"].concat();
        assert_eq!(Request::read(&longer).unwrap_err().code, Code::EnvelopeInvalid);
        assert_eq!(Request::read(b"not a request at all").unwrap_err().code, Code::EnvelopeInvalid);
    }

    #[test]
    fn sections_must_fit_together() {
        let (key, header, _) = parts();
        let with = |header: QueryHeader| [&key.write()[..], b"evaluation key", &header.write(), b"query"].concat();
        for other in [QueryHeader { key: Some([1; 32]), ..header }, QueryHeader { circuit: [0; 32], ..header }] {
            assert_eq!(Request::read(&with(other)).unwrap_err().code, Code::EnvelopeInvalid);
        }
        let twice = [&key.write()[..], b"evaluation key"].concat().repeat(2);
        assert_eq!(Request::read(&twice).unwrap_err().code, Code::EnvelopeInvalid);
        assert!(key.check(b"evaluation kez").is_err());
    }
}
