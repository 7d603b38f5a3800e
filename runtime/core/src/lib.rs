//! Runs a compiled circuit on encrypted queries. Holds no secret: nothing here can decrypt.
//!
//! [`Circuit::new`] checks a plan and precomputes; [`Query::read`] checks a query file; for each row [`prepare`] turns
//! what travelled (a seed and bodies) into selectors ready for products, and [`Circuit::evaluate`] runs the plan. Both
//! use the rayon pool they are called in: one thread is `rayon::ThreadPoolBuilder::new().num_threads(1)` and `install`.
//! A row's result has the same bits for any number of threads. [`run`] does all of it from bytes to bytes. An
//! [`ArrivingQuery`] is prepared while it is received.
//!
//! After the checks nothing panics on outside input.

mod arriving;
pub mod bootstrap;
mod circuit;
mod evaluate;
pub mod external;
mod form;
mod network;
mod phases;
mod prepare;
mod query;

pub use arriving::{ArrivedRow, ArrivingQuery, Piece};
pub use bootstrap::{EvaluationKey, PartitionKey};
pub use circuit::Circuit;
pub use evaluate::Ciphertexts;
pub use prepare::{PreparedRow, prepare};
pub use query::{Query, ResultWriter};

use tacit_ir::diag::Result;

/// Evaluates a whole query file and returns the result file.
///
/// # Errors
///
/// Those of [`Query::read`] and of [`Circuit::evaluate`].
pub fn run(circuit: &Circuit, query: &[u8], key: Option<&EvaluationKey>) -> Result<Vec<u8>> {
    let query = Query::read(circuit, query)?;
    let mut writer = ResultWriter::new(circuit, query.len());
    for row in query.rows() {
        let prepared = prepare(circuit, row);
        writer.push(&circuit.evaluate(&prepared, key)?);
    }
    writer.finish()
}
