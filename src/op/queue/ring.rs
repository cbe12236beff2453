//! What is outstanding on one queue, in order, from the post to the completion: a ring between one
//! poster and one completer, without a lock and without an RMW of its own.
//!
//! A work request's `wr_id` is its sequence number. Its slot has the holds as numbers, and the address
//! of a future that waits, if one does. The poster writes a slot before it posts; a bit in the slot's
//! first word changes with every time round, so that the completer sees by the slot itself whether it
//! is written (as a device tells by the owner bit of a completion queue's entry). The completer takes
//! what is over and gives the slots back (`head`).

use std::sync::Arc;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use super::look::Looks;
use super::ticket::{Outcome, Ticket};
use crate::counts;
use crate::op::hold::HoldWord;
use crate::op::number::Numbers;
use crate::sync::{AtomicU64, Ordering, Watches};
use crate::trace;

/// The last word of a slot.
const LAST: u64 = 1 << 1;
/// The slot has, or had, the address of a ticket.
const WATCHED: u64 = 1 << 2;
/// The poster may release these holds, too: after a post of a list, if they were inline.
const INLINE: u64 = 1 << 3;
/// The work request asks for a completion.
const SIGNALED: u64 = 1 << 4;
/// Set in the first time round, clear in the second, and so on; the other value: not written yet.
const ROUND: u64 = 1 << 5;
const _: () = assert!((LAST | WATCHED | INLINE | SIGNALED | ROUND) & !HoldWord::SPARE == 0);

/// How a slot is posted.
#[derive(Clone, Copy, Default)]
pub(in crate::op) struct Marks {
    pub(in crate::op) signaled: bool,
    pub(in crate::op) inline: bool,
    /// The address of a ticket.
    pub(in crate::op) ticket: Option<u64>,
}

/// What poster and completer share.
pub(in crate::op) struct Ring {
    /// The first word of each slot: for most there is no other. As many as the next power of two, so
    /// that a slot is found by a mask.
    firsts: Box<[AtomicU64]>,
    /// The words behind it, `width - 1` for each slot.
    others: Box<[AtomicU64]>,
    /// For each slot the address of a ticket.
    tickets: Box<[AtomicU64]>,
    watches: Watches,
    width: usize,
    capacity: u64,
    numbers: Numbers,
    /// The sequence number of the oldest that is outstanding; the completer's.
    head: CachePadded<AtomicU64>,
    looks: Looks,
}

