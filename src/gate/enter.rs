//! Entering without waiting: what one look at the word decides.

use std::time::Duration;

use super::word::{Entry, Holder, Kind, Word};
use super::{Gate, Permit, wait};
use crate::error::Error;
use crate::sync::Ordering;

impl Gate {
    /// [`try_acquire`](Self::try_acquire) for those who have no use for the reason.
    #[inline]
    pub(crate) fn try_permit(&self, holder: Holder) -> Option<Permit<'_>> {
        let entered = |kind: Kind| Permit::new(self, kind.known(holder));
        if holder != Holder::CpuRead {
            return self.try_enter(holder).map(entered);
        }
        let seen = self.look();
        if !seen.has(Word::bars(holder)) {
            return self
                .add_shared(Kind::CpuRead)
                .map(|_| entered(Kind::CpuRead));
        }
        if seen.has(Word::refuses(holder)) {
            return None;
        }
        if seen.has(Word::MAY_BIAS) {
            return self.try_read(seen);
        }
        self.try_enter_barred(holder, seen).map(entered)
    }

    /// `try_acquire` without the wrapping: what it gives is a hold of the caller's.
    #[inline]
    pub(crate) fn try_enter(&self, holder: Holder) -> Option<Kind> {
        let seen = self.look();
        if !seen.has(Word::bars(holder)) {
            let kind = Kind::of(holder);
            return self.enter_seen(kind, seen).map(|_| kind);
        }
        // The refusal that hot paths meet is decided here; what is left is rare.
        if seen.has(Word::refuses(holder)) {
            return None;
        }
        self.try_enter_barred(holder, seen)
    }

    #[cold]
    pub(super) fn try_enter_barred(&self, holder: Holder, seen: Word) -> Option<Kind> {
        let kind = seen.kind(holder);
        let entered = match seen.entry(holder) {
            Entry::Open => self.enter_open(kind, seen, None),
            Entry::StandBack if seen.is_free() => self.enter_past(kind),
            Entry::Full => self.overflow(holder),
            _ => false,
        };
        entered.then_some(kind)
    }

    /// Enters after `seen` was found open; `false` if somebody else was faster, or if there are published
    /// readers whom `spin` was too short for.
    #[inline]
    pub(super) fn enter_open(&self, kind: Kind, seen: Word, spin: Option<Duration>) -> bool {
        if seen.has(Word::MAY_BIAS) && !kind.holder().is_shared() {
            return self.enter_biasable(kind, seen, spin);
        }
        self.enter_seen(kind, seen).is_some()
    }

    /// Enters the word after `seen` was found open, and gives the value before; `None` if somebody else was
    /// faster.
    #[inline]
    pub(super) fn enter_seen(&self, kind: Kind, mut seen: Word) -> Option<Word> {
        let holder = kind.holder();
        if holder.is_shared() {
            return self.add_shared(kind);
        }
        loop {
            let new = seen.with_exclusive(holder).bits();
            // Ordering: Acquire pairs with the Release of the former holders' releases; on failure
            // Relaxed, as for `look`.
            match self.word.compare_exchange_weak(
                seen.bits(),
                new,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(seen),
                // The exchange fails also when only a waiter's bit or an undone count came and went.
                Err(now) => seen = Word::from_bits(now),
            }
            if seen.has(Word::refuses(holder)) {
                return None;
            }
        }
    }

    /// Counts one more shared hold; takes it back, and returns `None`, if an exclusive side was
    /// faster. Gives the value before.
    #[inline]
    fn add_shared(&self, kind: Kind) -> Option<Word> {
        // Ordering: Acquire pairs with the Release of the last exclusive release: its bytes are
        // seen. The RMWs of other shared holders in between continue its release sequence.
        let before = self.word.fetch_add(kind.unit(), Ordering::Acquire);
        let before = Word::from_bits(before);
        if !before.has(Word::bars_shared(kind.holder())) {
            return Some(before);
        }
        // SAFETY: GATE-1: the count that was just added is the hold that is given back. The
        // gate is borrowed, so it is not orphaned and nobody has to free.
        let _ = unsafe { Self::release(self, kind) };
        None
    }

    /// Enters past an exclusive side that asks to stand back, and takes its request off: one request
    /// holds back each newcomer once. A waiter who is still there is woken and asks again.
    #[cold]
    pub(super) fn enter_past(&self, kind: Kind) -> bool {
        let Some(before) = self.add_shared(kind) else {
            return false;
        };
        if before.has(Word::PENDING) {
            // Ordering: Relaxed, as in `close`.
            let before = self.word.fetch_and(!Word::PENDING, Ordering::Relaxed);
            if Word::from_bits(before).has(Word::WAIT_EXCL) {
                wait::wake_all(self);
            }
        }
        true
    }

    /// Why `holder` was refused, for the error.
    #[cold]
    pub(crate) fn refusal(&self, holder: Holder) -> Error {
        let seen = self.look();
        if seen.entry(holder) == Entry::Closed {
            Error::Closed
        } else {
            Error::Held {
                state: seen.snapshot(self.published(seen)),
            }
        }
    }

    #[cold]
    pub(super) fn overflow(&self, holder: Holder) -> ! {
        panic!(
            "{} holds of kind {holder:?} on one region at a time: more can't be counted. Were guards forgotten?",
            Word::MAX_COUNT
        );
    }
}
