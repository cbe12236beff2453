//! Completion queues: bounded, can overrun, and the place where polling gives room back to the
//! queue pairs.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{Channel, Events};
use super::lock;
use super::nic::Alive;
use super::ring::Credit;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::work::{self, WorkCompletion};
use crate::{Error, Result};

/// The most completions that a queue may be asked to hold.
pub(super) const MAX_CAPACITY: u32 = 1 << 22;

/// Set in `CqInner::level` once a completion was lost; the other bits count completions.
const OVERRUN: u64 = 1 << 63;

/// A completion queue of a [`Nic`](super::Nic) (`struct ibv_cq`). A handle: clones are the same
/// queue.
///
/// It holds what it was created for. A completion that finds it full is lost, all queue pairs that
/// feed it go to `ERR`, nothing enters it any more, and [`poll`](work::CompletionQueue::poll) says so
/// after it has handed out the rest (rule R15). That makes an event, whether it was asked for or not.
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
    channel: Channel,
}

struct Queue {
    entries: VecDeque<Entry>,
    capacity: usize,
    overrun: bool,
    events: Events,
}

/// A completion, and what polling it gives back.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) completion: WorkCompletion,
    pub(super) credit: Arc<Credit>,
    /// Work requests of that queue that are over with this completion, counted from its creation.
    pub(super) freed: u64,
    /// It makes an event for who waits for solicited ones.
    pub(super) solicited: bool,
}

impl Entry {
    pub(super) fn new(completion: WorkCompletion, credit: &Arc<Credit>, freed: u64) -> Self {
        Entry {
            completion,
            credit: credit.clone(),
            freed,
            solicited: !completion.status.is_success(),
        }
    }
}

/// A completion was lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl CqInner {
    fn new(capacity: u32, channel: Channel) -> Self {
        CqInner {
            queue: Mutex::new(Queue {
                entries: VecDeque::with_capacity(capacity as usize),
                capacity: capacity as usize,
                overrun: false,
                events: Events::new(),
            }),
            level: AtomicU64::new(0),
            channel,
        }
    }

    /// Adds a completion, or loses it.
    pub(super) fn push(&self, entry: Entry) -> std::result::Result<(), Overrun> {
        self.enter(entry, false)
    }

    /// Loses a completion, as if there were no room.
    pub(super) fn overrun(&self, entry: Entry) {
        let _ = self.enter(entry, true);
    }

    fn enter(&self, entry: Entry, full: bool) -> std::result::Result<(), Overrun> {
        let mut queue = lock(&self.queue);
        let broken = queue.overrun;
        queue.overrun |= full || queue.entries.len() == queue.capacity;
        let event = if queue.overrun {
            // Whoever sleeps is to learn of it.
            !broken
        } else {
            let wanted = queue.events.wants(entry.solicited);
            queue.entries.push_back(entry);
            wanted
        };
        self.publish(&queue);
        if event {
            self.channel.make(&mut queue.events);
        }
        if queue.overrun { Err(Overrun) } else { Ok(()) }
    }

    pub(super) fn is_overrun(&self) -> bool {
        lock(&self.queue).overrun
    }

    fn publish(&self, queue: &Queue) {
        let overrun = if queue.overrun { OVERRUN } else { 0 };
        // Ordering: Relaxed: whether `poll` looks. The lock, which it takes then, is what carries CQ-2;
        // and a push that comes before a poll in any other way is seen by it.
        self.level
            .store(queue.entries.len() as u64 | overrun, Ordering::Relaxed);
    }

    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        // Ordering: Relaxed: see `publish`.
        if out.is_empty() || self.level.load(Ordering::Relaxed) == 0 {
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
    pub(super) fn create(alive: &Arc<Alive>, capacity: u32, channel: Channel) -> Result<Self> {
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
                inner: Arc::new(CqInner::new(capacity, channel)),
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

// SAFETY: CQ-1: the engine pushes an entry once (or twice, FAULT-1: nobody relies on it then), however late,
// after the last copy of its work request (a flushed one has none); `poll` takes it out under the
// lock. CQ-2: the push and the poll lock the same mutex, so what the NIC wrote before is visible
// after.
unsafe impl work::CompletionQueue for CompletionQueue {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        self.shared.inner.poll(out)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// Every queue can be slept on; with a descriptor one that
/// [`Nic::create_cq_with_channel`](super::Nic::create_cq_with_channel) made. None of these fails.
impl work::CompletionEvents for CompletionQueue {
    fn req_notify(&self, solicited_only: bool) -> Result<()> {
        lock(&self.shared.inner.queue).events.arm(solicited_only);
        Ok(())
    }

    fn take_events(&self) -> Result<u32> {
        let inner = &self.shared.inner;
        Ok(inner.channel.take(&mut lock(&inner.queue).events))
    }

    /// As the trait says. With a stepped NIC somebody else has to step meanwhile. Of several threads
    /// that sleep, one gets the event.
    #[cfg(not(loom))]
    fn wait_event(&self, timeout: Option<Duration>) -> Result<bool> {
        let inner = &self.shared.inner;
        // A timeout that the clock can't express is none.
        let deadline = timeout.and_then(|timeout| crate::sync::now().checked_add(timeout));
        let mut queue = lock(&inner.queue);
        let mut slept = true;
        loop {
            if inner.channel.take(&mut queue.events) > 0 {
                return Ok(true);
            }
            if !slept {
                return Ok(false);
            }
            (queue, slept) = inner.channel.wait(&inner.queue, queue, deadline);
        }
    }

    /// Nothing sleeps under loom: it gives the others a turn and returns early.
    #[cfg(loom)]
    fn wait_event(&self, _: Option<Duration>) -> Result<bool> {
        let event = self.take_events()? > 0;
        if !event {
            crate::sync::spin_loop();
        }
        Ok(event)
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.shared.inner.channel.fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn entry(wr_id: u64, credit: &Arc<Credit>) -> Entry {
        let completion = WorkCompletion {
            wr_id,
            ..WorkCompletion::EMPTY
        };
        Entry::new(completion, credit, wr_id)
    }

    #[test]
    fn overrun_hands_out_the_rest_first() {
        let cq = CqInner::new(2, Channel::new());
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
        let cq = CqInner::new(4, Channel::new());
        let credit = Arc::new(Credit::new());
        cq.push(entry(3, &credit)).unwrap();
        assert_eq!(credit.freed(), 0);
        let mut out = [WorkCompletion::EMPTY; 4];
        assert_eq!(cq.poll(&mut out).unwrap(), 1);
        assert_eq!(credit.freed(), 3);
        assert_eq!(cq.poll(&mut out).unwrap(), 0);
    }
}
