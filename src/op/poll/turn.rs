//! Who may use a poller's table: one at a time.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::table::Table;
use crate::gate::{Gate, Holder, Kind};
use crate::sync::{AtomicU64, MutPtr, Ordering, UnsafeCell, this_thread};
use crate::work::WorkCompletion;

/// Completions taken off the queue at a time.
pub(in crate::op) const BATCH: usize = 16;

/// The table and the turn to use it.
pub(in crate::op) struct Turns {
    gate: Gate,
    /// The thread that has the turn, or 0.
    owner: AtomicU64,
    desk: UnsafeCell<Desk>,
    /// Queue pairs that came to their end while this very thread had the turn: a waker, or memory that
    /// was freed, may have dropped one. They are seen to when the turn ends.
    left: UnsafeCell<Vec<Left>>,
}

/// What the turn is for.
struct Desk {
    table: Table,
    /// Kept, because most polls find nothing: to fill it anew would be most of what they cost.
    batch: [WorkCompletion; BATCH],
}

/// A queue pair that was destroyed, or could not be.
#[derive(Clone, Copy)]
pub(in crate::op) struct Left {
    pub(in crate::op) number: usize,
    pub(in crate::op) destroyed: bool,
}

// SAFETY: POLLER-1: the cells are used by who has the turn, one thread at a time.
unsafe impl Sync for Turns {}

impl Turns {
    pub(in crate::op) fn new(table: Table) -> Self {
        Turns {
            gate: Gate::new(),
            owner: AtomicU64::new(0),
            desk: UnsafeCell::new(Desk {
                table,
                batch: [WorkCompletion::EMPTY; BATCH],
            }),
            left: UnsafeCell::new(Vec::new()),
        }
    }

    /// The turn, if nobody has it.
    #[inline]
    pub(in crate::op) fn try_take(&self) -> Option<Turn<'_>> {
        self.gate
            .try_enter(Holder::CpuWrite)
            .map(|_| self.entered())
    }

    /// The turn, waited for; `None` if this thread has it.
    pub(in crate::op) fn take(&self) -> Option<Turn<'_>> {
        if self.is_mine() {
            return None;
        }
        let entered = self.gate.enter(Holder::CpuWrite, None);
        debug_assert!(entered.is_ok(), "only the NIC's operations are refused");
        Some(self.entered())
    }

    #[inline]
    fn entered(&self) -> Turn<'_> {
        // Ordering: Relaxed. A thread compares it with itself alone.
        self.owner.store(this_thread(), Ordering::Relaxed);
        Turn {
            desk: self.desk.get_mut(),
            end: End { turns: self },
        }
    }

    fn is_mine(&self) -> bool {
        // Ordering: Relaxed, as above.
        self.owner.load(Ordering::Relaxed) == this_thread()
    }

    /// Leaves that to the end of the turn, which this thread has. `false` if it has not.
    pub(in crate::op) fn leave(&self, left: Left) -> bool {
        if !self.is_mine() {
            return false;
        }
        self.left.get_mut().with(|all| {
            // SAFETY: POLLER-1: this thread has the turn, and `Turn` borrows the cell for no longer than
            // it takes to look.
            unsafe { &mut *all }.push(left);
        });
        true
    }
}

/// The turn.
pub(in crate::op) struct Turn<'a> {
    /// Given up before the turn ends.
    desk: MutPtr<Desk>,
    end: End<'a>,
}

/// The end of a turn.
struct End<'a> {
    turns: &'a Turns,
}

impl Turn<'_> {
    /// The table, and where completions are polled to.
    #[inline]
    pub(in crate::op) fn table_and_batch(&mut self) -> (&mut Table, &mut [WorkCompletion; BATCH]) {
        // SAFETY: POLLER-1: this is the turn.
        let desk = self.desk.with(|desk| unsafe { &mut *desk });
        (&mut desk.table, &mut desk.batch)
    }

    #[inline]
    fn next_left(&self) -> Option<Left> {
        self.end.turns.left.get_mut().with(|all| {
            // SAFETY: POLLER-1: this is the turn; the borrow ends here.
            unsafe { &mut *all }.pop()
        })
    }

    #[cold]
    fn settle(&mut self, left: Left) {
        if let Some(mut queues) = self.remove(left.number) {
            // SAFETY: COMPLETE-2: the endpoint says so, and is gone.
            unsafe { queues.settle(left.destroyed) };
        }
    }
}

impl Deref for Turn<'_> {
    type Target = Table;

    #[inline]
    fn deref(&self) -> &Table {
        // SAFETY: POLLER-1: this is the turn.
        self.desk.with(|desk| unsafe { &(*desk).table })
    }
}

impl DerefMut for Turn<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Table {
        // SAFETY: POLLER-1: this is the turn.
        self.desk.with(|desk| unsafe { &mut (*desk).table })
    }
}

/// The `Debug` of something in the table, if nobody has the turn: never waits.
pub(in crate::op) struct InTable<'a, F>(pub(in crate::op) &'a Turns, pub(in crate::op) F);

impl<F> fmt::Debug for InTable<'_, F>
where
    F: Fn(&Table, &mut fmt::Formatter<'_>) -> fmt::Result,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.try_take() {
            Some(turn) => (self.1)(&turn, f),
            None => f.write_str("busy"),
        }
    }
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        while let Some(left) = self.next_left() {
            self.settle(left);
        }
    }
}

impl Drop for End<'_> {
    #[inline]
    fn drop(&mut self) {
        // Ordering: Relaxed, as in `entered`.
        self.turns.owner.store(0, Ordering::Relaxed);
        // SAFETY: GATE-1: this is the hold that `entered` took over; the gate is borrowed.
        let _ = unsafe { Gate::release(&self.turns.gate, Kind::CpuWrite) };
    }
}
