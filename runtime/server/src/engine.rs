//! Evaluates requests, one after the other, on a pool of threads of their own.

use crate::body::{Key, Received};
use crate::keys::{Keys, Source};
use crate::metrics::Metrics;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tacit_ir::artifact::envelope::KeyHeader;
use tacit_ir::artifact::v1::query_row_bytes;
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_runtime::{Circuit, EvaluationKey, Piece, ResultWriter};
use tokio::sync::oneshot;

/// How nice evaluation is to the threads that answer HTTP, as in `nice(2)`.
const NICENESS: i32 = 10;
/// Bytes of a row in a query whose selectors, twice as many bytes, are still in a core's cache when their turn comes. Larger ones
/// are better prepared right before they are used: digits_xgboost, of 5 MB, lost 6 % of its throughput with four clients.
const SMALL_ROW_BYTES: u64 = 1 << 20;
/// Predicted microseconds of a row that a thread should have for itself: twice what waking it takes.
const LEAST_THREAD_US: f64 = 100.0;

/// A circuit that passed its self-test, with its keys and the queue of its requests.
#[derive(Debug)]
pub(crate) struct Engine {
    pool: rayon::ThreadPool,
    worker: Arc<Worker>,
    predicted_row_us: f64,
    capacity: usize,
}

/// Evaluates requests on threads of the pool, one after the other.
#[derive(Debug)]
struct Worker {
    circuit: Arc<Circuit>,
    keys: Keys,
    line: Mutex<Line>,
    /// Microseconds of a row, as predicted until one was evaluated, then a running mean.
    row_us: AtomicU64,
    /// Whether a request is prepared before its turn.
    ahead: Arc<AtomicBool>,
    stopping: AtomicBool,
    metrics: Arc<Metrics>,
}

/// Requests that wait, and whether one is evaluated.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Job>,
    running: bool,
}

#[derive(Debug)]
struct Job {
    request: Received,
    ahead: Option<Ahead>,
    since: Instant,
    reply: oneshot::Sender<Result<Reply>>,
}

/// Lets one request be prepared before its turn, until dropped: what is prepared takes more memory than what arrived.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<AtomicBool>);

impl Ahead {
    /// Whether a request has leave, which it gets unless another one has it.
    fn ask(ahead: &mut Option<Ahead>, taken: &Arc<AtomicBool>) -> bool {
        if ahead.is_none() && !taken.swap(true, Ordering::Relaxed) {
            *ahead = Some(Ahead(Arc::clone(taken)));
        }
        ahead.is_some()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A result file and how it came about.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) result: Vec<u8>,
    pub(crate) key: Option<Source>,
    /// Time in the queue.
    pub(crate) queued: Duration,
    /// Reading the key if it was new, preparing what was not prepared on its way, evaluating.
    pub(crate) run: Duration,
}

/// How many threads a circuit is evaluated on: no more than there are, and none that would have less to do than it takes to
/// wake it and to keep it in step.
pub(crate) fn useful_threads(circuit: &Circuit, threads: usize) -> usize {
    let plan_us = CostProfile::default().plan_us(circuit.layout(), circuit.plan());
    ((plan_us / LEAST_THREAD_US) as usize).clamp(1, threads.max(1))
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
    /// Evaluates on this pool; at most `capacity` requests wait.
    pub(crate) fn new(
        circuit: Circuit,
        keys: Keys,
        pool: rayon::ThreadPool,
        capacity: usize,
        metrics: Arc<Metrics>,
        row_time: Duration,
    ) -> Engine {
        let threads = pool.current_num_threads();
        let predicted_row_us = CostProfile::default().plan_us(circuit.layout(), circuit.plan()) / threads as f64;
        let worker = Arc::new(Worker {
            circuit: Arc::new(circuit),
            keys,
            line: Mutex::default(),
            row_us: AtomicU64::new(row_time.as_micros() as u64),
            ahead: Arc::default(),
            stopping: AtomicBool::new(false),
            metrics,
        });
        Engine { pool, worker, predicted_row_us, capacity }
    }

    /// The circuit.
    pub(crate) fn circuit(&self) -> &Arc<Circuit> {
        &self.worker.circuit
    }

    /// Evaluation keys at hand.
    pub(crate) fn keys(&self) -> &Keys {
        &self.worker.keys
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.worker.line().waiting.len()
    }

    /// Predicted milliseconds of a query of these rows.
    pub(crate) fn predicted_ms(&self, rows: u32) -> f64 {
        self.predicted_row_us * f64::from(rows) / 1e3
    }

    /// Seconds until it is worth asking again: what waits, at one row each.
    pub(crate) fn retry_after(&self) -> u64 {
        let us = self.worker.row_us.load(Ordering::Relaxed).saturating_mul(self.waiting() as u64 + 1);
        us.div_ceil(1_000_000).clamp(1, 600)
    }

    /// Refuses what would not fit, before it is received.
    ///
    /// # Errors
    ///
    /// [`Code::ServerBusy`].
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.waiting() < self.capacity { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Diagnostic {
        crate::busy(format!("{} requests are waiting already", self.capacity))
    }

    /// Answers nothing more; what runs may end.
    pub(crate) fn stop(&self) {
        self.worker.stopping.store(true, Ordering::Relaxed);
    }

    /// Prepares a piece of a request that arrives, on a thread that has nothing else to do, be it between the phases of an
    /// evaluation; if there is none, the piece is prepared with the rest when its turn comes. `ahead` is the request's leave to
    /// do so, got here with a piece of it.
    pub(crate) fn prepare_ahead(&self, piece: &Arc<Piece>, ahead: &mut Option<Ahead>) {
        if Ahead::ask(ahead, &self.worker.ahead) {
            self.pool.spawn(prepare(piece));
        }
    }

    /// Evaluates a request when its turn comes. Dropping the future withdraws it.
    ///
    /// # Errors
    ///
    /// [`Code::ServerBusy`] when the queue is full or the server is about to end; errors of the key; internal errors.
    pub(crate) async fn evaluate(&self, request: Received, ahead: Option<Ahead>) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let idle = {
            let mut line = self.worker.line();
            if line.waiting.len() >= self.capacity {
                return Err(self.full());
            }
            line.waiting.push_back(Job { request, ahead, since: Instant::now(), reply });
            !std::mem::replace(&mut line.running, true)
        };
        if idle {
            let worker = Arc::clone(&self.worker);
            self.pool.spawn(move || {
                while let Some(job) = worker.next() {
                    worker.answer(job);
                }
            });
        }
        answer.await.unwrap_or_else(|_| Err(Diagnostic::internal("the request was dropped")))
    }
}

