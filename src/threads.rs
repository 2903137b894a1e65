//! The threads that all work is shared among: those of rayon's pool, or, in a process that was forked off one that had used
//! them, a pool of its own, because threads do not survive a fork.
//!
//! Whoever has work does it on its own thread, and lets threads that are idle help ([`share`]). So nobody waits for a busy pool,
//! and searches at the same time do not wait for each other. Nothing else in this crate calls rayon except within [`run`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

/// Threads that work is shared among.
pub fn count() -> usize {
    Pool::current().threads()
}

/// Does `work`, which may use rayon's parallel iterators, on a thread of the pool.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    Pool::current().run(work)
}

/// Begins `work` on a thread of the pool.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    Pool::current().spawn(work);
}

/// Calls `part` on this thread, and on up to `most - 1` others as they are idle, and returns what all of them return, in any
/// order. Each takes pieces of the work until there are none or `go_on()` is false: others need the thread.
pub fn share<T: Send>(most: usize, part: impl Fn(&dyn Fn() -> bool) -> T + Sync) -> Vec<T> {
    Pool::current().share(most, part)
}

/// `f` of every one of `items`, in their order. Threads take `piece` of them at a time, and have a `Scratch` each.
pub fn map<I: Sync, Scratch: Default, T: Send>(
    items: &[I],
    piece: usize,
    f: impl Fn(&mut Scratch, &I) -> T + Sync,
) -> Vec<T> {
    let (next, piece) = (AtomicUsize::new(0), piece.max(1));
    let parts = share(items.len().div_ceil(piece), |go_on| {
        let (mut scratch, mut done) = (Scratch::default(), Vec::new());
        while go_on() {
            let first = next.fetch_add(piece, Ordering::Relaxed);
            if first >= items.len() {
                break;
            }
            let items = &items[first..items.len().min(first + piece)];
            done.push((first, items.iter().map(|item| f(&mut scratch, item)).collect()));
        }
        done
    });
    let mut pieces: Vec<(usize, Vec<T>)> = parts.into_iter().flatten().collect();
    pieces.sort_unstable_by_key(|&(first, _)| first);
    pieces.into_iter().flat_map(|(_, values)| values).collect()
}

/// Calls `f` for every one of `items`.
pub fn for_each<I>(items: impl ExactSizeIterator<Item = I> + Send, f: impl Fn(I) + Sync) {
    for_each_with(items, |(): &mut (), item| f(item));
}

/// As [`for_each`], with a `Scratch` for each thread.
pub fn for_each_with<I, Scratch: Default>(
    items: impl ExactSizeIterator<Item = I> + Send,
    f: impl Fn(&mut Scratch, I) + Sync,
) {
    let (n, items) = (items.len(), Mutex::new(items));
    share(n, |go_on| {
        let mut scratch = Scratch::default();
        while go_on() {
            let next = lock(&items).next();
            let Some(item) = next else { break };
            f(&mut scratch, item);
        }
    });
}

/// Calls `f` for every row of `values`, each of `width` numbers, with its index. Threads take `least` rows at a time, or more.
pub fn for_each_row<T: Send>(values: &mut [T], width: usize, least: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let width = width.max(1);
    // Few enough to keep all threads busy until the end.
    let rows = (values.len() / width / (8 * count())).max(least);
    for_each(values.chunks_mut(rows * width).enumerate(), |(piece, values)| {
        values.chunks_mut(width).enumerate().for_each(|(row, values)| f(piece * rows + row, values));
    });
}

/// The threads of one process.
struct Pool {
    process: u32,
    /// `None`: that of the thread that asks, which is rayon's global one unless the program made others.
    own: Option<ThreadPool>,
    /// Threads that work, those outside the pool that called [`share`] among them.
    busy: AtomicUsize,
    /// What has not begun because no thread is free.
    waiting: AtomicUsize,
    /// Of a process that was forked off this one.
    forked: OnceLock<Box<Pool>>,
}

