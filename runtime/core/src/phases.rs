//! Phases of tasks on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How often a thread looks whether a phase is over before it lets others have the core: some tens of microseconds, about as
/// long as waking a thread takes.
const SPINS: u64 = 4_000;
/// How many of these looks pass before it looks for other work of the pool.
const SPINS_BETWEEN_JOBS: u64 = 32;

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
/// until the last phase is over, and do other work of the pool while they wait. The calling thread takes part and waits only
/// for tasks that run, never for threads that have not come.
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
                spins += 1;
                if spins % SPINS_BETWEEN_JOBS != 0 {
                    std::hint::spin_loop();
                } else if rayon::yield_now() == Some(rayon::Yield::Executed) {
                    spins = 0;
                } else if spins >= SPINS {
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
    use std::sync::{Barrier, Mutex};

    #[test]
    fn threads_that_wait_for_a_phase_do_other_work_of_the_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (asked, done) = (Barrier::new(2), AtomicUsize::new(0));
        pool.scope(|scope| {
            run_phases(
                &[2, 1],
                || (),
                |(), phase, task| {
                    if phase == 0 {
                        // Both threads have come.
                        asked.wait();
                    } else {
                        assert_eq!(task, 0);
                        scope.spawn(|_| done.store(1, Ordering::Release));
                        // The other thread waits for this task. A pool that left the job to this one would hang here.
                        while done.load(Ordering::Acquire) == 0 {
                            std::hint::spin_loop();
                        }
                    }
                },
                |()| (),
            );
        });
    }

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
