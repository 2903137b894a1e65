//! Batches on their way: while one is computed and read back, the next one is encoded and submitted.

use std::sync::mpsc::{channel, sync_channel};

use super::Searcher;
use crate::backend::DeviceKind;
use crate::{Error, Result};

/// Does `work` for every one of `batches`, for up to `depth` at the same time, and hands the results to `each`, in the order of
/// the batches. [`Searcher::in_flight`] is a depth that suits a device.
///
/// Batches are taken, and results handed over, on the thread of the caller; with a depth of 1 all is done there. No more than
/// `depth` batches are under way, or done and not handed over. The first error, in the order of batches, ends it: what is
/// under way then is completed and dropped.
///
/// # Errors
/// The first one of `work` or `each`.
pub fn pipelined<B: Send, T: Send>(
    depth: usize,
    batches: impl IntoIterator<Item = B>,
    work: impl Fn(B) -> Result<T> + Sync,
    mut each: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut batches = batches.into_iter().fuse();
    if depth <= 1 {
        return batches.try_for_each(|batch| each(work(batch)?));
    }
    let work = &work;
    let ended = || Error::Device { device: "worker".to_string(), what: "ended without an answer".to_string() };
    std::thread::scope(|scope| {
        // Each worker has its own queue of one batch and of one result: taken in turn, results come in order.
        let worker = |_| {
            let (batch_sender, batch_receiver) = sync_channel::<B>(1);
            let (result_sender, result_receiver) = channel::<Result<T>>();
            scope.spawn(move || {
                // Nobody waits for a result any more after an error.
                batch_receiver.into_iter().try_for_each(|batch| result_sender.send(work(batch))).ok();
            });
            (batch_sender, result_receiver)
        };
        let workers: Vec<_> = (0..depth).map(worker).collect();
        let hand_out = |index: usize, batches: &mut dyn Iterator<Item = B>| match batches.next() {
            Some(batch) => workers[index % depth].0.send(batch).map(|()| true).map_err(|_| ended()),
            None => Ok(false),
        };
        let (mut handed_out, mut done) = (0, 0);
        while handed_out < depth && hand_out(handed_out, &mut batches)? {
            handed_out += 1;
        }
        while done < handed_out {
            let result = workers[done % depth].1.recv().map_err(|_| ended())??;
            if hand_out(done + depth, &mut batches)? {
                handed_out += 1;
            }
            each(result)?;
            done += 1;
        }
        Ok(())
    })
}

impl Searcher {
    /// Batches that should be under way at the same time ([`pipelined`]): 2 where GPUs do the work, which else wait while the host
    /// prepares and reads; 1 where a CPU does, all of whose cores are busy with one.
    pub fn in_flight(&self) -> usize {
        let snapshot = self.index().snapshot();
        let on_cpu = snapshot.segments().iter().any(|segment| segment.backend().info().kind == DeviceKind::Cpu);
        if on_cpu { 1 } else { 2 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_however_long_each_takes() {
        for depth in [0, 1, 2, 3, 8] {
            for n in [0, 1, 2, 7] {
                let mut found = Vec::new();
                let work = |i: u64| {
                    std::thread::sleep(Duration::from_millis(if i.is_multiple_of(2) { 4 } else { 0 }));
                    Ok(10 * i)
                };
                pipelined(depth, 0..n, work, |result| {
                    found.push(result);
                    Ok(())
                })
                .unwrap();
                assert!(found.iter().copied().eq((0..n).map(|i| 10 * i)), "{depth} {n}: {found:?}");
            }
        }
    }

    #[test]
    fn two_are_under_way_at_the_same_time_and_never_more() {
        // Each pair of neighbours can only go on together.
        let (barrier, under_way) = (Barrier::new(2), AtomicUsize::new(0));
        let work = |_| {
            assert!(under_way.fetch_add(1, Ordering::SeqCst) < 2);
            barrier.wait();
            under_way.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        let mut done = 0;
        pipelined(2, 0..6, work, |()| {
            done += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(done, 6);
    }

    #[test]
    fn no_batch_is_taken_far_ahead_of_the_results() {
        let (taken, handed_over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let batches = (0..9).inspect(|_| {
            let ahead = taken.fetch_add(1, Ordering::SeqCst) + 1 - handed_over.load(Ordering::SeqCst);
            assert!(ahead <= 3, "two under way, and one whose result is on its way to the caller: {ahead}");
        });
        pipelined(2, batches, Ok, |_| {
            handed_over.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn an_error_surfaces_at_its_batch_and_ends_it() {
        for depth in [1, 2, 3] {
            let (begun, mut handed_over) = (AtomicUsize::new(0), Vec::new());
            let work = |i: usize| {
                begun.fetch_add(1, Ordering::SeqCst);
                // The later error is there first.
                std::thread::sleep(Duration::from_millis(if i == 3 { 30 } else { 0 }));
                if i >= 3 { Err(Error::argument("batch", "a good one", i)) } else { Ok(i) }
            };
            let error = pipelined(depth, 0..100, work, |i| {
                handed_over.push(i);
                Ok(())
            });
            assert!(error.unwrap_err().to_string().contains("found 3"), "depth {depth}");
            assert_eq!(handed_over, [0, 1, 2]);
            assert!(begun.into_inner() <= 3 + depth);
        }
    }

    #[test]
    fn an_error_of_the_receiver_ends_it() {
        for depth in [1, 2] {
            let error = pipelined(depth, 0..100, Ok, |i| if i == 5 { Err(Error::Cancelled) } else { Ok(()) });
            assert!(matches!(error, Err(Error::Cancelled)));
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let work = |i: usize| if i == 2 { panic!("of the test") } else { Ok(i) };
        let panicked = std::panic::catch_unwind(|| pipelined(2, 0..100, work, |_| Ok(())).is_ok());
        assert!(panicked.is_err());
    }
}
