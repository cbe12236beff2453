//! Entering without waiting: what one look at the word decides.

use std::time::{Duration, Instant};

use super::slots::Place;
use super::word::{Entry, Holder, Kind, Word};
use super::{Gate, Permit, wait};
use crate::counts;
use crate::error::{Error, Result};
use crate::sync::{Ordering, Timer, now, spin_loop};

impl Gate {
    /// [`try_acquire`](Self::try_acquire) for those who have no use for the reason.
    #[inline(always)] // as in `mr::forms`
    pub(crate) fn try_permit(&self, holder: Holder) -> Option<Permit<'_>> {
        if holder == Holder::CpuRead {
            let place = counts::attempt(self.try_reader())?;
            return Some(Permit::reader(self, place));
        }
        let kind = counts::attempt(self.try_enter(holder))?;
        Some(Permit::new(self, kind))
    }

    /// Lets `holder` in at once if the way is open, or else by `wait`.
    #[inline(always)] // as in `mr::forms`
    pub(super) fn permit_or(
        &self,
        holder: Holder,
        wait: impl FnOnce() -> Result<Kind>,
    ) -> Result<Permit<'_>> {
        if holder == Holder::CpuRead && self.bias.is_some() {
            if let Some(place) = self.biased_reader() {
                return Ok(Permit::reader(self, place));
            }
        } else if let Some(kind) = self.enter_open_way(holder) {
            return Ok(Permit::new(self, kind));
        }
        Ok(Permit::new(self, wait()?.known(holder)))
    }

    /// Lets a reader of the CPU's in if nothing is in the way, and says where it is published, if it is not
    /// counted.
    #[inline(always)]
    fn try_reader(&self) -> Option<Option<&'static Place>> {
        let seen = self.look();
        if seen.has(Word::refuses(Holder::CpuRead)) {
            return None;
        }
        if !seen.has(Word::bars(Holder::CpuRead)) {
            return self.add_shared(Kind::CpuRead).map(|_| None);
        }
        let counted = || self.try_enter_barred(Holder::CpuRead, seen).map(|_| None);
        self.biased_reader().or_else(counted)
    }

    /// Lets `holder` in if the way is open, as it mostly is, for those who wait if it is not. It does not look
    /// before: the word's line is brought once.
    #[inline(always)]
    pub(super) fn enter_open_way(&self, holder: Holder) -> Option<Kind> {
        let kind = Kind::of(holder);
        if holder.is_shared() {
            return self.add_unless(kind, Word::bars(holder)).map(|_| kind);
        }
        // Ordering: Acquire and Relaxed, as in `enter_seen`.
        let guessed = self.word.compare_exchange(
            self.free(),
            self.free() | kind.unit(),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        // Ordering: Relaxed, as in `read_counted`: of no use to most, but less than to ask.
        self.quiet.store(0, Ordering::Relaxed);
        guessed.is_ok().then_some(kind)
    }

    /// `try_acquire` without the wrapping: what it gives is a hold of the caller's.
    #[inline]
    pub(crate) fn try_enter(&self, holder: Holder) -> Option<Kind> {
        let seen = self.look();
        if seen.has(Word::refuses(holder)) {
            return None;
        }
        if !seen.has(Word::bars(holder)) {
            let kind = Kind::of(holder);
            return self.enter_seen(kind, seen).map(|_| kind);
        }
        let entered = self.try_enter_barred(holder, seen)?;
        Some(entered.known(holder))
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

    /// Has an exclusive side that waits go in among readers of the CPU's, before they have left, so that
    /// nobody comes in between; it is not in before they have. `false` if that is not what is in its way, or
    /// after as long as it spins, when the bit is taken off again: a reader that is there may wait for a
    /// second guard.
    pub(super) fn enter_ahead(&self, holder: Holder, deadline: Option<Instant>) -> bool {
        let (kind, spin) = (Kind::of(holder), self.spin_time());
        if holder.is_shared() || spin.is_zero() {
            return false;
        }
        let mut seen = self.look();
        let before = loop {
            if !seen.lets_ahead(holder) {
                return false;
            }
            let new = seen.with_exclusive(holder).bits();
            // Ordering: Relaxed, both. It is not in before the load below, which has an order.
            match self.word.compare_exchange_weak(
                seen.bits(),
                new,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break seen,
                Err(now) => seen = Word::from_bits(now),
            }
        };
        let mut timer = Timer::after(spin);
        // Ordering: Acquire pairs with the Release of the readers' releases, and of the exclusive ones before:
        // what has come to the word since are RMWs.
        while Word::from_bits(self.word.load(Ordering::Acquire)).has_shared_holders() {
            if timer.expired() || deadline.is_some_and(|deadline| now() >= deadline) {
                self.give_back(kind);
                return false;
            }
            spin_loop();
        }
        let is_in = self.is_in(kind, before, Some(spin));
        if is_in && before.has_shared_holders() {
            self.count_wait();
        }
        is_in
    }

    /// Counts one more shared hold; takes it back, and returns `None`, if an exclusive side was
    /// faster. Gives the value before.
    #[inline]
    pub(super) fn add_shared(&self, kind: Kind) -> Option<Word> {
        self.add_unless(kind, Word::bars_shared(kind.holder()))
    }

    /// Counts one more shared hold; takes it back if any of these bits was set before.
    #[inline]
    fn add_unless(&self, kind: Kind, barred: u64) -> Option<Word> {
        // Ordering: Acquire pairs with the Release of the last exclusive release: its bytes are
        // seen. The RMWs of other shared holders in between continue its release sequence.
        let before = self.word.fetch_add(kind.unit(), Ordering::Acquire);
        let before = Word::from_bits(before);
        if !before.has(barred) {
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
