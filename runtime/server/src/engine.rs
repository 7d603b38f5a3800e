//! Evaluates requests, one after the other, on a pool of threads of their own.

use crate::body::{Key, Received};
use crate::keys::{Keys, Source};
use crate::metrics::Metrics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tacit_ir::artifact::envelope::KeyHeader;
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_runtime::{Circuit, EvaluationKey, Query, ResultWriter, prepare};
use tokio::sync::{mpsc, oneshot};

/// How nice evaluation is to the threads that answer HTTP, as in `nice(2)`.
const NICENESS: i32 = 10;

/// A circuit that passed its self-test, with its keys and the queue of its requests.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) circuit: Arc<Circuit>,
    pub(crate) keys: Arc<Keys>,
    queue: mpsc::Sender<Job>,
    /// Requests that wait.
    waiting: Arc<AtomicU64>,
    /// Microseconds of a row, as predicted until one was evaluated, then a running mean.
    row_us: Arc<AtomicU64>,
    predicted_row_us: f64,
    capacity: usize,
    stopping: Arc<AtomicBool>,
}

struct Job {
    request: Received,
    since: Instant,
    reply: oneshot::Sender<Result<Reply>>,
}

/// A result file and how it came about.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: Vec<u8>,
    pub(crate) key: Option<Source>,
    /// Time in the queue.
    pub(crate) queued: Duration,
    /// Reading the key if it was new, reading the query, evaluating.
    pub(crate) run: Duration,
}

/// The pool that circuits are prepared, tested and evaluated on.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("evaluate-{index}"))
        .start_handler(|_| {
            // Of this thread alone, on Linux. Where it is not allowed, evaluation is as important as the rest.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
        .map_err(|why| Diagnostic::internal(format!("cannot start threads: {why}")))
}

/// SHA-256 of a pinned key's file, and the key.
pub(crate) fn read_key(circuit: &Circuit, file: &[u8]) -> Result<([u8; 32], Arc<EvaluationKey>)> {
    let key = EvaluationKey::from_bytes(file, circuit.layout(), circuit.digest())?;
    Ok((KeyHeader::new(file, *circuit.digest()).sha256, Arc::new(key)))
}

impl Engine {
    /// Starts the thread that takes requests from the queue; it ends when the engine is dropped.
    pub(crate) fn start(
        circuit: Circuit,
        keys: Keys,
        pool: rayon::ThreadPool,
        capacity: usize,
        metrics: Arc<Metrics>,
        row_time: Duration,
    ) -> Result<Engine> {
        let threads = pool.current_num_threads();
        let predicted_row_us = CostProfile::default().plan_us(circuit.layout(), circuit.plan()) / threads as f64;
        let (queue, jobs) = mpsc::channel(capacity);
        let engine = Engine {
            circuit: Arc::new(circuit),
            keys: Arc::new(keys),
            queue,
            waiting: Arc::default(),
            row_us: Arc::new(AtomicU64::new(row_time.as_micros() as u64)),
            predicted_row_us,
            capacity,
            stopping: Arc::default(),
        };
        let worker = Worker {
            circuit: Arc::clone(&engine.circuit),
            keys: Arc::clone(&engine.keys),
            pool,
            waiting: Arc::clone(&engine.waiting),
            row_us: Arc::clone(&engine.row_us),
            stopping: Arc::clone(&engine.stopping),
            metrics,
        };
        std::thread::Builder::new()
            .name("evaluate".to_owned())
            .spawn(move || worker.run(jobs))
            .map_err(|why| Diagnostic::internal(format!("cannot start a thread: {why}")))?;
        Ok(engine)
    }

    /// Whether its thread still takes requests.
    pub(crate) fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Predicted milliseconds of a query of these rows.
    pub(crate) fn predicted_ms(&self, rows: u32) -> f64 {
        self.predicted_row_us * f64::from(rows) / 1e3
    }

    /// Seconds until it is worth asking again: what waits, at one row each.
    pub(crate) fn retry_after(&self) -> u64 {
        let us = self.row_us.load(Ordering::Relaxed).saturating_mul(self.waiting() + 1);
        us.div_ceil(1_000_000).clamp(1, 600)
    }

    /// Refuses what would not fit, before it is received.
    ///
    /// # Errors
    ///
    /// [`Code::ServerBusy`].
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.queue.capacity() > 0 { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Diagnostic {
        crate::busy(format!("{} requests are waiting already", self.capacity))
    }

    /// Answers nothing more; what runs may end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Evaluates a request when its turn comes. Dropping the future withdraws it.
    ///
    /// # Errors
    ///
    /// [`Code::ServerBusy`] when the queue is full or the server is about to end; errors of the key and of the query; internal
    /// errors.
    pub(crate) async fn evaluate(&self, request: Received) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let job = Job { request, since: Instant::now(), reply };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = self.queue.try_send(job) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(match why {
                mpsc::error::TrySendError::Full(_) => self.full(),
                mpsc::error::TrySendError::Closed(_) => Diagnostic::internal("the evaluating thread has ended"),
            });
        }
        answer.await.unwrap_or_else(|_| Err(Diagnostic::internal("the evaluating thread dropped the request")))
    }
}

