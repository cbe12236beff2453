//! An inbox: messages that a peer sends, handed from the thread that polls to the thread that reads, in order and
//! without a copy. A small component as users of `rdma-mr` write them; here to show how its proofs are written.
//!
//! The layer below keeps the NIC and the reader out of each other's bytes, whatever is done here. What is
//! left to get right, and to prove, is this component's own: which slot holds which message, how long it
//! is, when the slot may be posted again. Those are atomics of its own; in a model they are loom's.

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QueuePair, WcStatus};
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, MrReadGuard};

/// What the proofs break, one at a time, to see that they would notice. In a component of yours this is
/// under `cfg(test)`; here two crates use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A message is published before its length can be seen.
    PublishedTooWeakly,
    /// A slot may be posted again before its message has been read.
    GivenBackTooEarly,
    /// A receive that failed passes for a message.
    FailuresAreMessages,
}

struct Slot {
    mr: LocalMr,
    length: AtomicU64,
}

struct Shared {
    slots: Box<[Slot]>,
    /// Messages that have come; the n-th is in slot n modulo the number of slots.
    filled: AtomicU64,
    /// Messages that have been read: their slots may be posted again.
    emptied: AtomicU64,
    bug: Option<Bug>,
}

impl Shared {
    fn slot(&self, n: u64) -> &Slot {
        &self.slots[(n % self.slots.len() as u64) as usize]
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// The side that posts receives and polls.
pub struct Feeder<Q: QueuePair> {
    shared: Arc<Shared>,
    endpoint: Endpoint<Q>,
    posted: u64,
    failed: Option<WcStatus>,
}

/// The side that reads.
pub struct Reader {
    shared: Arc<Shared>,
    read: u64,
}

/// A message. Dropped, its slot may be posted again.
pub struct Message<'a> {
    /// There until the drop.
    bytes: Option<MrReadGuard<'a>>,
    length: usize,
    shared: &'a Shared,
    read: &'a mut u64,
}

/// An inbox of these slots, over an endpoint that is used for nothing else.
pub fn inbox<Q: QueuePair>(slots: Vec<LocalMr>, endpoint: Endpoint<Q>) -> (Feeder<Q>, Reader) {
    make(slots, endpoint, None)
}

/// One with a bug, for the proofs.
pub fn broken_inbox<Q: QueuePair>(
    slots: Vec<LocalMr>,
    endpoint: Endpoint<Q>,
    bug: Bug,
) -> (Feeder<Q>, Reader) {
    make(slots, endpoint, Some(bug))
}

fn make<Q: QueuePair>(
    slots: Vec<LocalMr>,
    endpoint: Endpoint<Q>,
    bug: Option<Bug>,
) -> (Feeder<Q>, Reader) {
    assert!(!slots.is_empty(), "an inbox without a slot");
    let slot = |mr| Slot {
        mr,
        length: AtomicU64::new(0),
    };
    let shared = Arc::new(Shared {
        slots: slots.into_iter().map(slot).collect(),
        filled: AtomicU64::new(0),
        emptied: AtomicU64::new(0),
        bug,
    });
    let reader = Reader {
        shared: Arc::clone(&shared),
        read: 0,
    };
    let feeder = Feeder {
        shared,
        endpoint,
        posted: 0,
        failed: None,
    };
    (feeder, reader)
}

impl<Q: QueuePair> Feeder<Q> {
    /// Publishes what has come and posts the slots that are free. Returns how many messages came. Does not
    /// wait.
    ///
    /// # Errors
    /// What polling says, or the post.
    pub fn turn(&mut self) -> rdma_mr::Result<usize> {
        let Feeder {
            shared,
            endpoint,
            failed,
            ..
        } = self;
        let mut came = 0;
        endpoint.poll(|done| {
            if !done.status.is_success() && !shared.has(Bug::FailuresAreMessages) {
                failed.get_or_insert(done.status);
                return;
            }
            // Ordering: Relaxed, all but the last, which publishes: only this side writes them.
            let n = shared.filled.load(Ordering::Relaxed);
            let length = u64::from(done.byte_len);
            shared.slot(n).length.store(length, Ordering::Relaxed);
            let publish = match shared.has(Bug::PublishedTooWeakly) {
                true => Ordering::Relaxed,
                false => Ordering::Release,
            };
            // Ordering: Release pairs with the Acquire in `try_next`.
            shared.filled.store(n + 1, publish);
            came += 1;
        })?;
        // Ordering: Acquire pairs with the Release in the drop of `Message`.
        let emptied = self.shared.emptied.load(Ordering::Acquire);
        let room = emptied + self.shared.slots.len() as u64;
        while self.posted < room && self.failed.is_none() {
            let slot = self.shared.slot(self.posted);
            match slot.mr.try_begin_write() {
                Ok(hold) => self.endpoint.recv(hold)?,
                Err(Error::Held { .. }) => break, // it is being read
                Err(error) => return Err(error),
            };
            self.posted += 1;
        }
        Ok(came)
    }

    /// Why no message comes any more, if that is so.
    pub fn failed(&self) -> Option<WcStatus> {
        self.failed
    }
}

impl Reader {
    /// The next message, if one has come. Does not wait.
    pub fn try_next(&mut self) -> Option<Message<'_>> {
        // Ordering: Acquire pairs with the Release in `turn`.
        if self.shared.filled.load(Ordering::Acquire) == self.read {
            return None;
        }
        let slot = self.shared.slot(self.read);
        // Ordering: Relaxed: published by `filled`.
        let length = slot.length.load(Ordering::Relaxed);
        if self.shared.has(Bug::GivenBackTooEarly) {
            self.shared.emptied.store(self.read + 1, Ordering::Release);
        }
        let bytes = slot.mr.try_as_slice();
        Some(Message {
            bytes: Some(bytes.expect("the message is the reader's")),
            length: length as usize,
            shared: &self.shared,
            read: &mut self.read,
        })
    }
}

impl std::ops::Deref for Message<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = self.bytes.as_ref().expect("there until the drop");
        &bytes[..self.length]
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        self.bytes = None; // the region first
        *self.read += 1;
        // Ordering: Release pairs with the Acquire in `turn`: who posts the slot finds it free.
        self.shared.emptied.store(*self.read, Ordering::Release);
    }
}