/// Counts one up for as long as it lives.
struct Counted<'a>(&'a AtomicUsize, usize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize, by: usize) -> Counted<'a> {
        counter.fetch_add(by, Ordering::Relaxed);
        Counted(counter, by)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Pool {
    fn new(own: Option<ThreadPool>) -> Pool {
        let (busy, waiting) = Default::default();
        Pool { process: std::process::id(), own, busy, waiting, forked: OnceLock::new() }
    }

    /// That of this process. Reading it takes no lock, which a thread that did not survive a fork could hold.
    fn current() -> &'static Pool {
        static FIRST: OnceLock<Pool> = OnceLock::new();
        let mut pool = FIRST.get_or_init(|| Pool::new(None));
        while pool.process != std::process::id() {
            let threads = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
            // Rayon's global pool, too, takes it for granted that the system has threads to give.
            pool = pool.forked.get_or_init(|| Box::new(Pool::new(Some(threads.build().expect("threads can be made")))));
        }
        pool
    }

    fn threads(&self) -> usize {
        self.own.as_ref().map_or_else(rayon::current_num_threads, ThreadPool::current_num_threads)
    }

    /// Whether this thread is one of the pool.
    fn is_inside(&self) -> bool {
        self.own.as_ref().map_or_else(rayon::current_thread_index, ThreadPool::current_thread_index).is_some()
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let _busy = Counted::new(&self.busy, self.threads());
        if self.is_inside() {
            return work();
        }
        let waiting = Counted::new(&self.waiting, 1);
        let begin = || {
            drop(waiting);
            work()
        };
        match &self.own {
            Some(own) => own.install(begin),
            None => rayon::scope(|_| begin()),
        }
    }

    fn spawn(&'static self, work: impl FnOnce() + Send + 'static) {
        let waiting = Counted::new(&self.waiting, 1);
        let begin = || {
            drop(waiting);
            work();
        };
        match &self.own {
            Some(own) => own.spawn(begin),
            None => rayon::spawn(begin),
        }
    }

    /// A thread that has nothing to do, for as long as the result lives.
    fn idle(&self) -> Option<Counted<'_>> {
        let busy = Counted::new(&self.busy, 1);
        let others = self.busy.load(Ordering::Relaxed) - 1;
        (others < self.threads() && self.waiting.load(Ordering::Relaxed) == 0).then_some(busy)
    }

    fn share<T: Send>(&self, most: usize, part: impl Fn(&dyn Fn() -> bool) -> T + Sync) -> Vec<T> {
        let (team, results) = (Team::default(), Mutex::new(Vec::new()));
        let do_part = |go_on: &dyn Fn() -> bool| {
            let result = part(go_on);
            lock(&results).push(result);
        };
        match &self.own {
            Some(own) => own.in_place_scope(|scope| self.work_together(scope, &team, most, &do_part)),
            None => rayon::in_place_scope(|scope| self.work_together(scope, &team, most, &do_part)),
        }
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_together<'scope>(
        &'scope self,
        scope: &Scope<'scope>,
        team: &'scope Team,
        most: usize,
        part: &'scope (dyn Fn(&dyn Fn() -> bool) + Sync),
    ) {
        let _busy = Counted::new(&self.busy, 1);
        let invite_idle = || {
            while team.invited.load(Ordering::Relaxed) + 1 < most {
                let Some(busy) = self.idle() else { break };
                let invited = Counted::new(&team.invited, 1);
                scope.spawn(move |_| {
                    let _counted = (busy, invited);
                    if let Some(_member) = team.join() {
                        part(&|| self.waiting.load(Ordering::Relaxed) == 0);
                    }
                });
            }
            true
        };
        part(&invite_idle);
        team.close();
    }
}

/// The threads that help with one piece of work.
#[derive(Default)]
struct Team {
    /// Those asked that have not come yet, and those at work.
    invited: AtomicUsize,
    state: Mutex<TeamState>,
    changed: Condvar,
}

#[derive(Default)]
struct TeamState {
    closed: bool,
    at_work: usize,
}

/// A thread at work for a [`Team`].
struct Member<'a>(&'a Team);

