//! The regions of one registration, and the registrations before it whose keys some of their operations
//! may use still.

use std::ptr::NonNull;

use super::Deregister;
use crate::gate::{Busy, Gate, Stage};
use crate::sync::{AtomicU64, Ordering};

/// What a region is to its registration.
pub(crate) struct Member {
    pub(crate) gate: Gate,
    /// Where it stands on the roll.
    place: AtomicU64,
}

impl Member {
    pub(crate) fn new(gate: Gate) -> Self {
        Member {
            gate,
            place: AtomicU64::new(0),
        }
    }

    fn stands_at(&self, place: usize) {
        // Ordering: Relaxed. Read and written by who has the roll.
        self.place.store(place as u64, Ordering::Relaxed);
    }
}

/// The members in any order, and what is retired. Behind a lock.
pub(super) struct Roll {
    members: Vec<(NonNull<Member>, Stage)>,
    /// Those before this one are over, for the retirement under way.
    seen: usize,
    /// What ends the registration in force; `None` once that has been done.
    pub(super) current: Option<Box<dyn Deregister>>,
    /// Retired since the retirement under way began: their turn comes after it.
    waiting: Vec<Box<dyn Deregister>>,
    /// What is retired now.
    leaving: Vec<Box<dyn Deregister>>,
    /// No operation uses their keys any more.
    over: Vec<Box<dyn Deregister>>,
}

// SAFETY: ROLL-1: the members are gates, which may be used by any thread, in regions that live as long
// as they are on the roll.
unsafe impl Send for Roll {}

impl Roll {
    pub(super) fn new(current: Box<dyn Deregister>) -> Self {
        Roll {
            members: Vec::new(),
            seen: 0,
            current: Some(current),
            waiting: Vec::new(),
            leaving: Vec::new(),
            over: Vec::new(),
        }
    }

    /// # Safety
    /// - **ROLL-1**: the member stays where it is until it is [struck off](Self::strike).
    pub(super) unsafe fn enlist(&mut self, member: NonNull<Member>) {
        // SAFETY: ROLL-1.
        unsafe { member.as_ref() }.stands_at(self.members.len());
        self.members.push((member, Stage::Start));
    }

    pub(super) fn strike(&mut self, member: &Member) {
        // Ordering: Relaxed, as in `stands_at`.
        let mut place = member.place.load(Ordering::Relaxed) as usize;
        // What comes to that place has been seen exactly if the place says so.
        if place < self.seen {
            self.seen -= 1;
            self.swap(place, self.seen);
            place = self.seen;
        }
        self.swap(place, self.members.len() - 1);
        self.members.pop();
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.members.swap(one, other);
        for place in [one, other] {
            // SAFETY: ROLL-1: it is on the roll.
            unsafe { self.members[place].0.as_ref() }.stands_at(place);
        }
    }

    /// `handle` ends what is in force from now on; what was before is retired.
    pub(super) fn replace(&mut self, handle: Box<dyn Deregister>) {
        self.waiting.extend(self.current.replace(handle));
    }

    /// How many registrations there are, the one in force included.
    pub(super) fn count(&self) -> usize {
        let old = self.waiting.len() + self.leaving.len() + self.over.len();
        old + usize::from(self.current.is_some())
    }

    /// Takes the retirement as far as it goes without waiting. `Err`: the first gate that is in the way.
    pub(super) fn advance(&mut self) -> Result<(), Busy> {
        loop {
            if self.leaving.is_empty() {
                if self.waiting.is_empty() {
                    return Ok(());
                }
                self.leaving.append(&mut self.waiting);
                self.seen = 0;
            }
            while let Some((member, stage)) = self.members.get_mut(self.seen) {
                // SAFETY: ROLL-1: it is on the roll.
                let gate = &unsafe { member.as_ref() }.gate;
                *stage = gate.retire(*stage);
                if *stage != Stage::Over {
                    return Err(Busy::new(gate));
                }
                *stage = Stage::Start;
                self.seen += 1;
            }
            self.over.append(&mut self.leaving);
        }
    }

    /// The registrations that nothing uses, to be ended.
    pub(super) fn take_over(&mut self) -> Vec<Box<dyn Deregister>> {
        std::mem::take(&mut self.over)
    }

    /// Those could not be ended.
    pub(super) fn put_back(&mut self, refused: Vec<Box<dyn Deregister>>) {
        self.over.extend(refused);
    }

    /// All of them, the one in force last; for who knows that no operation is in flight.
    pub(super) fn take_all(&mut self) -> Vec<Box<dyn Deregister>> {
        let mut all = self.take_over();
        all.append(&mut self.leaving);
        all.append(&mut self.waiting);
        all.extend(self.current.take());
        all
    }
}
