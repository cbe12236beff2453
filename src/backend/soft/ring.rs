//! Work queues: the rings of posted work requests, with all their memory reserved at creation.

use std::sync::Arc;

use super::lock;
use crate::raw::{self, Whole};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::work::{SendFlags, SendOp, Sge};
use crate::{Error, Result};

/// What a send-queue work request is besides its elements.
#[derive(Clone, Copy)]
pub(super) struct SendHeader {
    pub(super) wr_id: u64,
    pub(super) op: SendOp,
    pub(super) flags: SendFlags,
    /// When it may be carried out, on the NIC's clock.
    pub(super) due: u64,
}

/// What a receive is besides its elements.
#[derive(Clone, Copy)]
pub(super) struct RecvHeader {
    pub(super) wr_id: u64,
}

/// How many work requests of a queue are over for its owner, counted from its creation: completed
/// and polled, or before one that was; of a shared receive queue, taken by a message.
pub(super) struct Credit(AtomicU64);

impl Credit {
    pub(super) fn new() -> Self {
        Credit(AtomicU64::new(0))
    }

    /// Called by `poll`, under the lock of the completion queue (or by `SrqInner::take`, under the
    /// engine's), so it only grows.
    pub(super) fn free(&self, freed: u64) {
        // Ordering: Relaxed: a count. What it counts was taken away under the ring's lock before, so a
        // post that sees the count, and has the lock, comes after that.
        self.0.store(freed, Ordering::Relaxed);
    }

    pub(super) fn freed(&self) -> u64 {
        // Ordering: Relaxed: see `free`.
        self.0.load(Ordering::Relaxed)
    }
}

/// A copy of the work request at the head: elements or inline bytes. Kept by the engine and used
/// again and again.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) elements: Vec<Sge>,
    pub(super) bytes: Vec<u8>,
}

/// A send or receive queue.
pub(super) struct WorkQueue<T> {
    ring: Mutex<Ring<T>>,
    /// Work requests that the NIC has still to carry out.
    pending: AtomicU64,
    /// The ring's `tail`, so that posting to a full queue does not get into the NIC's way.
    posted: AtomicU64,
    credit: Arc<Credit>,
    pub(super) capacity: u32,
    pub(super) max_sge: u32,
    max_inline: u32,
}

struct Ring<T> {
    /// Grows to `capacity` once.
    slots: Vec<Slot<T>>,
    /// `max_sge` for each slot.
    elements: Box<[Sge]>,
    /// `max_inline` for each slot.
    inline: Box<[u8]>,
    /// The next one that the NIC carries out, and the next one that is posted; they only grow.
    head: u64,
    tail: u64,
}

#[derive(Clone, Copy)]
struct Slot<T> {
    header: T,
    elements: usize,
    inline: usize,
}

impl<T: Copy> WorkQueue<T> {
    pub(super) fn new(capacity: u32, max_sge: u32, max_inline: u32) -> Self {
        let slots = capacity as usize;
        WorkQueue {
            ring: Mutex::new(Ring {
                slots: Vec::with_capacity(slots),
                elements: vec![Sge::default(); slots * max_sge as usize].into(),
                inline: vec![0; slots * max_inline as usize].into(),
                head: 0,
                tail: 0,
            }),
            pending: AtomicU64::new(0),
            posted: AtomicU64::new(0),
            credit: Arc::new(Credit::new()),
            capacity,
            max_sge,
            max_inline,
        }
    }

    pub(super) fn credit(&self) -> &Arc<Credit> {
        &self.credit
    }

