//! Completion queues: bounded, can overrun, and the place where polling gives room back to the
//! queue pairs.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::lock;
use super::nic::Alive;
use super::ring::Credit;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::work::{self, WorkCompletion};
use crate::{Error, Result};
#[cfg(not(loom))]
use {
    crate::sync::Condvar,
    std::time::{Duration, Instant},
};

/// The most completions that a queue may be asked to hold.
pub(super) const MAX_CAPACITY: u32 = 1 << 22;

/// Set in `CqInner::level` once a completion was lost; the other bits count completions.
const OVERRUN: u64 = 1 << 63;

/// A completion queue of a [`Nic`](super::Nic) (`struct ibv_cq`). A handle: clones are the same
/// queue.
///
/// It holds what it was created for. A completion that finds it full is lost, all queue pairs that
/// feed it go to `ERR`, nothing enters it any more, and [`poll`](work::CompletionQueue::poll) says so
/// after it has handed out the rest (rule R15).
#[derive(Clone)]
pub struct CompletionQueue {
    shared: Arc<Shared>,
}

/// What the handles share; the queue pairs hold the inside only.
struct Shared {
    inner: Arc<CqInner>,
    alive: Arc<Alive>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Ordering: Relaxed: a number for `stats`.
        self.alive
            .core
            .completion_queues
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queue itself.
pub(super) struct CqInner {
    queue: Mutex<Queue>,
    /// How many completions wait, and OVERRUN, so that polling an empty queue takes no lock.
    level: AtomicU64,
    #[cfg(not(loom))]
    arrived: Condvar,
}

struct Queue {
    entries: VecDeque<Entry>,
    capacity: usize,
    overrun: bool,
    /// Threads in `wait`.
    waiting: usize,
}

/// A completion, and what polling it gives back.
pub(super) struct Entry {
    pub(super) completion: WorkCompletion,
    pub(super) credit: Arc<Credit>,
    /// Work requests of that queue that are over with this completion, counted from its creation.
    pub(super) freed: u64,
}

/// A completion was lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl CqInner {
    fn new(capacity: u32) -> Self {
        CqInner {
            queue: Mutex::new(Queue {
                entries: VecDeque::with_capacity(capacity as usize),
                capacity: capacity as usize,
                overrun: false,
                waiting: 0,
            }),
            level: AtomicU64::new(0),
            #[cfg(not(loom))]
            arrived: Condvar::new(),
        }
    }

    /// Adds a completion, or loses it.
    pub(super) fn push(&self, entry: Entry) -> std::result::Result<(), Overrun> {
        let mut queue = lock(&self.queue);
        if queue.entries.len() == queue.capacity {
            queue.overrun = true;
        }
        if !queue.overrun {
            queue.entries.push_back(entry);
        }
        self.publish(&queue);
        #[cfg(not(loom))]
        if queue.waiting > 0 {
            self.arrived.notify_all();
        }
        if queue.overrun { Err(Overrun) } else { Ok(()) }
    }

    pub(super) fn is_overrun(&self) -> bool {
        lock(&self.queue).overrun
    }

    fn publish(&self, queue: &Queue) {
        let overrun = if queue.overrun { OVERRUN } else { 0 };
        // Ordering: Release: pairs with the Acquire of `poll`. (The lock, which `poll` takes before
        // it reads an entry, is what carries CQ-2.)
        self.level
            .store(queue.entries.len() as u64 | overrun, Ordering::Release);
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        // Ordering: Acquire: pairs with the Release of `publish`.
        if out.is_empty() || self.level.load(Ordering::Acquire) == 0 {
            return Ok(0);
        }
        let mut queue = lock(&self.queue);
        let count = out.len().min(queue.entries.len());
        if count == 0 && queue.overrun {
            return Err(Error::Provider {
                call: "soft poll_cq",
                source: io::Error::other(format!(
                    "the completion queue was overrun: more than its {} completions were \
                     outstanding, and some are lost",
                    queue.capacity
                )),
            });
        }
        for (slot, entry) in out.iter_mut().zip(queue.entries.drain(..count)) {
            *slot = entry.completion;
            entry.credit.free(entry.freed);
        }
        self.publish(&queue);
        Ok(count)
    }
}

