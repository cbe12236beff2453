//! The posting side of a ring: prepare, post, commit (rule R10).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::prepared::{Prepared, Take};
use super::ring::{Marks, Ring};
use super::ticket::{Ticket, Waiting};
use crate::error::{Error, Rejected, Result};
use crate::op::Completer;
use crate::op::gather::Holding;
use crate::op::number::{Numbers, OpId};
use crate::work::SendFlags;

/// A ring for the send queue of a queue pair that you keep yourself: `capacity` work requests
/// (`max_send_wr`), each over at most `max_sge` regions. Allocates here and nowhere else.
///
/// The two sides may be used by two threads at a time, without a lock. Several threads that post
/// share the [`Poster`] by a lock of theirs, held over `prepare`, the post and `commit`: the ring's
/// order has to be the queue's. ([`AsyncQueuePair`](crate::op::AsyncQueuePair) is that, ready made.)
///
/// ```
/// use rdma_mr::op::{Begin, send_ring};
/// use rdma_mr::work::{SendFlags, WcStatus};
/// use rdma_mr::{LocalMr, backend::soft::Nic};
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
/// let (mut poster, mut completer) = send_ring(16, 1);
/// let prepared = poster.prepare(mr.begin_read()?, SendFlags::SIGNALED)?;
/// let (wr_id, _sge) = (prepared.wr_id(), prepared.sges());
/// // … ibv_post_send with these; if it returns 0:
/// prepared.commit();
/// assert_eq!(mr.state().nic_reads, 1);
/// // … and when a completion with that wr_id has been polled:
/// // SAFETY: COMPLETE-1: here, nothing was posted.
/// unsafe { completer.complete(wr_id, WcStatus::Success) }?;
/// assert!(mr.state().is_free());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use]
pub fn send_ring(capacity: u32, max_sge: u32) -> (Poster, Completer) {
    Ring::sides(capacity, max_sge, Numbers::of_lone_queue(false))
}

/// As [`send_ring`], for the receive queue: every work request is over by its own completion.
#[must_use]
pub fn recv_ring(capacity: u32, max_sge: u32) -> (Poster, Completer) {
    Ring::sides(capacity, max_sge, Numbers::of_lone_queue(true))
}

impl Ring {
    pub(in crate::op) fn sides(
        capacity: u32,
        max_sge: u32,
        numbers: Numbers,
    ) -> (Poster, Completer) {
        let ring = Ring::new(capacity, max_sge, numbers);
        (Poster::new(Arc::clone(&ring)), Completer::new(ring))
    }
}

/// The posting side of one queue; see [`send_ring`].
pub struct Poster {
    ring: Arc<Ring>,
    tail: u64,
    /// The sequence number for which there is no room yet, by what was last seen of the completer.
    limit: u64,
    /// The sequence number after the last one that asked for a completion.
    signaled: u64,
    /// Gives this a cache line of its own: who makes a ring often keeps both sides in one place, and
    /// each writes its numbers at every operation.
    _alone: CachePadded<()>,
}

const UNSIGNALED: &str = "the queue would be full of unsignalled work requests, and no completion \
                          would ever release one: post this one SIGNALED";

impl Poster {
    fn new(ring: Arc<Ring>) -> Self {
        Poster {
            tail: 0,
            limit: ring.capacity(),
            ring,
            signaled: 0,
            _alone: CachePadded::new(()),
        }
    }

