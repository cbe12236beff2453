//! The one word of a region, and everything that is done to it.
//!
//! [`word`](self) says what its bits mean, this file does the RMWs with their orderings, `wait` spins
//! and parks. Nothing here knows what the word protects.
//!
//! # Costs
//! | | RMWs | allocations |
//! |---|---|---|
//! | acquire or refuse by `try`: refused | 0 (one load) | 0 |
//! | acquire, shared | 1 | 0 |
//! | acquire, exclusive | 1 (compare-exchange) | 0 |
//! | release, nobody waits | 1 | 0 |
//! | wait in the spin phase | + 1 (it is counted), + 1 or 2 more (the guess that the gate is free, taken back if shared) | 0 |
//! | wait parked, by a thread | + 2 and the lock of a waiters' list | 0 |
//! | wait parked, by a future | + 2 and the lock of a waiters' list | 1 |

mod bias;
mod enter;
mod locked;
mod orphan;
mod patience;
mod permit;
mod retire;
mod slots;
mod snapshot;
mod wait;
mod word;

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::sync::{AtomicU64, Ordering, fence, pause};

pub use bias::{Barrier, ReadBias};
pub(crate) use locked::Locked;
pub use patience::Patience;
pub use permit::Permit;
pub(crate) use permit::{Reading, Writing};
pub(crate) use retire::Busy;
pub use snapshot::{Snapshot, Writer};
pub use wait::Acquire;
pub use word::Holder;
use word::Word;
pub(crate) use word::{Kind, Stage};

/// One atomic word that says who holds what it stands for: any number of shared holders
/// (CPU readers, NIC reads) or one exclusive holder (CPU writer, NIC write).
///
/// Every region has one. It can also be used alone, over anything that a NIC and threads share;
/// then it protects what its user says it protects.
///
/// ```
/// use rdma_mr::gate::{Gate, Holder};
///
/// let gate = Gate::new();
/// let in_flight = gate.try_acquire(Holder::NicRead).expect("free");
/// assert!(gate.try_acquire(Holder::CpuRead).is_ok()); // both only read
/// assert!(gate.try_acquire(Holder::CpuWrite).is_err());
/// drop(in_flight);
/// assert!(gate.try_acquire(Holder::CpuWrite).is_ok());
/// ```
#[repr(C)]
pub struct Gate {
    word: AtomicU64,
    waits: AtomicU64,
    /// Since when there was no exclusive hold, and how many readers were counted: see `bias`.
    quiet: AtomicU64,
    stand_back_ns: u32,
    quiet_us: u32,
    // What is looked at often and never written: a region puts this on another line than what is above.
    spin_ns: u32,
    /// The word of a free gate that nobody has marked: what is mostly found.
    free: u8,
    /// What readers who are published have; `None` for a gate that is never biased.
    bias: Option<Barrier>,
    /// What its owner keeps here, where there is room: nothing to the gate.
    pub(crate) label: u8,
}

impl Gate {
    /// From here on it is not written after it was made.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const UNWRITTEN: usize = std::mem::offset_of!(Gate, spin_ns);

