//! Until when operations may use keys that are no longer in force: how somebody who retires a
//! registration learns that all operations are over that began before, while others go on beginning.
//!
//! A count says how many are in flight and not which. So for the time of a retirement reads that
//! begin are counted in a field of their own, and the other one only ever falls. Of an exclusive
//! operation the word tells by itself: its end takes `RETIRING` off. Operations pay nothing for that
//! while nothing is retired.
//!
//! That an operation which is not waited for has the new keys follows from one location's order: who
//! retires publishes the keys, then marks the word with an RMW; an operation enters with an RMW, then
//! loads its key. One that is counted as old is older than the mark, or else sees what came before it.

use super::word::{Stage, Word};
use super::{Gate, Snapshot};
use crate::sync::Ordering;

impl Gate {
    /// One more step towards [`Stage::Over`], from the stage that the step before came to; the first one
    /// is taken after the new keys were published. Never waits. Whoever gets anything else than that
    /// end is woken, if on the list of this gate's waiters before this call, when there is more to see.
    pub(crate) fn retire(&self, stage: Stage) -> Stage {
        let mut seen = self.look();
        loop {
            let (new, next) = seen.retire(stage);
            // Also if it changes nothing: the RMW's place in the word's order is what counts.
            // Ordering: Release pairs with the Acquire of operations that enter from now on, and hands
            // the new keys on to them, and a waiter's entry in the list to the release that wakes.
            // Acquire pairs with the Release of those that have ended. Relaxed on failure: only the
            // value is of use.
            match self.word.compare_exchange_weak(
                seen.bits(),
                new.bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return next,
                Err(now) => seen = Word::from_bits(now),
            }
        }
    }
}

/// A gate with operations in flight that are older than a retirement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    /// Where to be woken: [`waiters`](crate::sync::waiters) of this address.
    pub(crate) address: usize,
    pub(crate) state: Snapshot,
}

impl Busy {
    pub(crate) fn new(gate: &Gate) -> Self {
        Busy {
            address: std::ptr::from_ref(gate) as usize,
            state: gate.state(),
        }
    }
}
