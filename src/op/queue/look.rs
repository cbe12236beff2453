//! Looking at what is outstanding, for people: which operations, and which regions they hold.
//!
//! The completing side looks, so that nothing is released meanwhile that it would release. What the poster
//! could take away is a work request that was not posted; so it waits, after it has taken such a one out of
//! sight, for a look that goes on. That is rare, and a look is short; posts and completions pay nothing.

use std::fmt;

use super::completer::Completer;
use super::ring::Ring;
use crate::gate::{Holder, Snapshot};
use crate::op::hold::HoldWord;
use crate::op::number::OpId;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// A region as an operation holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The address of the region's gate, by which its `Debug` and the events of the feature `tracing` name it.
    pub gate: usize,
    /// Where the region's bytes start.
    pub addr: usize,
    /// How many bytes the region has; the operation may be on some of them.
    pub length: usize,
    /// Whether the NIC reads them or writes.
    pub holder: Holder,
    /// Who has the region, all in all.
    pub state: Snapshot,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does = match self.holder {
            Holder::NicWrite => "write",
            _ => "read",
        };
        let Held {
            gate,
            addr,
            length,
            state,
            ..
        } = self;
        write!(
            f,
            "NIC {does} of {length} B at {addr:#x} (gate {gate:#x}: {state})"
        )
    }
}

/// An operation that is outstanding.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::op) struct Outstanding {
    pub(in crate::op) id: OpId,
    /// Nothing if it is inline, or was taken back as this was looked at.
    pub(in crate::op) held: Vec<Held>,
}

impl fmt::Debug for Outstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = if self.id.is_recv() { "recv" } else { "send" };
        write!(f, "{queue} {:#x}: {:?}", self.id.wr_id(), self.held)
    }
}

/// As many of them as people want to read of one queue.
const MANY: usize = 16;

/// The `Debug` of one queue.
pub(in crate::op) struct Described<'c>(pub(in crate::op) &'c Completer);

impl fmt::Debug for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outstanding = self.0.outstanding();
        let seen = self.0.look(MANY);
        let more = outstanding.saturating_sub(seen.len());
        let mut list = f.debug_list();
        list.entries(seen);
        if more > 0 {
            list.entry(&format_args!("and {more} more"));
        }
        list.finish()
    }
}

/// Whether the completing side looks just now.
#[derive(Default)]
pub(super) struct Looks(AtomicU64);

/// A look that goes on.
struct Look<'a>(&'a Looks);

impl Looks {
    fn begin(&self) -> Look<'_> {
        // Ordering: Relaxed, made visible by the fence.
        self.0.store(1, Ordering::Relaxed);
        // Ordering: SeqCst pairs with the fence of `wait`: either this look finds out of sight what was taken
        // back before, or who takes it back waits for this look.
        fence(Ordering::SeqCst);
        Look(self)
    }

    /// For who has taken something out of sight: waits for a look that may have seen it.
    pub(super) fn wait(&self) {
        // Ordering: SeqCst pairs with the fence of `begin`.
        fence(Ordering::SeqCst);
        // Ordering: Acquire pairs with the Release of the look's end: it has read the slot, and the regions.
        while self.0.load(Ordering::Acquire) != 0 {
            spin_loop();
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        // Ordering: Release pairs with the Acquire of `wait`.
        self.0.0.store(0, Ordering::Release);
    }
}

impl Completer {
    /// The oldest that are outstanding, at most so many.
    pub(in crate::op) fn look(&self, most: usize) -> Vec<Outstanding> {
        let ring = self.ring();
        let look = ring.looks().begin();
        let written = ring.written(ring.head());
        let outstanding = written.filter(|sequence| !ring.is_taken(*sequence));
        let seen = outstanding.take(most).map(|sequence| Outstanding {
            id: ring.numbers().id(sequence),
            held: ring.held(sequence, &look),
        });
        seen.collect()
    }

    /// The oldest that is outstanding.
    pub(in crate::op) fn oldest(&self) -> Option<OpId> {
        let (ring, head) = (self.ring(), self.ring().head());
        ring.is_written(head).then(|| ring.numbers().id(head))
    }
}

impl Ring {
    /// The regions that this one holds. Nothing if the poster may be about to release them by itself.
    fn held(&self, sequence: u64, _: &Look<'_>) -> Vec<Held> {
        let words = self.hold_words(sequence);
        // SAFETY: HOLD-2: the ring has the holds, and nobody takes them from it during the look: the completing
        // side is the caller, and the posting side waits.
        words.map(|word| unsafe { word.held() }).collect()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("capacity", &self.capacity())
            .field("outstanding", &self.len())
            .finish()
    }
}

impl HoldWord {
    /// # Safety
    /// - **HOLD-2**: somebody owns the hold, and does not give it up meanwhile.
    unsafe fn held(self) -> Held {
        // SAFETY: HOLD-2, as required of the caller.
        let part = unsafe { self.whole() };
        Held {
            gate: self.gate(),
            addr: part.addr.as_ptr() as usize,
            length: part.length,
            holder: self.holder(),
            state: part.gate().state(),
        }
    }
}
