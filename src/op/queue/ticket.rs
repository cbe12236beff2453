//! What a future of an operation waits for: a cell inside the future itself, which the queue finds by
//! its address. So a future costs no allocation, and there is nothing to give back when it is forgotten.
//!
//! The queue keeps the address in the operation's slot, and whoever takes it out of there, by an RMW,
//! has it: the completer, to deliver, or the future that is dropped, to withdraw. A dropped future
//! that comes second waits for the completer's last write, a few instructions away. A forgotten
//! future's memory stays what it is, because it is pinned.

use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicU64, AtomicWaker, Ordering, spin_loop};
use crate::work::WcStatus;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::op) enum Outcome {
    /// By its completion.
    Completed(Completion),
    /// By the end of its queue pair; whether it was carried out is not known.
    Gone,
    /// It did not, but its completion can't come any more.
    Lost,
}

/// What a completion tells of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::op) struct Completion {
    pub(in crate::op) status: WcStatus,
    pub(in crate::op) byte_len: u32,
    pub(in crate::op) imm: Option<u32>,
    pub(in crate::op) vendor_err: u32,
}

impl Completion {
    /// That of an operation which a later one's completion says is over.
    pub(in crate::op) const SUCCESS: Completion = Completion {
        status: WcStatus::Success,
        byte_len: 0,
        imm: None,
        vendor_err: 0,
    };
}

const DELIVERED: u64 = 1;
const FINISHED: u64 = 2;
const HAS_IMM: u64 = 4;
const GONE: u64 = 8;
const LOST: u64 = 16;

/// The cell.
pub struct Ticket {
    /// The bits above, the status from bit 8 on, the length from bit 32 on.
    state: AtomicU64,
    /// Immediate data, and from bit 32 on the provider's code.
    more: AtomicU64,
    waker: AtomicWaker,
    _pinned: PhantomPinned,
}

impl Ticket {
    pub(in crate::op) fn new() -> Self {
        Ticket {
            state: AtomicU64::new(0),
            more: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            _pinned: PhantomPinned,
        }
    }

    /// The address for the slot.
    pub(in crate::op) fn address(self: Pin<&Self>) -> u64 {
        std::ptr::from_ref(self.get_ref()).expose_provenance() as u64
    }

    /// Delivers, and gives the waker to be woken.
    ///
    /// # Safety
    /// - **TICKET-1**: `address` was taken out of a slot by the caller, who put nothing in its place:
    ///   the ticket is there until it is finished.
    #[cold]
    pub(in crate::op) unsafe fn deliver(address: u64, outcome: Outcome) -> Option<Waker> {
        // SAFETY: TICKET-1; a ticket is only ever shared.
        let ticket = unsafe { &*std::ptr::with_exposed_provenance::<Ticket>(address as usize) };
        let (state, more) = match outcome {
            Outcome::Completed(done) => (
                u64::from(done.byte_len) << 32
                    | (done.status as u64) << 8
                    | done.imm.map_or(0, |_| HAS_IMM),
                u64::from(done.vendor_err) << 32 | u64::from(done.imm.unwrap_or(0)),
            ),
            Outcome::Gone => (GONE, 0),
            Outcome::Lost => (LOST, 0),
        };
        // Ordering: Relaxed, published by the next store.
        ticket.more.store(more, Ordering::Relaxed);
        // Ordering: Release pairs with the Acquire of `outcome`. The waker is taken afterwards, so
        // that a future which registers too late for that sees this (`AtomicWaker` orders the two).
        ticket.state.store(state | DELIVERED, Ordering::Release);
        let waker = ticket.waker.take();
        // Ordering: Release pairs with the Acquire of `wait_until_finished`: the ticket is not
        // touched after this.
        ticket
            .state
            .store(state | DELIVERED | FINISHED, Ordering::Release);
        waker
    }

    /// What was delivered.
    fn outcome(&self) -> Option<Outcome> {
        // Ordering: Acquire pairs with the Release of `deliver`.
        let state = self.state.load(Ordering::Acquire);
        if state & DELIVERED == 0 {
            return None;
        }
        if state & (GONE | LOST) != 0 {
            let gone = state & GONE != 0;
            return Some(if gone { Outcome::Gone } else { Outcome::Lost });
        }
        // Ordering: Relaxed, published by the state.
        let more = self.more.load(Ordering::Relaxed);
        Some(Outcome::Completed(Completion {
            status: WcStatus::from_raw((state >> 8) as u8 as u32),
            byte_len: (state >> 32) as u32,
            imm: (state & HAS_IMM != 0).then_some(more as u32),
            vendor_err: (more >> 32) as u32,
        }))
    }

    #[cold]
    fn wait_until_finished(&self) {
        // Ordering: Acquire pairs with the last Release of `deliver`.
        while self.state.load(Ordering::Acquire) & FINISHED == 0 {
            spin_loop();
        }
    }
}

/// In a model: whoever touched it did so before.
#[cfg(loom)]
impl Drop for Ticket {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.more.with_mut(|_| ());
            self.state.with_mut(|_| ());
        }
    }
}

/// A ticket in a slot. Dropped, it is out of there.
pub(in crate::op) struct Waiting<'a> {
    ticket: Pin<&'a Ticket>,
    slot: &'a AtomicU64,
}

impl<'a> Waiting<'a> {
    /// For a ticket whose address was put into `slot` for an operation that was posted.
    pub(in crate::op) fn new(ticket: Pin<&'a Ticket>, slot: &'a AtomicU64) -> Self {
        Waiting { ticket, slot }
    }

    pub(in crate::op) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.ticket.outcome() {
            return Poll::Ready(outcome);
        }
        self.ticket.waker.register(cx.waker());
        match self.ticket.outcome() {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let address = self.ticket.address();
        // Ordering: Relaxed. The value alone decides, and nobody else has seen the ticket if it is
        // still there. No other ticket has this address while this one lives.
        let withdrawn =
            self.slot
                .compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
        if withdrawn.is_err() {
            self.ticket.wait_until_finished();
        }
    }
}
