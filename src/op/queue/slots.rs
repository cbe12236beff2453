//! What is outstanding on a shared receive queue, whose completions come in any order and at several
//! completion queues: a slot for each, with a generation, so that a `wr_id` is good for one completion.
//!
//! The poster has a list of free slots for itself. Completers put slots on a second list, which the
//! poster takes as a whole when its own is empty: nobody takes single slots from a list that is shared.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::done::Over;
use super::prepared::{Prepared, Take};
use super::ticket::{Completion, Ticket};
use crate::counts;
use crate::error::{Error, Rejected, Result};
use crate::op::gather::Holding;
use crate::op::hold::HoldWord;
use crate::op::number::{Numbers, OpId};
use crate::sync::{AtomicU64, Ordering, Watches};
use crate::trace;
use crate::work::WcStatus;

const INDEX_BITS: u32 = 20;
const MAX_SLOTS: u32 = 1 << INDEX_BITS;
/// In a slot's state, beside the generation: it has holds.
const BUSY: u64 = 1;
/// The generations that fit into a `wr_id`, as the state counts them.
const GENERATIONS: u64 = (1 << (48 - INDEX_BITS)) - 1;

/// Slots for a shared receive queue that you keep yourself: `capacity` work requests (at most 2²⁰),
/// each over at most `max_sge` regions. Allocates here and nowhere else.
///
/// One thread at a time posts; any number complete, each with a clone of the [`SlotCompleter`]. A
/// completion costs two RMWs besides those that give the regions back.
#[must_use]
pub fn recv_slots(capacity: u32, max_sge: u32) -> (SlotPoster, SlotCompleter) {
    let slots = Arc::new(Slots::new(capacity.min(MAX_SLOTS), max_sge));
    let poster = SlotPoster {
        free: u64::from(slots.capacity != 0),
        slots: Arc::clone(&slots),
        _alone: CachePadded::new(()),
    };
    (poster, SlotCompleter { slots })
}

struct Slots {
    states: Box<[AtomicU64]>,
    /// The slot after each in its list, plus 1; 0: none.
    next: Box<[AtomicU64]>,
    /// The first slot of those that were given back, plus 1.
    freed: CachePadded<AtomicU64>,
    words: Box<[AtomicU64]>,
    watches: Watches,
    width: usize,
    capacity: u32,
    numbers: Numbers,
}

impl Slots {
    fn new(capacity: u32, max_sge: u32) -> Self {
        let count = u64::from(capacity);
        let width = max_sge.max(1) as usize;
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Slots {
            states: zeros(capacity as usize),
            next: (2..count + 2)
                .map(|next| AtomicU64::new(if next > count { 0 } else { next }))
                .collect(),
            freed: CachePadded::new(AtomicU64::new(0)),
            words: zeros(capacity as usize * width),
            watches: Watches::new(capacity as usize),
            width,
            capacity,
            numbers: Numbers::of_shared_queue(),
        }
    }

    fn words(&self, at: usize) -> &[AtomicU64] {
        &self.words[at * self.width..][..self.width]
    }

    fn id(&self, at: usize, generation: u64) -> OpId {
        self.numbers
            .id((generation & GENERATIONS) << INDEX_BITS | at as u64)
    }

    /// The slot that `wr_id` names, for whoever comes first with it.
    fn claim(&self, wr_id: u64) -> Option<usize> {
        let low = self.numbers.low(wr_id)?;
        let at = (low & u64::from(MAX_SLOTS - 1)) as usize;
        let busy = (low >> INDEX_BITS) << 1 | BUSY;
        self.claim_in(at, busy).then_some(at)
    }