    pub(in crate::op) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// How many work requests the queue takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity() as usize
    }

    /// How many are outstanding, those that are prepared included.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        match self.ring.numbers().is_recv() {
            // Some may be over before the oldest one.
            true => self.ring.len(),
            false => (self.tail - self.ring.head()) as usize,
        }
    }

    /// Whether one more of that kind would leave the queue full of what nothing ever releases.
    #[inline]
    fn would_stick(&self, signaled: bool) -> bool {
        !signaled && self.tail + 1 - self.signaled >= self.ring.capacity()
    }

    /// What seems to be in the way of one more, over that many regions; looks for room again.
    #[cold]
    fn check(&mut self, regions: usize, signaled: bool) -> Result<()> {
        let capacity = self.ring.capacity();
        self.limit = self.ring.head() + capacity;
        if self.tail >= self.limit {
            return Err(full(capacity));
        }
        if self.would_stick(signaled) {
            return Err(Error::InvalidWorkRequest { reason: UNSIGNALED });
        }
        if regions > self.ring.width() {
            return Err(Error::TooManySge {
                given: regions,
                max: self.ring.width() as u32, // it came as one
            });
        }
        Ok(())
    }

    /// Takes `holds` in as the next work request's, which is to be posted now, with
    /// [`wr_id`](Prepared::wr_id) and [`sges`](Prepared::sges); then [`commit`](Prepared::commit). If
    /// the post failed, drop what this returned, or [`take_back`](Prepared::take_back). Does not wait;
    /// no RMW.
    ///
    /// Of the `flags` those that matter here are [`SIGNALED`](SendFlags::SIGNALED) (a receive always
    /// is) and [`INLINE`](SendFlags::INLINE): the holds are released by `commit`, since the device has
    /// the bytes when the post has returned.
    ///
    /// Once the work request has been posted the bytes are the device's ([POST-1](crate::work::QueuePair)):
    /// dropping this instead of committing it, or holds of the wrong kind, break that.
    ///
    /// # Errors
    /// The holds, as they were, with [`Error::QueueFull`], [`Error::TooManySge`], or
    /// [`Error::InvalidWorkRequest`] for an unsignalled one that would leave nothing outstanding that
    /// is signalled in a queue that is full.
    #[inline(always)] // the result is large: in registers, if what is around it is seen
    pub fn prepare<H: Holding>(
        &mut self,
        holds: H,
        flags: SendFlags,
    ) -> Result<Prepared<'_, H>, Rejected<H>> {
        self.prepare_watched(holds, flags, None)
    }

    #[inline(always)] // as `prepare`
    pub(in crate::op) fn prepare_watched<'p, H: Holding>(
        &'p mut self,
        mut holds: H,
        flags: SendFlags,
        ticket: Option<Pin<&'p Ticket>>,
    ) -> Result<Prepared<'p, H>, Rejected<H>> {
        let inline = flags.contains(SendFlags::INLINE);
        let marks = Marks {
            signaled: self.is_signaled(flags),
            inline: false,
            ticket: ticket.map(Ticket::address),
        };
        if let Err(error) = self.admit(&mut holds, marks, inline) {
            return Err(Rejected::new(holds, error));
        }
        let id = self.ring.numbers().id(self.tail - 1);
        Ok(Prepared::new(self, holds, id, inline, ticket))
    }

    #[inline]
    fn is_signaled(&self, flags: SendFlags) -> bool {
        flags.contains(SendFlags::SIGNALED) || self.ring.numbers().is_recv()
    }

    /// Writes the next slot, if there is room; with no hold in it if they are `kept` elsewhere.
    #[inline(always)] // as `prepare`
    fn admit<H: Holding>(&mut self, holds: &mut H, marks: Marks, kept: bool) -> Result<()> {
        holds.refresh();
        let words = holds.words();
        // One region fits always.
        let wide = words.len() > 1 && words.len() > self.ring.width();
        if self.tail >= self.limit || wide || self.would_stick(marks.signaled) {
            self.check(words.len(), marks.signaled)?;
        }
        self.ring
            .write(self.tail, if kept { &[] } else { words }, marks);
        self.tail += 1;
        if marks.signaled {
            self.signaled = self.tail;
        }
        Ok(())
    }

    /// Takes the slots from `tail` on back, which were not posted.
    fn roll_back(&mut self, tail: u64) {
        (tail..self.tail).for_each(|sequence| self.ring.hide(sequence));
        self.ring.looks().wait();
        self.tail = tail;
        if self.signaled > tail {
            let first = tail.saturating_sub(self.ring.capacity());
            let last = (first..tail).rev().find(|at| self.ring.is_signaled(*at));
            self.signaled = last.map_or(first, |at| at + 1);
        }
    }

    /// Begins a list of work requests that is to be posted in one call.
    pub fn chain(&mut self) -> Chain<'_> {
        Chain {
            first: self.tail,
            poster: self,
        }
    }
}

#[cold]
fn full(capacity: u64) -> Error {
    match capacity as u32 {
        0 => Error::InvalidWorkRequest {
            reason: "the queue takes no work request: receives of a queue pair with a shared queue \
                     are posted there",
        },
        capacity => Error::QueueFull { capacity },
    }
}

