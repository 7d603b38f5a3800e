//! A query for a network, as far as the server reads it before it bootstraps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use tacit_fuzz::{NETWORK, both_ways};
use tacit_ir::artifact::Kind;
use tacit_runtime::{ArrivingQuery, Query, prepare};

fuzz_target!(|data: &[u8]| {
    let network = &*NETWORK;
    both_ways(&network.query, Kind::Query, data, |bytes| {
        let query = Query::read(&network.circuit, bytes);
        let rows = query.as_ref().map_or(1, Query::len) as u32;
        let arrive = || {
            let mut arriving = ArrivingQuery::new(Arc::clone(&network.circuit), rows, bytes.len() as u64)?;
            bytes.chunks(4099).try_for_each(|chunk| arriving.push(chunk, |piece| piece.prepare()))?;
            arriving.finish()
        };
        let arrived = arrive();
        assert_eq!(arrived.is_ok(), query.is_ok());
        let (Ok(query), Ok(arrived)) = (query, arrived) else { return };
        for (row, arrived) in query.rows().zip(arrived) {
            let _ = (prepare(&network.circuit, row), arrived.prepare());
        }
    });
});