    /// Whether the NIC has something to carry out; a hint for the one that then looks.
    pub(super) fn has_pending(&self) -> bool {
        // Ordering: Relaxed: whether to look, under the lock. That none is overlooked is the
        // doorbell's matter: it is rung after a post, and heard before this.
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Adds a work request with its elements.
    pub(super) fn post(&self, header: T, elements: &[Sge]) -> Result<()> {
        // Ordering: Relaxed: it only grows, as the credit does, so full is full; the lock decides.
        self.check_room(self.posted.load(Ordering::Relaxed))?;
        let mut ring = lock(&self.ring);
        self.check_room(ring.tail)?;
        let at = self.place(ring.tail);
        let first = at * self.max_sge as usize;
        ring.elements[first..first + elements.len()].copy_from_slice(elements);
        self.publish(
            &mut ring,
            at,
            Slot {
                header,
                elements: elements.len(),
                inline: 0,
            },
        );
        Ok(())
    }

    /// Adds a work request with a copy of the bytes that its elements name, `length` in all.
    ///
    /// # Safety
    /// The bytes are valid for reads. `length` is their number and at most `max_inline`.
    pub(super) unsafe fn post_inline(
        &self,
        header: T,
        elements: &[Sge],
        length: usize,
    ) -> Result<()> {
        // Ordering: Relaxed: it only grows, as the credit does, so full is full; the lock decides.
        self.check_room(self.posted.load(Ordering::Relaxed))?;
        let mut ring = lock(&self.ring);
        self.check_room(ring.tail)?;
        let at = self.place(ring.tail);
        let mut next = at * self.max_inline as usize;
        for element in elements {
            let from = std::ptr::with_exposed_provenance(element.addr as usize);
            let to = &mut ring.inline[next..next + element.length as usize];
            // SAFETY: RAW-1: the caller vouches for the bytes there; `to` has `element.length` bytes.
            unsafe { raw::copy(from, to.as_mut_ptr(), to.len(), Whole::To) };
            next += element.length as usize;
        }
        self.publish(
            &mut ring,
            at,
            Slot {
                header,
                elements: 0,
                inline: length,
            },
        );
        Ok(())
    }

    /// Whether there is room for one more after that many posts.
    fn check_room(&self, posted: u64) -> Result<()> {
        let occupied = posted.saturating_sub(self.credit.freed());
        if occupied >= u64::from(self.capacity) {
            return Err(Error::QueueFull {
                capacity: self.capacity,
            });
        }
        Ok(())
    }

    /// The slot of a count; `capacity` is not 0 where there was room.
    fn place(&self, count: u64) -> usize {
        (count % u64::from(self.capacity)) as usize
    }

    fn publish(&self, ring: &mut Ring<T>, at: usize, slot: Slot<T>) {
        if at < ring.slots.len() {
            ring.slots[at] = slot;
        } else {
            ring.slots.push(slot);
        }
        ring.tail += 1;
        // Ordering: Relaxed: see `post`.
        self.posted.store(ring.tail, Ordering::Relaxed);
        self.note(ring);
    }

    fn note(&self, ring: &Ring<T>) {
        // Ordering: Relaxed: see `has_pending`.
        self.pending.store(ring.tail - ring.head, Ordering::Relaxed);
    }

    /// Copies the one at the head to `taken`, without its elements and bytes being looked at.
    pub(super) fn peek(&self, taken: &mut Taken) -> Option<T> {
        let ring = lock(&self.ring);
        let (at, slot) = self.at_head(&ring)?;
        let first = at * self.max_sge as usize;
        taken.elements.clear();
        taken
            .elements
            .extend_from_slice(&ring.elements[first..first + slot.elements]);
        let first = at * self.max_inline as usize;
        taken.bytes.clear();
        taken
            .bytes
            .extend_from_slice(&ring.inline[first..first + slot.inline]);
        Some(slot.header)
    }

    /// Takes the one at the head away; with it, how many have been taken away since the creation.
    pub(super) fn pop(&self) -> Option<(T, u64)> {
        let mut ring = lock(&self.ring);
        let (_, slot) = self.at_head(&ring)?;
        ring.head += 1;
        self.note(&ring);
        Some((slot.header, ring.head))
    }

    fn at_head(&self, ring: &Ring<T>) -> Option<(usize, Slot<T>)> {
        if ring.head == ring.tail {
            return None;
        }
        let at = self.place(ring.head);
        Some((at, ring.slots[at]))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn post(queue: &WorkQueue<u64>, id: u64) -> bool {
        queue.post(id, &[Sge::default(); 2]).is_ok()
    }

    #[test]
    fn room_comes_back_with_the_credit_only() {
        let queue = WorkQueue::new(3, 2, 0);
        for id in 0..3 {
            assert!(post(&queue, id));
        }
        assert!(!post(&queue, 3));
        for id in 0..3 {
            assert_eq!(queue.pop(), Some((id, id + 1)));
        }
        assert!(!queue.has_pending());
        assert!(!post(&queue, 3), "taken, but not polled");
        queue.credit().free(2);
        assert!(post(&queue, 3) && post(&queue, 4) && !post(&queue, 5));
        assert_eq!(queue.pop(), Some((3, 4)));
        assert_eq!(queue.pop(), Some((4, 5)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_queue_of_nothing_is_full() {
        assert!(!post(&WorkQueue::new(0, 2, 0), 1));
    }

    #[test]
    fn inline_bytes_are_copied_at_once() {
        let queue = WorkQueue::new(2, 4, 6);
        let mut taken = Taken::default();
        for round in 0..5_u64 {
            let mut bytes = *b"abcdef";
            bytes[0] = round as u8;
            let at = (&raw mut bytes).expose_provenance() as u64;
            let sge = |offset, length| Sge {
                addr: at + offset,
                length,
                lkey: 0,
            };
            // SAFETY: the elements name `bytes`.
            unsafe { queue.post_inline(round, &[sge(0, 4), sge(4, 2)], 6) }.unwrap();
            bytes.fill(0);
            assert_eq!(queue.peek(&mut taken), Some(round));
            assert_eq!(taken.bytes, [round as u8, b'b', b'c', b'd', b'e', b'f']);
            assert!(taken.elements.is_empty());
            queue.pop();
            queue.credit().free(round + 1);
        }
    }
}