impl Take for Poster {
    fn take_back(&mut self, latest: OpId, ticket: Option<Pin<&Ticket>>) {
        if let Some(ticket) = ticket {
            // A poller that fails tells all whose operations it finds in the ring, posted or not.
            drop(Waiting::new(ticket, self.ring.ticket(latest.sequence())));
        }
        self.roll_back(self.tail - 1);
    }
}

/// Work requests that are about to be posted as one list (`next` of `struct ibv_send_wr`). Dropped, all
/// of them are taken back, and the holds are released (rule R10).
#[must_use = "dropping it takes the work requests back"]
pub struct Chain<'p> {
    poster: &'p mut Poster,
    first: u64,
}

impl Chain<'_> {
    /// Takes `holds` in for one more work request, and gives the name whose
    /// [`wr_id`](OpId::wr_id) it is to have. Copy the scatter/gather elements before.
    ///
    /// # Errors
    /// As [`Poster::prepare`]; what was pushed before stays.
    pub fn push<H: Holding>(
        &mut self,
        mut holds: H,
        flags: SendFlags,
    ) -> Result<OpId, Rejected<H>> {
        match self.admit(&mut holds, flags) {
            Ok(id) => {
                std::mem::forget(holds);
                Ok(id)
            }
            Err(error) => Err(Rejected::new(holds, error)),
        }
    }

    /// As [`push`](Self::push); the caller forgets the holds, or [`abandon`](Self::abandon)s the list.
    pub(in crate::op) fn admit<H: Holding>(
        &mut self,
        holds: &mut H,
        flags: SendFlags,
    ) -> Result<OpId> {
        let id = self.next_id();
        let poster = &mut *self.poster;
        let marks = Marks {
            signaled: poster.is_signaled(flags),
            inline: flags.contains(SendFlags::INLINE),
            ticket: None,
        };
        poster.admit(holds, marks, false)?;
        Ok(id)
    }

    /// The name of the one that is pushed next.
    pub(in crate::op) fn next_id(&self) -> OpId {
        self.poster.ring.numbers().id(self.poster.tail)
    }

    /// Takes the list back without a release: somebody else has the holds.
    pub(in crate::op) fn abandon(self) {
        let mut chain = std::mem::ManuallyDrop::new(self);
        let first = chain.first;
        chain.poster.roll_back(first);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        (self.poster.tail - self.first) as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All were posted.
    pub fn commit(self) {
        let count = self.len();
        self.commit_first(count);
    }

    /// The first `count` were posted, those before the bad one; the holds of the others are
    /// released. (The index of the bad one, [`BadWr::at`](crate::work::BadWr::at), is that count.)
    pub fn commit_first(mut self, count: usize) {
        let posted = self.first + (count as u64).min(self.len() as u64);
        for sequence in self.first..posted {
            // SAFETY: RING-1: QP-1: inline ones are over when the post has returned.
            unsafe { self.poster.ring.release_inline(sequence) };
        }
        // What is left is taken back by the drop.
        self.first = posted;
    }

    /// Those before the work request `bad` were posted (`bad_wr`, as the provider set it); the holds of
    /// the others are released.
    ///
    /// # Errors
    /// [`Error::UnknownCompletion`] if `bad` is not in this list: then it is not known what was posted,
    /// and all of it counts as posted, to be released by completions or the queue pair's end.
    pub fn commit_before(self, bad: OpId) -> Result<()> {
        let wr_id = bad.wr_id();
        let at = self.poster.ring.numbers().distance(self.first, wr_id);
        match at.filter(|at| *at < self.len() as u64) {
            Some(at) => {
                self.commit_first(at as usize);
                Ok(())
            }
            None => {
                std::mem::forget(self);
                Err(Error::UnknownCompletion { wr_id })
            }
        }
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        let (first, end) = (self.first, self.poster.tail);
        self.poster.roll_back(first);
        for sequence in first..end {
            // SAFETY: RING-1: never posted, and out of the completer's sight by now.
            unsafe { self.poster.ring.release(sequence) };
        }
    }
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poster").field(&self.ring).finish()
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("len", &self.len()).finish()
    }
}
