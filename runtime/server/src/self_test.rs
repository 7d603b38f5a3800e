//! Before the server says that it is ready: the loaded circuit evaluates a query of random bits.
//!
//! Every bit string of the right length is a valid row and a valid evaluation key, of ciphertexts that nobody can decrypt. What
//! can be checked without a key is that evaluation ends, that its result has the right size, and that a second evaluation gives
//! the same bytes.

use crate::keys::Keys;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tacit_ir::artifact::v1::{BatchHeader, evaluation_key_bytes, query_row_bytes, result_row_bytes};
use tacit_ir::artifact::{Container, Kind, SectionId, encode};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_runtime::{Circuit, EvaluationKey, Query, ResultWriter, prepare};

/// Circuits that take longer are evaluated once: readiness within minutes matters more.
const SLOW: Duration = Duration::from_secs(10);

/// Runs the test on the current rayon pool and gives the time of one evaluation of one row. Uses a pinned key where there is
/// one, else a random one, which is dropped.
///
/// # Errors
///
/// An internal error that says what is wrong.
pub(crate) fn run(circuit: &Circuit, keys: &Keys) -> Result<Duration> {
    let layout = circuit.layout();
    let key = match (circuit.needs_evaluation_key(), keys.any_pinned()) {
        (false, _) => None,
        (true, Some(key)) => Some(key),
        (true, None) => {
            let sections = vec![
                (SectionId::HEADER, encode(layout)?),
                (SectionId::KEY, random_bytes(evaluation_key_bytes(layout) as usize)),
            ];
            let file = Container { kind: Kind::EvaluationKey, digest: *circuit.digest(), sections }.write();
            Some(Arc::new(EvaluationKey::from_bytes(&file, layout, circuit.digest())?))
        }
    };
    let header = BatchHeader { rows: 1, layout: layout.clone() };
    let sections =
        vec![(SectionId::HEADER, encode(&header)?), (SectionId::ROWS, random_bytes(query_row_bytes(layout) as usize))];
    let file = Container { kind: Kind::Query, digest: *circuit.digest(), sections }.write();
    let query = Query::read(circuit, &file)?;
    let evaluate = || {
        let mut writer = ResultWriter::new(circuit, 1);
        for row in query.rows() {
            writer.push(&circuit.evaluate(&prepare(circuit, row), key.as_deref())?);
        }
        Ok::<_, Diagnostic>(writer.rows().to_vec())
    };
    let start = Instant::now();
    let first = evaluate()?;
    let time = start.elapsed();
    if first.len() as u64 != result_row_bytes(layout) {
        let (found, expected) = (first.len(), result_row_bytes(layout));
        return Err(Diagnostic::internal(format!("self-test: a result of {found} bytes in place of {expected}")));
    }
    if time < SLOW && evaluate()? != first {
        return Err(Diagnostic::internal("self-test: two evaluations of one query differ"));
    }
    Ok(time)
}

/// Bytes without a pattern: SplitMix64 from a fixed seed. They hide nothing.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    let mut bytes: Vec<u8> = words.take(count.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    bytes.truncate(count);
    bytes
}
