//! What benchmarks share: medians, milliseconds, pools of threads, peak memory.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Instant;

/// The median; NaN of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds since `start`.
pub fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The median of the milliseconds of `times` runs, after one that warms the caches.
pub fn median_ms(times: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut once = || {
        let start = Instant::now();
        work();
        ms(start)
    };
    median((0..times).map(|_| once()).collect())
}

/// A pool of this many threads.
///
/// # Panics
/// When they do not start.
pub fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start")
}

/// Makes [`peak_mb`] count anew.
pub fn reset_peak() {
    // `proc(5)`: 5 resets the peak resident set size.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Peak resident memory of this process in MB since the last reset.
pub fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).map_or(f64::NAN, |kb| kb / 1e3)
}