impl CompletionQueue {
    pub(super) fn create(alive: &Arc<Alive>, capacity: u32) -> Result<Self> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(Error::Provider {
                call: "soft create_cq",
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a capacity of {capacity}: it has to be 1 to {MAX_CAPACITY}"),
                ),
            });
        }
        // Ordering: Relaxed: a number for `stats`.
        alive.core.completion_queues.fetch_add(1, Ordering::Relaxed);
        Ok(CompletionQueue {
            shared: Arc::new(Shared {
                inner: Arc::new(CqInner::new(capacity)),
                alive: alive.clone(),
            }),
        })
    }

    pub(super) fn inner(&self) -> &Arc<CqInner> {
        &self.shared.inner
    }

    pub(super) fn belongs_to(&self, alive: &Arc<Alive>) -> bool {
        Arc::ptr_eq(&self.shared.alive, alive)
    }

    /// How many completions it holds at most.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        lock(&self.shared.inner.queue).capacity as u32
    }

    /// Blocks until [`poll`](work::CompletionQueue::poll) has something to say, a completion or the
    /// overrun, or until the timeout has passed; says whether it has. It stands in for a completion
    /// channel (`ibv_req_notify_cq` and `ibv_get_cq_event`) and can't miss a completion. With a
    /// stepped NIC somebody else has to step meanwhile. Another thread may poll first.
    #[cfg(not(loom))]
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let inner = &self.shared.inner;
        // A timeout that the clock can't express is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut queue = lock(&inner.queue);
        queue.waiting += 1;
        let ready = loop {
            if queue.overrun || !queue.entries.is_empty() {
                break true;
            }
            queue = match deadline {
                None => inner
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break false;
                    }
                    inner
                        .arrived
                        .wait_timeout(queue, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0
                }
            };
        };
        queue.waiting -= 1;
        ready
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = lock(&self.shared.inner.queue);
        f.debug_struct("CompletionQueue")
            .field("capacity", &queue.capacity)
            .field("waiting", &queue.entries.len())
            .field("overrun", &queue.overrun)
            .finish()
    }
}

// SAFETY: CQ-1: the engine pushes an entry once, after the last copy of its work request (a flushed
// one has none); `poll` takes it out under the lock. CQ-2: the push and the poll lock the same mutex,
// so what the NIC wrote before is visible after.
unsafe impl work::CompletionQueue for CompletionQueue {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        self.shared.inner.poll(out)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn entry(wr_id: u64, credit: &Arc<Credit>) -> Entry {
        Entry {
            completion: WorkCompletion {
                wr_id,
                ..WorkCompletion::EMPTY
            },
            credit: credit.clone(),
            freed: wr_id,
        }
    }

    #[test]
    fn overrun_hands_out_the_rest_first() {
        let cq = CqInner::new(2);
        let credit = Arc::new(Credit::new());
        assert_eq!(cq.push(entry(1, &credit)), Ok(()));
        assert_eq!(cq.push(entry(2, &credit)), Ok(()));
        assert_eq!(cq.push(entry(3, &credit)), Err(Overrun));
        let mut out = [WorkCompletion::EMPTY; 1];
        assert_eq!(cq.poll(&mut out).unwrap(), 1);
        assert_eq!(out[0].wr_id, 1);
        assert_eq!(cq.push(entry(4, &credit)), Err(Overrun), "room, but broken");
        assert_eq!(cq.poll(&mut []).unwrap(), 0);
        assert_eq!(cq.poll(&mut out).unwrap(), 1);
        assert_eq!(out[0].wr_id, 2);
        for _ in 0..2 {
            let error = cq.poll(&mut out).unwrap_err();
            assert!(error.to_string().contains("soft poll_cq"), "{error}");
        }
    }

    #[test]
    fn polling_gives_room_back() {
        let cq = CqInner::new(4);
        let credit = Arc::new(Credit::new());
        cq.push(entry(3, &credit)).unwrap();
        assert_eq!(credit.freed(), 0);
        let mut out = [WorkCompletion::EMPTY; 4];
        assert_eq!(cq.poll(&mut out).unwrap(), 1);
        assert_eq!(credit.freed(), 3);
        assert_eq!(cq.poll(&mut out).unwrap(), 0);
    }
}
