//! Phases of tasks on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How often a thread looks whether a phase is over before it lets others have the core: some tens of microseconds, about as
/// long as waking a thread takes.
const SPINS: u32 = 4_000;

/// The tasks of a phase that were begun, and those that are over.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicUsize,
    over: AtomicUsize,
}

/// Counts a task as over even when it panics, since others wait for it.
struct Over<'a>(&'a AtomicUsize);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Calls `run(memory, phase, task)` for each task of each phase; `lengths` are the numbers of tasks. Phases come one after the
/// other, the tasks of a phase in any order on the threads of the current rayon pool; each thread that
/// takes part takes its memory before and gives it back after.
///
/// Phases are short, so that a thread that slept between them would spend its time waking up: those that take part stay awake
/// until the last phase is over. The calling thread takes part and waits only for tasks that run, never for threads that
/// have not come.
pub(crate) fn run_phases<M>(
    lengths: &[usize],
    take: impl Fn() -> M + Sync,
    run: impl Fn(&mut M, usize, usize) + Sync,
    give: impl Fn(M) + Sync,
) {
    let widest = lengths.iter().copied().max().unwrap_or(0);
    let helpers = rayon::current_num_threads().min(widest).saturating_sub(1);
    if helpers == 0 {
        let mut memory = take();
        let tasks = lengths.iter().enumerate().flat_map(|(phase, count)| (0..*count).map(move |task| (phase, task)));
        tasks.for_each(|(phase, task)| run(&mut memory, phase, task));
        return give(memory);
    }
    let progress: Vec<Progress> = lengths.iter().map(|_| Progress::default()).collect();
    let take_part = || {
        let mut memory = take();
        for (phase, (count, progress)) in lengths.iter().zip(&progress).enumerate() {
            loop {
                let task = progress.begun.fetch_add(1, Ordering::Relaxed);
                if task >= *count {
                    break;
                }
                let _over = Over(&progress.over);
                run(&mut memory, phase, task);
            }
            let mut spins = 0;
            while progress.over.load(Ordering::Acquire) < *count {
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
        give(memory);
    };
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| take_part());
        }
        // A helper may have been woken on this thread's core, where it would wait for its turn until the run is over.
        std::thread::yield_now();
        take_part();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn phases_come_one_after_the_other_with_all_their_tasks() {
        let lengths = [3, 0, 17, 1, 40];
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let done = Mutex::new(Vec::new());
            pool.install(|| {
                run_phases(&lengths, || (), |(), phase, task| done.lock().unwrap().push((phase, task)), |()| ())
            });
            let mut done = done.into_inner().unwrap();
            assert!(done.is_sorted_by_key(|(phase, _)| *phase));
            done.sort_unstable();
            let all = lengths.iter().enumerate().flat_map(|(phase, count)| (0..*count).map(move |task| (phase, task)));
            assert_eq!(done, all.collect::<Vec<_>>());
        }
    }
}
