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

/// Milliseconds on the clock, and of all threads on a processor, which what else runs on the machine disturbs less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// On the clock.
    pub wall: f64,
    /// Of all threads on a processor; 0 where the system does not tell.
    pub cpu: f64,
}

impl Clocks {
    /// Of this work.
    pub fn of(work: impl FnOnce()) -> Clocks {
        let (cpu, start) = (cpu_ms(|_| true), Instant::now());
        work();
        Clocks { wall: ms(start), cpu: cpu_ms(|_| true) - cpu }
    }
    /// The median of each.
    pub fn median(all: &[Clocks]) -> Clocks {
        let of = |value: fn(&Clocks) -> f64| median(all.iter().map(value).collect());
        Clocks { wall: of(|clocks| clocks.wall), cpu: of(|clocks| clocks.cpu) }
    }
}

/// Milliseconds that this process' threads of these names have been on a processor.
pub fn cpu_ms(named: impl Fn(&str) -> bool) -> f64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let one = |path: std::path::PathBuf| -> Option<f64> {
        if !named(std::fs::read_to_string(path.join("comm")).ok()?.trim()) {
            return None;
        }
        // `proc(5)`: the first number is the nanoseconds on a processor.
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.filter_map(|entry| one(entry.ok()?.path())).sum::<f64>() / 1e6
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