    /// Claims that slot if its state is this one.
    fn claim_in(&self, at: usize, busy: u64) -> bool {
        let Some(state) = self.states.get(at) else {
            return false;
        };
        let free = (((busy >> 1) + 1) & GENERATIONS) << 1;
        // Ordering: Acquire pairs with the Release of `write`: the words are there.
        state
            .compare_exchange(busy, free, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Writes a slot that is free, and lets completers see it.
    fn write(&self, at: usize, holds: &[HoldWord]) -> OpId {
        self.watches.write(at);
        for (n, cell) in self.words(at).iter().enumerate() {
            let word = holds.get(n).map_or(0, |word| word.to_bits());
            // Ordering: Relaxed. Published by the state.
            cell.store(word, Ordering::Relaxed);
        }
        // Ordering: Relaxed. Only the poster changes a free slot; `take` acquired what came before.
        let generation = self.states[at].load(Ordering::Relaxed) >> 1;
        // Ordering: Release pairs with the Acquire of `claim_in`.
        self.states[at].store(generation << 1 | BUSY, Ordering::Release);
        self.id(at, generation)
    }

    fn holds(&self, at: usize) -> impl Iterator<Item = HoldWord> {
        self.watches.read(at);
        self.words(at)
            .iter()
            // Ordering: Relaxed. Published by the state.
            .map_while(|word| HoldWord::from_bits(word.load(Ordering::Relaxed)))
    }

    /// Releases the holds of a slot and gives it back to the poster.
    ///
    /// # Safety
    /// - **SLOT-1**: the work request is over, and the caller has claimed the slot.
    unsafe fn release(&self, at: usize) {
        for hold in self.holds(at) {
            // SAFETY: HOLD-2 by SLOT-1.
            unsafe { hold.release() };
        }
        // Ordering: Relaxed, here and below. A guess, which the exchange checks.
        let mut first = self.freed.load(Ordering::Relaxed);
        loop {
            // Ordering: Relaxed. Published by the exchange.
            self.next[at].store(first, Ordering::Relaxed);
            // Ordering: Release pairs with the Acquire of `take`: the slot has been read.
            let exchanged = self.freed.compare_exchange(
                first,
                at as u64 + 1,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Claims all that are busy, and gives their places.
    fn claim_all(&self) -> impl Iterator<Item = usize> {
        self.states.iter().enumerate().filter_map(|(at, state)| {
            // Ordering: Relaxed. A guess, which the exchange checks.
            let seen = state.load(Ordering::Relaxed);
            (seen & BUSY != 0 && self.claim_in(at, seen)).then_some(at)
        })
    }

    fn leak_all(&self) -> usize {
        self.claim_all()
            .inspect(|at| self.holds(*at).for_each(|hold| self.leak(*at, hold)))
            .count()
    }

    fn leak(&self, at: usize, hold: HoldWord) {
        counts::leaked_hold();
        // Ordering: Relaxed. Claimed by this thread: the generation after that of the work request.
        let generation = (self.states[at].load(Ordering::Relaxed) >> 1).wrapping_sub(1);
        trace::leaked_hold(hold.gate(), self.id(at, generation).wr_id());
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // Nobody has shown that these are over.
        self.leak_all();
    }
}

/// The posting side of a shared receive queue; see [`recv_slots`].
pub struct SlotPoster {
    slots: Arc<Slots>,
    /// The first slot of its own list, plus 1.
    free: u64,
    /// As the [`Poster`](crate::op::Poster)'s.
    _alone: CachePadded<()>,
}

impl SlotPoster {
    /// As [`Poster::prepare`](crate::op::Poster::prepare), for a receive. Does not wait; an RMW if the
    /// poster has to fetch the slots that were given back.
    ///
    /// # Errors
    /// The holds, as they were, with [`Error::QueueFull`] or [`Error::TooManySge`].
    pub fn prepare<H: Holding>(
        &mut self,
        mut holds: H,
    ) -> Result<Prepared<'_, H, SlotPoster>, Rejected<H>> {
        holds.refresh();
        let given = holds.words().len();
        if given > self.slots.width {
            let max = self.slots.width as u32; // it came as one
            return Err(Rejected::new(holds, Error::TooManySge { given, max }));
        }
        let Some(at) = self.take() else {
            let capacity = self.slots.capacity;
            return Err(Rejected::new(holds, Error::QueueFull { capacity }));
        };
        let id = self.slots.write(at, holds.words());
        Ok(Prepared::new(self, holds, id, false, None))
    }

    fn take(&mut self) -> Option<usize> {
        if self.free == 0 {
            // Ordering: Acquire pairs with the Release of `Slots::release`, of every slot in the list:
            // the exchanges in between continue its release sequence.
            self.free = self.slots.freed.swap(0, Ordering::Acquire);
        }
        let at = self.free.checked_sub(1)? as usize;
        // Ordering: Relaxed. Its own, or acquired with the list.
        self.free = self.slots.next[at].load(Ordering::Relaxed);
        Some(at)
    }
}

impl Take for SlotPoster {
    fn take_back(&mut self, id: OpId, _ticket: Option<Pin<&Ticket>>) {
        if let Some(at) = self.slots.claim(id.wr_id()) {
            // Ordering: Relaxed. The list is the poster's own.
            self.slots.next[at].store(self.free, Ordering::Relaxed);
            self.free = at as u64 + 1;
        }
    }
}

/// The completing side of a shared receive queue; see [`recv_slots`]. Clones are the same.
#[derive(Clone)]
pub struct SlotCompleter {
    slots: Arc<Slots>,
}

impl SlotCompleter {
    /// Releases the holds of the receive with that `wr_id`, whatever its status. Does not wait.
    ///
    /// # Errors
    /// [`Error::UnknownCompletion`] if that is not outstanding here: unknown, stale, or told before.
    /// Nothing is released then.
    ///
    /// # Safety
    /// - **COMPLETE-1**: a completion with this `wr_id` was polled, once for each call, of a work
    ///   request that was posted to the queue that these slots stand for.
    pub unsafe fn complete(&self, wr_id: u64, status: WcStatus) -> Result<Over> {
        // SAFETY: COMPLETE-1, as required of the caller.
        unsafe { self.finish(wr_id, Completion::with_status(status)) }
            .ok_or(Error::UnknownCompletion { wr_id })
    }

    /// # Safety
    /// - **COMPLETE-1**.
    pub(in crate::op) unsafe fn finish(&self, wr_id: u64, completion: Completion) -> Option<Over> {
        let at = self.slots.claim(wr_id)?;
        // SAFETY: SLOT-1 by COMPLETE-1.
        unsafe { self.slots.release(at) };
        Some(Over::new(OpId::from_wr_id(wr_id), 1, completion))
    }

    /// Releases all that is outstanding, and returns how many work requests that were.
    ///
    /// # Safety
    /// - **COMPLETE-2**: the shared receive queue was destroyed, and that returned 0; nothing is
    ///   prepared on the posting side.
    pub unsafe fn release_all(&self) -> usize {
        self.slots
            .claim_all()
            // SAFETY: SLOT-1 by COMPLETE-2.
            .inspect(|at| unsafe { self.slots.release(*at) })
            .count()
    }

    pub(in crate::op) fn leak_all(&self) -> usize {
        self.slots.leak_all()
    }

    /// The number in its `wr_id`s.
    pub(in crate::op) fn number(&self) -> usize {
        self.slots.numbers.number()
    }

    /// How many work requests are outstanding; looks at every slot.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let busy = |state: &&AtomicU64| {
            // Ordering: Relaxed. A number for people.
            state.load(Ordering::Relaxed) & BUSY != 0
        };
        self.slots.states.iter().filter(busy).count()
    }
}

impl fmt::Debug for SlotPoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotPoster")
            .field("capacity", &self.slots.capacity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SlotCompleter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotCompleter")
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}