/// The work of preparing a piece, unless its request was given up: what waits for a thread keeps no bytes of it. A panic comes
/// again, and is answered, when the request is evaluated.
fn prepare(piece: &Arc<Piece>) -> impl FnOnce() + Send + use<> {
    let piece = Arc::downgrade(piece);
    move || {
        if let Some(piece) = piece.upgrade() {
            let _ = catch_unwind(AssertUnwindSafe(|| piece.prepare()));
        }
    }
}

impl Worker {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut line = self.line();
        let job = line.waiting.pop_front();
        line.running = job.is_some();
        job
    }

    /// Prepares the first row of the request that comes next, in the gaps of the evaluation that begins, if it is small.
    fn prepare_next(&self) {
        if query_row_bytes(self.circuit.layout()) > SMALL_ROW_BYTES {
            return;
        }
        let mut line = self.line();
        let Some(Job { request, ahead, .. }) = line.waiting.front_mut() else { return };
        if Ahead::ask(ahead, &self.ahead) {
            let pieces = request.query.first().map_or(&[][..], |row| row.pieces());
            pieces.iter().for_each(|piece| rayon::spawn(prepare(piece)));
        }
    }

    fn answer(&self, Job { request, ahead, since, mut reply }: Job) {
        let queued = since.elapsed();
        if reply.is_closed() {
            self.metrics.dropped.inc();
            return;
        }
        if self.stopping.load(Ordering::Relaxed) {
            let _ = reply.send(Err(crate::busy("the server is about to end")));
            return;
        }
        let start = Instant::now();
        let rows = request.header.rows;
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(request, ahead, &mut reply)))
            .unwrap_or_else(|_| Err(Diagnostic::internal("evaluation panicked")));
        let run = start.elapsed();
        let Some(evaluated) = evaluated.transpose() else {
            self.metrics.dropped.inc();
            return;
        };
        if evaluated.is_ok() {
            self.metrics.run_seconds.observe(run.as_secs_f64());
            self.metrics.rows.inc_by(u64::from(rows));
            let row_us = run.as_micros() as u64 / u64::from(rows.max(1));
            let before = self.row_us.load(Ordering::Relaxed);
            self.row_us.store((3 * before + row_us) / 4, Ordering::Relaxed);
        }
        self.metrics.queue_seconds.observe(queued.as_secs_f64());
        // A client that went away meanwhile is no error.
        let _ = reply.send(evaluated.map(|(result, key)| Reply { result, key, queued, run }));
    }

    /// The result; `None` when the client went away before it was there.
    fn evaluate(
        &self,
        request: Received,
        mut ahead: Option<Ahead>,
        reply: &mut oneshot::Sender<Result<Reply>>,
    ) -> Result<Option<(Vec<u8>, Option<Source>)>> {
        let Received { query, key, share: _share, .. } = request;
        let (key, source) = match key {
            Key::None => (None, None),
            Key::Held(key, source) => (Some(key), Some(source)),
            // The same key may have come with a request before this one in the queue.
            Key::Sent(header, file) => match self.keys.find(&header.sha256) {
                Some((key, source)) => (Some(key), Some(source)),
                None => {
                    header.check(&file)?;
                    let key = EvaluationKey::from_bytes(&file, self.circuit.layout(), self.circuit.digest())?;
                    let key = Arc::new(key);
                    self.metrics.keys_read.inc();
                    self.keys.keep(header.sha256, &key);
                    (Some(key), Some(Source::Request))
                }
            },
        };
        let mut writer = ResultWriter::new(&self.circuit, query.len());
        for (number, row) in query.into_iter().enumerate() {
            if reply.is_closed() {
                return Ok(None);
            }
            let prepared = row.prepare();
            if number == 0 {
                drop(ahead.take());
                self.prepare_next();
            }
            writer.push(&self.circuit.evaluate(&prepared, key.as_deref())?);
        }
        Ok(Some((writer.finish()?, source)))
    }
}
