//! The completing side of a ring: what a completion says is over is released.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use super::done::Over;
use super::look::Described;
use super::ring::Ring;
use super::ticket::{Completion, Outcome};
use crate::error::{Error, Result};
use crate::work::WcStatus;

/// The completing side of one queue, for those who poll themselves; made by
/// [`send_ring`](crate::op::send_ring) and [`recv_ring`](crate::op::recv_ring). One thread at a time.
///
/// If both sides are dropped, what is outstanding still is leaked and counted in
/// [`leaks`](crate::leaks()): nobody has shown that it is over.
pub struct Completer {
    ring: Arc<Ring>,
    head: u64,
    /// Receives that are over, behind the oldest that is not.
    taken: u64,
    /// As the poster's.
    _alone: CachePadded<()>,
}

impl Completer {
    pub(in crate::op) fn new(ring: Arc<Ring>) -> Self {
        Completer {
            ring,
            head: 0,
            taken: 0,
            _alone: CachePadded::new(()),
        }
    }

    pub(in crate::op) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// How many work requests are outstanding.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.ring.len()
    }

    /// Releases what the completion of `wr_id` says is over, whatever its status (rules R11, R12): that
    /// work request, and of a send queue those that were posted before it. Does not wait, no RMW but
    /// the one that gives each region back.
    ///
    /// # Errors
    /// [`Error::UnknownCompletion`] if that is not outstanding here: unknown, stale, or told before.
    /// Nothing is released then.
    ///
    /// # Safety
    /// - **COMPLETE-1**: a completion with this `wr_id` was polled, once for each call, of a work
    ///   request that was posted to the queue that this ring stands for.
    #[inline]
    pub unsafe fn complete(&mut self, wr_id: u64, status: WcStatus) -> Result<Over> {
        let completion = Completion::with_status(status);
        // SAFETY: COMPLETE-1, as required of the caller.
        match unsafe { self.finish(wr_id, completion, &mut Waker::wake) } {
            Some(over) => Ok(over),
            None => Err(Error::UnknownCompletion { wr_id }),
        }
    }

    /// Releases all that is outstanding, and returns how many work requests that were.
    ///
    /// # Safety
    /// - **COMPLETE-2**: the queue pair was destroyed, and that returned 0 (rule R11); nothing is
    ///   prepared on the posting side.
    pub unsafe fn release_all(mut self) -> usize {
        // SAFETY: COMPLETE-2, as required of the caller.
        unsafe { self.finish_all(&mut Waker::wake) }
    }

    /// The sequence number that `wr_id` has, if it is outstanding here.
    ///
    /// The slot may be one of a work request that was taken back since, and another has its place: what
    /// that wrote is seen by AX-6, since its completion was polled.
    #[inline]
    fn find(&self, wr_id: u64) -> Option<u64> {
        let distance = self.ring.numbers().distance(self.head, wr_id)?;
        let sequence = self.head + distance;
        (distance < self.ring.slots() && self.ring.is_written(sequence)).then_some(sequence)
    }

    /// As [`complete`](Self::complete), with all that a completion tells; `None` if that is not
    /// outstanding.
    ///
    /// # Safety
    /// - **COMPLETE-1**.
    #[inline]
    pub(in crate::op) unsafe fn finish(
        &mut self,
        wr_id: u64,
        completion: Completion,
        wake: &mut impl FnMut(Waker),
    ) -> Option<Over> {
        let sequence = self.find(wr_id)?;
        let numbers = self.ring.numbers();
        let first = self.head;
        if numbers.is_recv() && sequence != first {
            // SAFETY: COMPLETE-1, as required of the caller.
            return unsafe { self.finish_ahead(sequence, completion, wake) }
                .then(|| Over::new(numbers.id(sequence), 1, completion));
        }
        let sure = match completion.status {
            WcStatus::WrFlushErr => self.first_untold(sequence),
            _ => sequence,
        };
        while self.head < sequence {
            let told = match self.head < sure {
                true => Completion::SUCCESS,
                false => completion,
            };
            // SAFETY: RING-1 by COMPLETE-1 and AX-4: a later one of the same send queue is over.
            unsafe { self.finish_head(|| Outcome::Completed(told), wake) };
        }
        // SAFETY: RING-1 by COMPLETE-1.
        unsafe { self.finish_head(move || Outcome::Completed(completion), wake) };
        let count = self.head - first;
        if self.taken != 0 {
            self.pass_taken();
        }
        self.give_back();
        let sure = sure - first;
        Some(Over::with_sure(numbers.id(first), count, sure, completion))
    }

    /// The first one before that flushed one that asked for a completion: it had none, so that one was lost.
    /// An error of another kind says that all before it are done; this one does not.
    #[cold]
    fn first_untold(&self, sequence: u64) -> u64 {
        let mut before = self.head..sequence;
        let untold = before.find(|earlier| self.ring.is_signaled(*earlier));
        untold.unwrap_or(sequence)
    }

    /// Receives are released one by one (R11): one whose completion was lost stays, and with it the
    /// room of those after it. `false` if this one, which is not the oldest, was released before.
    ///
    /// # Safety
    /// - **COMPLETE-1** for that one.
    #[cold]
    unsafe fn finish_ahead(
        &mut self,
        sequence: u64,
        completion: Completion,
        wake: &mut impl FnMut(Waker),
    ) -> bool {
        if self.ring.is_taken(sequence) {
            return false;
        }
        self.taken += 1;
        // Also if the release panics: first it is told of, then it is marked, and released no more.
        let mark = Mark {
            ring: &self.ring,
            sequence,
        };
        let untold = Untold::new(mark.ring, sequence, Outcome::Completed(completion));
        // SAFETY: RING-1 by COMPLETE-1.
        unsafe { mark.ring.release(sequence) };
        untold.tell(wake);
        drop(mark);
        true
    }

    /// The oldest receive may be over.
    #[cold]
    fn pass_taken(&mut self) {
        while self.taken != 0 && self.ring.is_taken(self.head) {
            self.head += 1;
            self.taken -= 1;
        }
    }

    #[inline]
    fn give_back(&self) {
        self.ring.give_back(self.head);
    }

    /// Releases the oldest, then tells.
    ///
    /// # Safety
    /// - **RING-1** for the oldest one, which is outstanding.
    #[inline]
    unsafe fn finish_head(
        &mut self,
        outcome: impl FnOnce() -> Outcome,
        wake: &mut impl FnMut(Waker),
    ) {
        let sequence = self.head;
        // First, so that a panic in what follows releases nothing a second time.
        self.head += 1;
        let unwound = Unwound {
            ring: &self.ring,
            head: self.head,
        };
        // SAFETY: RING-1.
        if !unsafe { self.ring.release_plain(sequence) } {
            // SAFETY: RING-1: that released nothing.
            unsafe { self.finish_watched(sequence, outcome(), wake) };
        }
        std::mem::forget(unwound);
    }

    /// # Safety
    /// - **RING-1** for that one.
    #[cold]
    unsafe fn finish_watched(&self, sequence: u64, outcome: Outcome, wake: &mut impl FnMut(Waker)) {
        let untold = Untold::new(&self.ring, sequence, outcome);
        // SAFETY: RING-1.
        unsafe { self.ring.release(sequence) };
        untold.tell(wake);
    }

    /// Releases all, and gives how many.
    ///
    /// # Safety
    /// - **COMPLETE-2**.
    pub(in crate::op) unsafe fn finish_all(&mut self, wake: &mut impl FnMut(Waker)) -> usize {
        let mut count = 0;
        while self.ring.is_written(self.head) {
            if self.ring.is_taken(self.head) {
                self.head += 1;
                continue;
            }
            count += 1;
            // SAFETY: RING-1 by COMPLETE-2.
            unsafe { self.finish_head(|| Outcome::Gone, wake) };
        }
        self.taken = 0;
        self.give_back();
        count
    }

    /// The queue pair can't be shown to be no more: what is outstanding is leaked and counted. Gives
    /// how many work requests that were.
    pub(in crate::op) fn leak_all(&mut self, wake: &mut impl FnMut(Waker)) -> usize {
        self.tell_all(Outcome::Gone, wake);
        let mut count = 0;
        while self.ring.is_written(self.head) {
            if !self.ring.is_taken(self.head) {
                self.ring.leak(self.head);
                count += 1;
            }
            self.head += 1;
        }
        self.taken = 0;
        self.give_back();
        count
    }

    /// Tells all futures that wait; the holds stay.
    pub(in crate::op) fn tell_all(&mut self, outcome: Outcome, wake: &mut impl FnMut(Waker)) {
        for sequence in self.ring.written(self.head) {
            Untold::new(&self.ring, sequence, outcome).tell(wake);
        }
    }
}

