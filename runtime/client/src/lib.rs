//! The client's side: secret keys, encoding and encryption of queries, decryption and decoding of results.
//!
//! A [`ClientKey`] belongs to one circuit. [`codec`] turns model inputs into bits and messages, [`encrypt`] makes a query
//! file of them, [`decrypt`] reads a result file back. Nothing here panics on outside input.

//!
//! With the feature `remote`, `remote` sends queries to a server and keeps what was finished in a job file.

pub mod codec;
mod decrypt;
mod encrypt;
mod evaluation_key;
mod key;
mod random;
#[cfg(feature = "remote")]
pub mod remote;

pub use codec::EncodedRow;
pub use decrypt::decrypt;
pub use encrypt::encrypt;
pub use key::ClientKey;