    /// A free gate with the default [`Patience`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_patience(Patience::default())
    }

    /// A free gate whose waiters have that patience.
    #[must_use]
    pub fn with_patience(patience: Patience) -> Self {
        let nanos = |d: Duration| u32::try_from(d.as_nanos()).unwrap_or(u32::MAX);
        Gate {
            word: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            stand_back_ns: nanos(patience.stand_back),
            quiet_us: 0,
            spin_ns: nanos(patience.spin),
            free: 0,
            bias: None,
            label: 0,
        }
    }

    /// The word of a free gate that nobody has marked.
    #[inline]
    fn free(&self) -> u64 {
        self.free.into()
    }

    #[inline]
    fn look(&self) -> Word {
        // Ordering: Relaxed. What is seen here only decides what to try; the RMW that follows, or
        // the refusal, hands on no data.
        Word::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// Who holds it, at this moment. One load; of a gate that is biased, also those of the slots.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        let seen = self.look();
        seen.snapshot(self.published(seen))
    }

    /// How many acquisitions found it held and had to wait, spinning or parked.
    #[must_use]
    pub fn waits(&self) -> u64 {
        // Ordering: Relaxed. A counter for people; it orders nothing.
        self.waits.load(Ordering::Relaxed)
    }

    /// Whether `holder` would be let in now. One load, or as [`state`](Self::state).
    #[must_use]
    #[inline]
    pub fn is_open_to(&self, holder: Holder) -> bool {
        let seen = self.look();
        match holder.is_shared() {
            true => !seen.has(Word::bars_shared(holder)),
            false => !seen.has(Word::refuses(holder)) && self.published(seen) == 0,
        }
    }

    /// Lets `holder` in if nothing is in the way. Never waits: one load if refused, plus one RMW if
    /// not.
    ///
    /// Refused as well is who wants to join shared holders while an exclusive side waits for them
    /// to leave, lest it waits for ever.
    ///
    /// # Errors
    /// [`Error::Held`](crate::Error::Held) with who held it, [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Panics
    /// With 2¹⁹ holds of one shared kind at a time (guards that were forgotten, most likely), before
    /// any harm is done.
    pub fn try_acquire(&self, holder: Holder) -> Result<Permit<'_>> {
        self.try_permit(holder).ok_or_else(|| self.refusal(holder))
    }

    /// Lets `holder` in, or waits: spins, then parks the thread.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed): an operation of the NIC asked, and the gate is closed to those.
    ///
    /// # Panics
    /// As [`try_acquire`](Self::try_acquire).
    #[inline(always)] // as in `mr::forms`
    pub fn acquire(&self, holder: Holder) -> Result<Permit<'_>> {
        self.permit_or(holder, || self.enter_slow(holder, None))
    }

    /// As [`acquire`](Self::acquire), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`](crate::Error::Deadline) with who held it then; [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Panics
    /// As [`try_acquire`](Self::try_acquire).
    pub fn acquire_until(&self, holder: Holder, deadline: Instant) -> Result<Permit<'_>> {
        self.permit_or(holder, || self.enter_slow(holder, Some(deadline)))
    }

    /// As [`acquire`](Self::acquire), but instead of parking it calls `progress` between two looks:
    /// a thread that polls the completion queue itself does not wait for itself. Never parks.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Panics
    /// As [`try_acquire`](Self::try_acquire), and whatever `progress` panics with.
    pub fn acquire_with(&self, holder: Holder, progress: impl FnMut()) -> Result<Permit<'_>> {
        self.permit_or(holder, || self.enter_slow_with(holder, progress))
    }

    /// As [`acquire`](Self::acquire), as a future: never blocks the thread, needs no runtime.
    /// Dropping it gives its place up; forgetting it costs others at most one
    /// [`stand_back`](Patience::stand_back).
    pub fn acquire_async(&self, holder: Holder) -> Acquire<'_> {
        Acquire::new(self, holder)
    }

    /// Refuses operations of the NIC from now on; those in flight go on, and the CPU's accesses are
    /// let in as before. Who waits to begin one gets [`Error::Closed`](crate::Error::Closed).
    pub fn close(&self) {
        // Ordering: Relaxed. Closing hands on no data; for who marked the word, see `wake_all`.
        let before = Word::from_bits(self.word.fetch_or(Word::CLOSED, Ordering::Relaxed));
        if before.has(Word::WAITING) {
            wait::wake_all(self);
        }
    }

    /// Gives back one hold. `true`: the handle is gone and this was the last hold, so the caller
    /// frees, with everything that every holder did before it visible.
    ///
    /// Takes a pointer because it touches nothing of the gate after its RMW, unless it returns
    /// `true`: somebody else may free the memory from then on.
    ///
    /// # Safety
    /// - **GATE-1**: the caller owns a hold of that kind on this gate, which lives; the hold counts
    ///   as given back.
    #[inline]
    pub(crate) unsafe fn release(gate: *const Gate, kind: Kind) -> bool {
        // SAFETY: GATE-1: the gate lives until the RMW, since the caller still holds it.
        let held = unsafe { &*gate };
        let holder = kind.holder();
        let before = if holder.is_shared() {
            // Ordering: Release pairs with the Acquire of the next exclusive acquisition, and with
            // the fence of the one who frees: what this holder read is over before they write.
            Word::from_bits(held.word.fetch_sub(kind.unit(), Ordering::Release))
        } else {
            held.take_off_exclusive(holder, 0)
        };
        if before.release_is_done(holder) {
            return false;
        }
        Self::after_release(gate, before, kind)
    }

    /// The RMW of an exclusive release, leaving the bits in `kept` as they are. Nothing of the gate is touched
    /// after it. It guesses that nobody waits, which spares the hot path the load of a line that was written just
    /// before.
    #[inline]
    fn take_off_exclusive(&self, holder: Holder, kept: u64) -> Word {
        let mut seen = self.free() | Kind::of(holder).unit();
        loop {
            let left = seen & (Word::exclusive_release_mask(holder) | kept);
            // Ordering: Release pairs with the Acquire of every later acquisition: what this holder
            // wrote is seen by who comes in next. Relaxed on failure: only the value is of use.
            let exchanged =
                self.word
                    .compare_exchange(seen, left, Ordering::Release, Ordering::Relaxed);
            match exchanged {
                Ok(before) => return Word::from_bits(before),
                Err(now) => seen = now,
            }
        }
    }

    /// What a release owes that found somebody waiting, or ahead of it, or the handle gone.
    #[cold]
    fn after_release(gate: *const Gate, before: Word, kind: Kind) -> bool {
        let owed = before.after_release(kind);
        if owed.wake {
            wait::wake_all(gate);
        }
        if owed.make_way {
            pause();
        }
        if owed.last {
            // Ordering: Acquire pairs with the Release of every earlier release and of `orphan`.
            fence(Ordering::Acquire);
        }
        owed.last
    }

    /// Whether no hold is out, with everything that former holders did visible. Stays so only for a
    /// caller who keeps others from acquiring.
    pub(crate) fn is_free(&self) -> bool {
        // Ordering: Acquire pairs with the Release of the former holders' releases.
        let seen = Word::from_bits(self.word.load(Ordering::Acquire));
        seen.is_free() && self.published(seen) == 0
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.state())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