/// A receive that is over before an older one. Dropped, it is marked.
struct Mark<'c> {
    ring: &'c Ring,
    sequence: u64,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        self.ring.mark_taken(self.sequence);
    }
}

/// Dropped as a release panics, it gives back what was released before, and that one.
struct Unwound<'c> {
    ring: &'c Ring,
    head: u64,
}

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        self.ring.give_back(self.head);
    }
}

/// A future that has to be told of its operation, also if the release before that panics.
struct Untold<'r> {
    ring: &'r Ring,
    sequence: u64,
    outcome: Outcome,
}

impl<'r> Untold<'r> {
    #[inline]
    fn new(ring: &'r Ring, sequence: u64, outcome: Outcome) -> Self {
        Untold {
            ring,
            sequence,
            outcome,
        }
    }

    #[inline]
    fn tell(self, wake: &mut impl FnMut(Waker)) {
        let untold = std::mem::ManuallyDrop::new(self);
        if let Some(waker) = untold.ring.deliver(untold.sequence, untold.outcome) {
            wake(waker);
        }
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        if let Some(waker) = self.ring.deliver(self.sequence, self.outcome) {
            waker.wake();
        }
    }
}

impl fmt::Debug for Completer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer")
            .field("capacity", &self.ring.capacity())
            .field("outstanding", &Described(self))
            .finish()
    }
}
