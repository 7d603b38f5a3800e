//! Starts, accepts connections, ends.

use crate::body::{Budget, Rules};
use crate::engine::{self, Engine, read_key, useful_threads};
use crate::http::{Serving, Shared, router};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::replays::Replays;
use crate::settings::Settings;
use crate::{model, self_test};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot, watch};

/// Time for replies on their way once no more are made.
const FLUSH: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`, such as one without file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens, and loads its circuit once it runs.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
}

/// Listens, loads, and answers until SIGTERM or SIGINT; then what runs ends within [`Settings::drain_timeout`].
///
/// # Errors
///
/// [`Code::ServerFailed`] when it cannot listen; errors of the artifact, of pinned keys, and of the self-test.
pub fn serve(settings: Settings) -> Result<()> {
    let server = Server::bind(settings)?;
    server.run(async {
        let mut terminate = match signal(SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(_) => return std::future::pending().await,
        };
        let mut interrupt = match signal(SignalKind::interrupt()) {
            Ok(interrupt) => interrupt,
            Err(_) => return std::future::pending().await,
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn failed(what: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::ServerFailed, what.to_string())
}

impl Server {
    /// Listens. Connections are accepted, and pings answered with 503, from the beginning of [`Server::run`] on.
    ///
    /// # Errors
    ///
    /// [`Code::ServerFailed`].
    pub fn bind(settings: Settings) -> Result<Server> {
        // All that HTTP takes is copying. Several threads hand connections to each other, which takes longer than one alone.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .map_err(|why| failed(format!("cannot start threads: {why}")))?;
        let listener = runtime.block_on(TcpListener::bind(settings.address)).map_err(|why| {
            failed(format!("cannot listen on {}: {why}", settings.address))
                .help("end what listens there, or choose another port")
        })?;
        let address = listener.local_addr().map_err(|why| failed(format!("cannot listen: {why}")))?;
        Ok(Server { runtime, listener, address, settings })
    }

    /// What it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs on a new thread.
    ///
    /// # Errors
    ///
    /// An internal error when no thread starts.
    pub fn start(self) -> Result<Running> {
        let address = self.address;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            self.run(async {
                let _ = stopped.await;
            })
        };
        let thread = std::thread::Builder::new().name("server".to_owned()).spawn(run);
        let thread = thread.map_err(|why| Diagnostic::internal(format!("cannot start a thread: {why}")))?;
        Ok(Running { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Loads the circuit and answers until `stop` is ready; then finishes what was asked, as far as the time allows.
    ///
    /// # Errors
    ///
    /// As [`serve`].
    pub fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let Server { runtime, listener, address, settings } = self;
        let (end, over) = watch::channel(false);
        let metrics = Arc::new(Metrics::new()?);
        let shared = Arc::new(Shared {
            engine: OnceLock::new(),
            metrics,
            budget: Budget::new(settings.max_buffered_bytes),
            max_body_bytes: settings.max_body_bytes,
            draining: AtomicBool::new(false),
            over,
        });
        tracing::info!(%address, "listening");
        let (report, mut loaded) = oneshot::channel();
        let load_into = Arc::clone(&shared);
        let load_settings = settings.clone();
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let loaded = load(&load_settings, &load_into.metrics);
                let _ = report.send(loaded.map(|serving| {
                    let _ = load_into.engine.set(serving);
                }));
            })
            .map_err(|why| Diagnostic::internal(format!("cannot start a thread: {why}")))?;
        let ended = runtime.block_on(async {
            tokio::pin!(stop);
            let graceful = GracefulShutdown::new();
            let routes = router(Arc::clone(&shared));
            let connections = Arc::new(Semaphore::new(settings.max_connections));
            let mut loading = true;
            loop {
                tokio::select! {
                    () = &mut stop => break,
                    outcome = &mut loaded, if loading => match outcome {
                        Ok(Ok(())) => loading = false,
                        Ok(Err(why)) => return Err(why),
                        Err(_) => return Err(Diagnostic::internal("loading the circuit panicked")),
                    },
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => accept(stream, (&shared, &routes), &settings, &graceful, &connections),
                        Err(why) => {
                            tracing::warn!(%why, "cannot accept a connection");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            }
            drop(listener);
            drain(&shared, &settings, graceful, &end).await;
            Ok(())
        });
        runtime.shutdown_timeout(FLUSH);
        ended
    }
}

/// A server on a thread of its own, stopped when dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it ended by itself, which it does when it cannot load its circuit.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops as SIGTERM would, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`serve`].
    pub fn stop(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Diagnostic::internal("the server panicked")),
            Some(Ok(ended)) => ended,
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Stops taking requests and waits for those that were taken.
async fn drain(shared: &Shared, settings: &Settings, graceful: GracefulShutdown, end: &watch::Sender<bool>) {
    let start = Instant::now();
    shared.draining.store(true, Ordering::Relaxed);
    tracing::info!(connections = shared.metrics.connections.get(), "draining");
    let idle = graceful.shutdown();
    tokio::pin!(idle);
    if tokio::time::timeout(settings.drain_timeout, &mut idle).await.is_err() {
        if let Some(serving) = shared.engine.get() {
            serving.engine.stop();
        }
        let _ = end.send(true);
        let _ = tokio::time::timeout(FLUSH, &mut idle).await;
    }
    tracing::info!(seconds = start.elapsed().as_secs_f64(), "ended");
}

fn accept(
    stream: TcpStream,
    (shared, routes): (&Arc<Shared>, &Router),
    settings: &Settings,
    graceful: &GracefulShutdown,
    connections: &Arc<Semaphore>,
) {
    let Ok(place) = Arc::clone(connections).try_acquire_owned() else {
        tracing::warn!(limit = settings.max_connections, "too many connections, one was closed");
        return;
    };
    // Replies are written at once.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(routes.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    let metrics = Arc::clone(&shared.metrics);
    metrics.connections.inc();
    tokio::spawn(async move {
        if let Err(why) = connection.await {
            tracing::debug!(%why, "connection");
        }
        metrics.connections.dec();
        drop(place);
    });
}

/// Reads the circuit and the pinned keys and tests them.
fn load(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Serving> {
    let start = Instant::now();
    let pool = engine::pool(settings.evaluating_threads())?;
    let (circuit, keys, row_time) = pool.install(|| {
        let (path, circuit) = model::circuit(settings)?;
        tracing::info!(path = %path.display(), circuit = crate::body::hex(circuit.digest()), "read");
        let mut pinned = HashMap::new();
        if circuit.needs_evaluation_key() {
            for (path, file) in model::pinned_keys(settings)? {
                let (name, key) = read_key(&circuit, &file).map_err(|why| why.at(path.display().to_string()))?;
                tracing::info!(path = %path.display(), key = crate::body::hex(&name), "pinned");
                pinned.insert(name, key);
            }
        } else if let Some(path) = settings.evaluation_keys.first() {
            return Err(Diagnostic::new(Code::OptionInvalid, "the circuit needs no evaluation key")
                .at(path.display().to_string())
                .help("leave the evaluation key out"));
        }
        let keys = Keys::new(pinned, settings.key_cache_bytes);
        let row_time = self_test::run(&circuit, &keys)?;
        Ok::<_, Diagnostic>((circuit, keys, row_time))
    })?;
    let needs_key = circuit.needs_evaluation_key();
    let rules = Rules::new(settings, circuit.layout(), *circuit.digest(), needs_key);
    let useful = settings.threads.unwrap_or_else(|| useful_threads(&circuit, pool.current_num_threads()));
    let pool = if useful < pool.current_num_threads() { engine::pool(useful)? } else { pool };
    let threads = pool.current_num_threads();
    let engine = Engine::new(circuit, keys, pool, settings.queue_length, Arc::clone(metrics), row_time);
    let (seconds, row_ms) = (start.elapsed().as_secs_f64(), row_time.as_secs_f64() * 1e3);
    tracing::info!(seconds, row_ms, threads, needs_key, "ready");
    Ok(Serving { engine, rules, replays: settings.refuse_replays.then(Replays::default) })
}