impl Ring {
    pub(in crate::op) fn new(capacity: u32, max_sge: u32, numbers: Numbers) -> Arc<Self> {
        let width = max_sge.max(1) as usize;
        let slots = capacity.max(1).next_power_of_two() as usize;
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Ring {
            firsts: zeros(slots),
            others: zeros(slots * (width - 1)),
            tickets: zeros(slots),
            watches: Watches::new(slots),
            width,
            capacity: capacity.into(),
            numbers,
            head: CachePadded::default(),
            looks: Looks::default(),
        })
    }

    #[inline]
    pub(in crate::op) fn numbers(&self) -> Numbers {
        self.numbers
    }

    pub(super) fn looks(&self) -> &Looks {
        &self.looks
    }

    #[inline]
    pub(in crate::op) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many regions one work request can hold.
    #[inline]
    pub(in crate::op) fn width(&self) -> usize {
        self.width
    }

    #[inline]
    fn at(&self, sequence: u64) -> usize {
        sequence as usize & (self.firsts.len() - 1)
    }

    #[inline]
    fn first(&self, sequence: u64) -> &AtomicU64 {
        &self.firsts[self.at(sequence)]
    }

    fn others(&self, sequence: u64) -> &[AtomicU64] {
        let each = self.width - 1;
        &self.others[self.at(sequence) * each..][..each]
    }

    /// Where the ticket's address of that operation is kept.
    pub(in crate::op) fn ticket(&self, sequence: u64) -> &AtomicU64 {
        &self.tickets[self.at(sequence)]
    }

    /// How many are outstanding, at this moment. Looks at each of them.
    pub(in crate::op) fn len(&self) -> usize {
        let written = self.written(self.head());
        written.filter(|sequence| !self.is_taken(*sequence)).count()
    }

    /// Whether none is outstanding, and there is room for all.
    pub(in crate::op) fn is_empty(&self) -> bool {
        !self.is_written(self.head())
    }

    /// The sequence number of the oldest that is outstanding.
    #[inline]
    pub(in crate::op) fn head(&self) -> u64 {
        // Ordering: Acquire pairs with the Release of `give_back`: the completer has read the slots
        // before that number, and they may be written again.
        self.head.load(Ordering::Acquire)
    }

    /// How the first word of that operation's slot is marked.
    #[inline]
    fn round(&self, sequence: u64) -> u64 {
        match sequence as usize & self.firsts.len() {
            0 => ROUND,
            _ => 0,
        }
    }

    /// Whether that slot is written, and with it those before it; for the completer, and less than a
    /// ring's length ahead of `head`.
    #[inline]
    pub(in crate::op) fn is_written(&self, sequence: u64) -> bool {
        // Ordering: Acquire pairs with the Release of `write`: what belongs to that slot, and all slots
        // before it.
        let first = self.first(sequence).load(Ordering::Acquire);
        first & ROUND == self.round(sequence)
    }

    /// The sequence numbers of the slots from `head` on that are written; for the completer.
    pub(in crate::op) fn written(&self, head: u64) -> impl Iterator<Item = u64> {
        (head..head + self.slots()).take_while(|sequence| self.is_written(*sequence))
    }

    /// How far an operation can be ahead of the oldest one.
    #[inline]
    pub(in crate::op) fn slots(&self) -> u64 {
        self.firsts.len() as u64
    }

    /// Takes a slot out of the completer's sight; of that work request no completion can come.
    pub(in crate::op) fn hide(&self, sequence: u64) {
        let cell = self.first(sequence);
        // Ordering: Relaxed. The poster wrote it, and nobody comes to release it.
        let first = cell.load(Ordering::Relaxed);
        // Ordering: Relaxed. What the completer sees of it, it does not use.
        cell.store(first ^ ROUND, Ordering::Relaxed);
    }

    /// Gives back the slots before `head`.
    #[inline]
    pub(in crate::op) fn give_back(&self, head: u64) {
        // Ordering: Release pairs with the Acquire of `head`.
        self.head.store(head, Ordering::Release);
    }

    /// Writes a slot that is free, for the completer to see.
    #[inline]
    pub(in crate::op) fn write(&self, sequence: u64, holds: &[HoldWord], marks: Marks) {
        self.watches.write(self.at(sequence));
        let mut first = self.round(sequence);
        if marks.signaled {
            first |= SIGNALED;
        }
        if marks.inline {
            first |= INLINE;
        }
        if let Some(address) = marks.ticket {
            first |= WATCHED;
            // Ordering: Relaxed. Published by the first word.
            self.ticket(sequence).store(address, Ordering::Relaxed);
        }
        first |= match holds {
            [] => LAST,
            [only] => only.to_bits() | LAST,
            [head, others @ ..] => {
                self.write_others(sequence, others);
                head.to_bits()
            }
        };
        // Ordering: Release pairs with the Acquire of `is_written`.
        self.first(sequence).store(first, Ordering::Release);
    }

    #[inline(never)]
    fn write_others(&self, sequence: u64, holds: &[HoldWord]) {
        for (n, (cell, hold)) in self.others(sequence).iter().zip(holds).enumerate() {
            let last = if n + 1 == holds.len() { LAST } else { 0 };
            // Ordering: Relaxed. Published by the first word.
            cell.store(hold.to_bits() | last, Ordering::Relaxed);
        }
    }

    /// Whether that one asked for a completion; for the poster, or for the completer if it is written.
    pub(in crate::op) fn is_signaled(&self, sequence: u64) -> bool {
        // Ordering: Relaxed. The poster wrote it; published by the first word.
        self.first(sequence).load(Ordering::Relaxed) & SIGNALED != 0
    }

    /// Takes the holds of a slot that the completer may take as well; `None` if it was first, or if the
    /// slot is not of that kind.
    fn take_inline(&self, sequence: u64, seen: u64) -> Option<u64> {
        if seen & INLINE == 0 {
            return None;
        }
        // Which of the two takes it is all that matters; the words behind it are the poster's own, or
        // published by the first word.
        let empty = seen & (ROUND | SIGNALED | WATCHED) | LAST;
        // Ordering: Relaxed. See above.
        let taken = self.first(sequence).swap(empty, Ordering::Relaxed);
        (taken & INLINE != 0).then_some(taken)
    }

    /// The holds of a posted list are inline: releases them.
    ///
    /// # Safety
    /// - **RING-1**: the operation is over, or was never posted; its holds are the ring's.
    pub(in crate::op) unsafe fn release_inline(&self, sequence: u64) {
        // Ordering: Relaxed, as in `take_inline`.
        let seen = self.first(sequence).load(Ordering::Relaxed);
        if let Some(first) = self.take_inline(sequence, seen) {
            // SAFETY: RING-1.
            unsafe { self.release_words(sequence, first) };
        }
    }

    /// Releases the holds of a slot that asks for nothing else, as most do: no future waits for it, and
    /// nobody else may release it. `false`: it is of another kind, and nothing was done.
    ///
    /// # Safety
    /// - **RING-1**, and it is not released a second time.
    #[inline]
    pub(in crate::op) unsafe fn release_plain(&self, sequence: u64) -> bool {
        self.watches.read(self.at(sequence));
        // Ordering: Relaxed. Published by the first word.
        let first = self.first(sequence).load(Ordering::Relaxed);
        if first & (WATCHED | INLINE) != 0 {
            return false;
        }
        // SAFETY: RING-1.
        unsafe { self.release_words(sequence, first) };
        true
    }

    /// Releases the holds of one slot, of whatever kind.
    ///
    /// # Safety
    /// - **RING-1**, and it is not released a second time.
    pub(in crate::op) unsafe fn release(&self, sequence: u64) {
        self.watches.read(self.at(sequence));
        // Ordering: Relaxed. Published by the first word.
        let first = self.first(sequence).load(Ordering::Relaxed);
        if first & INLINE == 0 {
            // SAFETY: RING-1.
            unsafe { self.release_words(sequence, first) };
        } else if let Some(first) = self.take_inline(sequence, first) {
            // SAFETY: RING-1.
            unsafe { self.release_words(sequence, first) };
        }
    }

    /// # Safety
    /// - **RING-1**, and it is not released a second time.
    #[inline]
    unsafe fn release_words(&self, sequence: u64, first: u64) {
        if let Some(hold) = HoldWord::from_bits(first) {
            // SAFETY: HOLD-2 by RING-1.
            unsafe { hold.release() };
        }
        if first & LAST == 0 {
            // SAFETY: RING-1.
            unsafe { self.release_others(sequence) };
        }
    }

    /// # Safety
    /// - **RING-1**, and they are not released a second time.
    #[inline(never)]
    unsafe fn release_others(&self, sequence: u64) {
        for hold in self.other_holds(sequence) {
            // SAFETY: HOLD-2 by RING-1.
            unsafe { hold.release() };
        }
    }

    /// The holds behind the first word, which is not the last one.
    fn other_holds(&self, sequence: u64) -> impl Iterator<Item = HoldWord> {
        let mut last = false;
        let words = self.others(sequence).iter().map_while(move |word| {
            if last {
                return None;
            }
            // Ordering: Relaxed. Published by the first word.
            let word = word.load(Ordering::Relaxed);
            last = word & LAST != 0;
            Some(word)
        });
        words.filter_map(HoldWord::from_bits)
    }

    /// All holds of that slot, whose first word is that.
    fn all_holds(&self, sequence: u64, first: u64) -> impl Iterator<Item = HoldWord> {
        let others = (first & LAST == 0).then(|| self.other_holds(sequence));
        let others = others.into_iter().flatten();
        HoldWord::from_bits(first).into_iter().chain(others)
    }

    /// All holds of a slot that was [written](Self::written) during this look, if only the completer releases
    /// them; none if it was taken back since.
    pub(super) fn hold_words(&self, sequence: u64) -> impl Iterator<Item = HoldWord> {
        // Ordering: Relaxed. It is what `is_written` has seen, by Acquire, or out of sight: the slot is not written
        // anew during a look.
        let first = self.first(sequence).load(Ordering::Relaxed);
        let is_kept = first & ROUND == self.round(sequence) && first & INLINE == 0;
        let holds = is_kept.then(|| {
            self.watches.read(self.at(sequence));
            self.all_holds(sequence, first)
        });
        holds.into_iter().flatten()
    }

    /// Whether that receive is over already, with others before it that are not.
    pub(in crate::op) fn is_taken(&self, sequence: u64) -> bool {
        // Ordering: Relaxed. Published by the first word, or written by the completer itself.
        self.first(sequence).load(Ordering::Relaxed) & !ROUND == 0
    }

    /// Marks that receive as over; the completer's.
    pub(in crate::op) fn mark_taken(&self, sequence: u64) {
        // Ordering: Relaxed. The completer's own mark; the poster writes the slot anew only after
        // `give_back`.
        let taken = self.round(sequence);
        self.first(sequence).store(taken, Ordering::Relaxed);
    }

    /// Counts the holds of one slot as leaked.
    pub(in crate::op) fn leak(&self, sequence: u64) {
        // Ordering: Relaxed. Published by the first word.
        let first = self.first(sequence).load(Ordering::Relaxed);
        for hold in self.all_holds(sequence, first) {
            counts::leaked_hold();
            trace::leaked_hold(hold.gate(), self.numbers.id(sequence).wr_id());
        }
    }

    /// Delivers to the future that waits for that one, if one does.
    pub(in crate::op) fn deliver(&self, sequence: u64, outcome: Outcome) -> Option<Waker> {
        // Ordering: Relaxed. Published by the first word.
        if self.first(sequence).load(Ordering::Relaxed) & WATCHED == 0 {
            return None;
        }
        // Ordering: Relaxed. The value alone decides who has the ticket; what is in it was published
        // by the first word.
        let address = self.ticket(sequence).swap(0, Ordering::Relaxed);
        // SAFETY: TICKET-1: taken out just now.
        (address != 0).then(|| unsafe { Ticket::deliver(address, outcome) })?
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Nobody has shown that these are over.
        for sequence in self.written(self.head()) {
            if !self.is_taken(sequence) {
                self.leak(sequence);
            }
        }
    }
}