impl Team {
    /// `None` if all is done already.
    fn join(&self) -> Option<Member<'_>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.at_work += 1;
        Some(Member(self))
    }

    /// Lets nobody join any more, and waits for those at work. It blocks the thread: one of rayon's that waited as rayon does would
    /// take up other work, which can be long.
    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        while state.at_work > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).at_work -= 1;
        self.0.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;
    use std::sync::mpsc::channel;
    use std::thread::{ThreadId, current};

    use rayon::prelude::*;

    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(Some(ThreadPoolBuilder::new().num_threads(threads).build().unwrap()))
    }

    /// Sums 0..`n`, one number at a time.
    fn sum(pool: &Pool, n: usize) -> usize {
        let next = AtomicUsize::new(0);
        let parts = pool.share(n, |go_on| {
            let mut sum = 0;
            while go_on() {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                sum += i;
            }
            sum
        });
        parts.iter().sum()
    }

    /// Does `work` while `n` threads of the pool are blocked.
    fn while_blocked<T>(pool: &'static Pool, n: usize, work: impl FnOnce() -> T) -> T {
        let (all_blocked, (release, released)) = (std::sync::Arc::new(Barrier::new(n + 1)), channel::<()>());
        let released = std::sync::Arc::new(Mutex::new(released));
        for _ in 0..n {
            let (all_blocked, released) = (all_blocked.clone(), released.clone());
            pool.own.as_ref().unwrap().spawn(move || {
                all_blocked.wait();
                let _ = lock(&released).recv();
            });
        }
        all_blocked.wait();
        let done = work();
        drop(release);
        done
    }

    #[test]
    fn all_idle_threads_help() {
        let pool = pool(3);
        // Nobody goes on before all are there.
        let (barrier, threads) = (Barrier::new(3), Mutex::new(Vec::<ThreadId>::new()));
        let parts = pool.share(100, |go_on| {
            assert!(go_on());
            barrier.wait();
            lock(&threads).push(current().id());
        });
        assert_eq!(parts.len(), 3, "the caller and two of three: as many threads as the pool has");
        assert!(lock(&threads).contains(&current().id()));
        assert_eq!(pool.busy.load(Ordering::Relaxed), 0);
        let alone = pool.share(1, |go_on| (go_on(), current().id()));
        assert_eq!(alone, [(true, current().id())]);
    }

    #[test]
    fn work_is_done_while_the_pool_is_blocked() {
        let pool: &'static Pool = Box::leak(Box::new(pool(4)));
        assert_eq!(while_blocked(pool, 3, || sum(pool, 1000)), 499_500);
        assert_eq!(while_blocked(pool, 3, || pool.run(|| sum(pool, 1000))), 499_500, "by the only thread left");
        let _all_busy = Counted::new(&pool.busy, 4);
        assert_eq!(while_blocked(pool, 4, || sum(pool, 1000)), 499_500, "by the caller alone");
    }

    #[test]
    fn more_work_than_threads_ends_within_the_pool_and_without() {
        let pool: &'static Pool = Box::leak(Box::new(pool(2)));
        let within = pool.run(|| (0..40).into_par_iter().map(|n| sum(pool, n)).collect::<Vec<_>>());
        let right: Vec<usize> = (0..40).map(|n: usize| n * n.saturating_sub(1) / 2).collect();
        assert_eq!(within, right);
        let without = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..40).map(|n| scope.spawn(move || sum(pool, n))).collect();
            tasks.into_iter().map(|task| task.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(without, right);
        assert_eq!((pool.busy.load(Ordering::Relaxed), pool.waiting.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn helpers_leave_for_what_waits() {
        let pool: &'static Pool = Box::leak(Box::new(pool(2)));
        let both = Barrier::new(2);
        let search = |go_on: &dyn Fn() -> bool| {
            assert!(go_on());
            both.wait();
            if pool.is_inside() {
                while go_on() {}
            } else {
                let (sender, receiver) = channel();
                pool.spawn(move || sender.send(()).unwrap());
                receiver.recv().unwrap();
            }
        };
        assert_eq!(while_blocked(pool, 1, || pool.share(2, search).len()), 2);
    }

    #[test]
    fn a_panic_is_passed_on() {
        let pool = pool(2);
        let both = Barrier::new(2);
        let work = || {
            pool.share(2, |go_on| {
                assert!(go_on());
                both.wait();
                assert!(!pool.is_inside(), "of the test");
            });
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        assert_eq!(sum(&pool, 10), 45);
    }

    #[test]
    fn maps_in_order() {
        let items: Vec<usize> = (0..1000).collect();
        for width in [0, 1, 3, 2000] {
            let mut rows = vec![0; 1000];
            for_each_row(&mut rows, width, 1 + width % 2, |row, values| values.fill(row));
            assert!(rows.iter().enumerate().all(|(i, &row)| row == i / width.max(1)), "{width}");
        }
        for piece in [0, 1, 7, 1000, 5000] {
            let doubled: Vec<usize> = map(&items, piece, |(): &mut (), i| 2 * i);
            assert!(doubled.iter().copied().eq((0..1000).map(|i| 2 * i)), "{piece}");
        }
        assert!(map(&[0u8; 0], 1, |(): &mut (), _| 0).is_empty());
    }
}
