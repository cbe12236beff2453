//! The `wr_id`s of what is posted through this crate: which queue, and which work request of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Names an operation from its post on: it is the work request's `wr_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u64);

impl OpId {
    /// What `wr_id` names, if it was given by this crate.
    #[must_use]
    pub fn from_wr_id(wr_id: u64) -> Self {
        OpId(wr_id)
    }

    /// The number that the work request carries.
    #[must_use]
    #[inline]
    pub fn wr_id(self) -> u64 {
        self.0
    }

    /// Whether it is a receive.
    #[must_use]
    pub fn is_recv(self) -> bool {
        self.0 & RECV != 0
    }

    /// The number of the operation within its queue, from 0; starts anew after 2⁴⁸. Of a receive that
    /// was posted to a [shared queue](super::SharedRecv): its slot and how often that was used.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0 & SEQUENCE
    }

    /// The operation that was posted `count` after this one to the same queue.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        OpId(self.0 & !SEQUENCE | self.0.wrapping_add(count) & SEQUENCE)
    }
}

const RECV: u64 = 1 << 63;
const SHIFT: u32 = 48;
const SEQUENCE: u64 = (1 << SHIFT) - 1;

/// The `wr_id`s of one queue: `RECV` (1 bit), the queue's number (15), what is up to the queue (48).
///
/// The number is never 0: a `wr_id` that is less than 2⁴⁸ is none of ours (POST-3). The numbers
/// of queues that are polled by one [`Poller`](super::Poller) differ, so that a completion which an
/// earlier owner of a queue pair's number left behind is not taken for another's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// How many queues have numbers of their own; those of shared receive queues come after them.
    pub(super) const QUEUES: usize = 0x3fff;

    /// Those of queue `number`, from 1 to [`QUEUES`](Self::QUEUES).
    pub(super) fn of_queue(number: usize, recv: bool) -> Self {
        debug_assert!((1..=Self::QUEUES).contains(&number));
        Numbers((number as u64) << SHIFT | if recv { RECV } else { 0 })
    }

    /// Where the numbers of one table start; another at each call.
    pub(super) fn start() -> usize {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::next(&NEXT, Self::QUEUES)
    }

    /// Those of a queue that is in no table.
    pub(super) fn of_lone_queue(recv: bool) -> Self {
        Self::of_queue(1 + Self::start(), recv)
    }

    /// Those of a shared receive queue.
    pub(super) fn of_shared_queue() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = Self::QUEUES + 1 + Self::next(&NEXT, 0x7fff - Self::QUEUES);
        Numbers((number as u64) << SHIFT | RECV)
    }

    fn next(counter: &AtomicU64, count: usize) -> usize {
        // Ordering: Relaxed. Only that the numbers differ matters.
        (counter.fetch_add(1, Ordering::Relaxed) % count as u64) as usize
    }

    /// The number in a `wr_id`.
    pub(super) fn number_in(wr_id: u64) -> usize {
        ((wr_id & !RECV) >> SHIFT) as usize
    }

    pub(super) fn number(self) -> usize {
        Self::number_in(self.0)
    }

    #[inline]
    pub(super) fn is_recv(self) -> bool {
        self.0 & RECV != 0
    }

    /// The operation with these low bits.
    #[inline]
    pub(super) fn id(self, low: u64) -> OpId {
        OpId(self.0 | (low & SEQUENCE))
    }

    /// The low bits of a `wr_id` of this queue.
    #[inline]
    pub(super) fn low(self, wr_id: u64) -> Option<u64> {
        (wr_id & !SEQUENCE == self.0).then_some(wr_id & SEQUENCE)
    }

    /// How many operations lie between the one with sequence `first` and the one with that `wr_id`.
    #[inline]
    pub(super) fn distance(self, first: u64, wr_id: u64) -> Option<u64> {
        Some(self.low(wr_id)?.wrapping_sub(first) & SEQUENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wr_id_says_whose_it_is() {
        let sends = Numbers::of_queue(7, false);
        let recvs = Numbers::of_queue(7, true);
        let id = sends.id(3);
        assert_eq!((id.sequence(), id.is_recv()), (3, false));
        assert_eq!(sends.distance(1, id.wr_id()), Some(2));
        assert_eq!(recvs.distance(1, id.wr_id()), None);
        assert_eq!(Numbers::of_queue(8, false).distance(1, id.wr_id()), None);
        assert_eq!(Numbers::number_in(recvs.id(0).wr_id()), 7);
        assert!(id.wr_id() >= 1 << 48);
    }

    #[test]
    fn sequences_start_anew_without_a_gap() {
        let numbers = Numbers::of_queue(Numbers::QUEUES, true);
        let last = numbers.id(SEQUENCE);
        assert_eq!(last.after(1), numbers.id(0));
        assert_eq!(numbers.distance(SEQUENCE, last.after(2).wr_id()), Some(2));
        // What lies before is far ahead: no queue is that long.
        assert!(numbers.distance(5, numbers.id(4).wr_id()).unwrap() > u64::from(u32::MAX));
    }

    #[test]
    fn shared_queues_have_numbers_of_their_own() {
        let numbers = Numbers::of_shared_queue();
        assert!(numbers.number() > Numbers::QUEUES && numbers.is_recv());
        assert_eq!(numbers.low(numbers.id(99).wr_id()), Some(99));
        assert!(Numbers::of_lone_queue(false).number() <= Numbers::QUEUES);
    }
}
