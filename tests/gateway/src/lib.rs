//! A stand-in for SageMaker's fronts on one machine: takes calls as InvokeEndpointAsync and InvokeEndpoint take them, and hands
//! them to a container.
//!
//! Asynchronous calls wait in a queue; as many threads as there are instances, one request each at a time, read the request
//! from the store, POST it to the container, and write the result or the failure to the store. As with SageMaker nothing is tried
//! again, a reply without Content-Length or with more than 4096 bytes of headers is a failure, and a request that waited
//! longer than its time to live is one, too. Signatures are not checked, and any endpoint name is taken.

mod front;
mod queue;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tacit_client::remote::Store;
use tokio::sync::oneshot;

/// What stands behind the front.
#[derive(Debug)]
pub struct Settings {
    /// What to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// The container, such as `http://127.0.0.1:8080`.
    pub container: String,
    /// Where requests are read and results are written.
    pub store: Arc<dyn Store>,
    /// Where results go, such as `s3://bucket/results`.
    pub output: String,
    /// Where failures go.
    pub failure: String,
    /// Instances: requests that run at the same time.
    pub instances: usize,
}

/// A front that runs; it ends when dropped.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    front: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Listens and starts the instances.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(settings.address))?;
        let address = listener.local_addr()?;
        let (queue, jobs) = mpsc::channel();
        queue::start(&settings, jobs);
        let shared = front::Shared::new(&settings, queue);
        let (stop, stopped) = oneshot::channel();
        let front = std::thread::spawn(move || {
            let served = axum::serve(listener, front::router(Arc::new(shared)));
            let served = served.with_graceful_shutdown(async { drop(stopped.await) });
            // Accepting connections cannot fail for good: axum waits and tries again.
            let _ = runtime.block_on(async { served.await });
        });
        Ok(Gateway { address, stop: Some(stop), front: Some(front) })
    }

    /// The address to give as SageMaker's.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the front ends, which it does not by itself.
    pub fn wait(mut self) {
        if let Some(front) = self.front.take() {
            let _ = front.join();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }
}
