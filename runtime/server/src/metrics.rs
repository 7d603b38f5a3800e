//! What `/metrics` shows, in Prometheus' text format.

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tacit_ir::diag::{Diagnostic, Result};

/// Seconds: from the quickest tree to the longest that SageMaker waits for.
const SECONDS: [f64; 14] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) rows: IntCounter,
    pub(crate) dropped: IntCounter,
    pub(crate) keys_read: IntCounter,
    pub(crate) request_seconds: Histogram,
    pub(crate) queue_seconds: Histogram,
    pub(crate) run_seconds: Histogram,
    pub(crate) waiting: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) buffered: IntGauge,
    pub(crate) keys: IntGauge,
    pub(crate) key_bytes: IntGauge,
    pub(crate) ready: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        Self::register().map_err(|why| Diagnostic::internal(format!("metrics: {why}")))
    }

    fn register() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        let histogram = |name: &str, help: &str| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
            registry.register(Box::new(histogram.clone())).map(|()| histogram)
        };
        let requests = IntCounterVec::new(
            Opts::new("tacit_requests_total", "Requests to /invocations that were answered, by status."),
            &["status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        Ok(Metrics {
            requests,
            rows: counter("tacit_rows_total", "Rows evaluated.")?,
            dropped: counter("tacit_dropped_total", "Requests whose client went away before their result was there.")?,
            keys_read: counter("tacit_keys_read_total", "Evaluation keys that came with a request and were expanded.")?,
            request_seconds: histogram("tacit_request_seconds", "From the request's headers to its reply.")?,
            queue_seconds: histogram("tacit_queue_seconds", "Time in the queue.")?,
            run_seconds: histogram("tacit_run_seconds", "Time of evaluation, a new key's expansion included.")?,
            waiting: gauge("tacit_waiting_requests", "Requests in the queue.")?,
            connections: gauge("tacit_connections", "Open connections.")?,
            buffered: gauge("tacit_buffered_bytes", "Bytes of bodies in memory.")?,
            keys: gauge("tacit_keys", "Evaluation keys at hand.")?,
            key_bytes: gauge("tacit_key_bytes", "Bytes of expanded evaluation keys that are not pinned.")?,
            ready: gauge("tacit_ready", "1 once the circuit passed its self-test.")?,
            registry,
        })
    }

    /// The text, and its media type.
    pub(crate) fn text(&self) -> Result<(Vec<u8>, &'static str)> {
        let mut out = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        encoded.map_err(|why| Diagnostic::internal(format!("metrics: {why}")))?;
        Ok((out, prometheus::TEXT_FORMAT))
    }
}