struct Worker {
    circuit: Arc<Circuit>,
    keys: Arc<Keys>,
    pool: rayon::ThreadPool,
    waiting: Arc<AtomicU64>,
    row_us: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Worker {
    fn run(&self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(Job { request, since, mut reply }) = jobs.blocking_recv() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let queued = since.elapsed();
            if reply.is_closed() {
                self.metrics.dropped.inc();
                continue;
            }
            if self.stopping.load(Ordering::Relaxed) {
                let _ = reply.send(Err(crate::busy("the server is about to end")));
                continue;
            }
            let start = Instant::now();
            let evaluated = self.pool.install(|| {
                catch_unwind(AssertUnwindSafe(|| self.evaluate(&request, &mut reply)))
                    .unwrap_or_else(|_| Err(Diagnostic::internal("evaluation panicked")))
            });
            let run = start.elapsed();
            let Some(evaluated) = evaluated.transpose() else {
                self.metrics.dropped.inc();
                continue;
            };
            if evaluated.is_ok() {
                self.metrics.run_seconds.observe(run.as_secs_f64());
                self.metrics.rows.inc_by(u64::from(request.header.rows));
                let row_us = run.as_micros() as u64 / u64::from(request.header.rows.max(1));
                let before = self.row_us.load(Ordering::Relaxed);
                self.row_us.store((3 * before + row_us) / 4, Ordering::Relaxed);
            }
            self.metrics.queue_seconds.observe(queued.as_secs_f64());
            drop(request);
            // A client that went away meanwhile is no error.
            let _ = reply.send(evaluated.map(|(result, key)| Reply { result, key, queued, run }));
        }
    }

    /// The result; `None` when the client went away before it was there.
    fn evaluate(
        &self,
        request: &Received,
        reply: &mut oneshot::Sender<Result<Reply>>,
    ) -> Result<Option<(Vec<u8>, Option<Source>)>> {
        let (key, source) = match &request.key {
            Key::None => (None, None),
            Key::Held(key, source) => (Some(Arc::clone(key)), Some(*source)),
            // The same key may have come with a request before this one in the queue.
            Key::Sent(header, file) => match self.keys.find(&header.sha256) {
                Some((key, source)) => (Some(key), Some(source)),
                None => {
                    header.check(file)?;
                    let key = EvaluationKey::from_bytes(file, self.circuit.layout(), self.circuit.digest())?;
                    let key = Arc::new(key);
                    self.metrics.keys_read.inc();
                    self.keys.keep(header.sha256, &key);
                    (Some(key), Some(Source::Request))
                }
            },
        };
        let query = Query::read(&self.circuit, &request.query)?;
        if query.len() as u64 != u64::from(request.header.rows) {
            let message = format!("the query has {} rows, its header says {}", query.len(), request.header.rows);
            return Err(Diagnostic::new(Code::EnvelopeInvalid, message).help("send a request that `tacit invoke` made"));
        }
        let mut writer = ResultWriter::new(&self.circuit, query.len());
        for row in query.rows() {
            if reply.is_closed() {
                return Ok(None);
            }
            writer.push(&self.circuit.evaluate(&prepare(&self.circuit, row), key.as_deref())?);
        }
        Ok(Some((writer.finish()?, source)))
    }
}
