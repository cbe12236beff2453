//! Waiting at a gate: spin, then park a thread or register a waker.
//!
//! The waiters' lists are event-listener's, in one static table found by the gate's address, as a
//! futex is. A release therefore touches nothing of the gate after its RMW: the region, which
//! somebody else may free by then, is not needed to wake. Two gates may share a list; a waiter that
//! is woken for the other's sake looks at its own word and parks again.
//!
//! No wake-up is lost, by these steps:
//! 1. a waiter puts itself on the list, then marks the word (WAIT_SHARED or WAIT_EXCL) with an RMW,
//!    then parks, unless that very RMW shows that the way is free by now;
//! 2. a release that ends what the waiter waits for is an RMW on the same word: it comes before the
//!    mark, and then the waiter saw it; or after, and then it sees the mark and wakes the list;
//! 3. whoever takes a mark off wakes the list afterwards, and who is woken marks anew before it parks
//!    again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event_listener::{EventListener, listener};

use super::word::{Entry, Holder, Kind, Word};
use super::{Gate, Permit};
use crate::counts;
use crate::error::{Error, Result};
use crate::sync::{Ordering, Timer, now, spin_loop, waiters};
use crate::trace;

/// Wakes all who wait at this gate, and whoever shares their list. For who has seen a mark in the word,
/// with whatever ordering: `notify` starts with a SeqCst fence, which pairs with the Release of that mark, so
/// that the waiter is on the list by now.
#[cold]
pub(super) fn wake_all(gate: *const Gate) {
    waiters(gate as usize).notify(usize::MAX);
}

/// How long somebody pauses who stands back, between two looks.
const PAUSES: usize = 8;

/// What a look at the word brought to somebody who waits.
enum Look {
    /// The hold is taken.
    In(Kind),
    /// Not yet.
    Blocked(Entry),
}

impl Gate {
    /// Takes a hold, waiting for it if need be.
    #[inline]
    pub(crate) fn enter(&self, holder: Holder, deadline: Option<Instant>) -> Result<Kind> {
        match self.enter_open_way(holder) {
            Some(kind) => Ok(kind),
            None => Ok(self.enter_slow(holder, deadline)?.known(holder)),
        }
    }

    #[cold]
    pub(super) fn enter_slow(&self, holder: Holder, deadline: Option<Instant>) -> Result<Kind> {
        if self.enter_ahead(holder, deadline) {
            return Ok(Kind::of(holder));
        }
        let mut turn = Turn::new(self);
        let mut place = Place::new(self, holder);
        // In the way may be what is no reason to wait: the bias, a retirement, somebody who was faster.
        if let Look::In(kind) = place.look(&mut turn)? {
            return Ok(kind);
        }
        let _span = place.span();
        counts::wait();
        let spun = place.spin(&mut turn, deadline);
        // Only now: who goes in meanwhile needs the line.
        self.count_waiter();
        if let Some(kind) = spun? {
            return Ok(kind);
        }
        loop {
            listener!(waiters(place.address()) => listener);
            let entry = match place.look(&mut turn)? {
                Look::In(kind) => return Ok(kind),
                Look::Blocked(_) => place.mark()?,
            };
            let until = match entry {
                Entry::Held => deadline,
                Entry::StandBack => Some(turn.end(deadline)),
                _ => continue,
            };
            self.check_deadline(deadline)?;
            place.parks();
            crate::sync::park(listener, until);
        }
    }

    /// Takes a hold, calling `progress` between two looks.
    pub(crate) fn enter_with(&self, holder: Holder, progress: impl FnMut()) -> Result<Kind> {
        match self.enter_open_way(holder) {
            Some(kind) => Ok(kind),
            None => Ok(self.enter_slow_with(holder, progress)?.known(holder)),
        }
    }

    pub(super) fn enter_slow_with(
        &self,
        holder: Holder,
        mut progress: impl FnMut(),
    ) -> Result<Kind> {
        let mut turn = Turn::new(self);
        let mut place = Place::new(self, holder);
        if let Look::In(kind) = place.look(&mut turn)? {
            return Ok(kind);
        }
        let _span = place.span();
        self.count_wait();
        loop {
            progress();
            spin_loop();
            if let Look::In(kind) = place.look(&mut turn)? {
                return Ok(kind);
            }
        }
    }

    pub(super) fn spin_time(&self) -> Duration {
        Duration::from_nanos(self.spin_ns.into())
    }

    pub(super) fn count_wait(&self) {
        self.count_waiter();
        counts::wait();
    }

    fn count_waiter(&self) {
        // Ordering: Relaxed, as in `waits`.
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn check_deadline(&self, deadline: Option<Instant>) -> Result<()> {
        match deadline {
            Some(deadline) if now() >= deadline => Err(Error::Deadline {
                state: self.state(),
            }),
            _ => Ok(()),
        }
    }
}

/// How long somebody who wants in shared still stands back.
struct Turn {
    limit: Duration,
    timer: Option<Timer>,
}

impl Turn {
    fn new(gate: &Gate) -> Self {
        Turn {
            limit: Duration::from_nanos(gate.stand_back_ns.into()),
            timer: None,
        }
    }

    /// The time that it stands back, which runs from the first question.
    fn timer(&mut self) -> &mut Timer {
        self.timer.get_or_insert_with(|| Timer::after(self.limit))
    }

    /// Whether it has stood back long enough.
    fn is_over(&mut self) -> bool {
        self.timer().expired()
    }

    /// When to look again: at its end, or at the deadline.
    fn end(&mut self, deadline: Option<Instant>) -> Instant {
        let end = self.timer().end();
        deadline.map_or(end, |deadline| end.min(deadline))
    }
}

/// The place of one waiter. Dropped before it got in (a deadline, a cancelled future, a panic in the
/// caller's progress), it takes back what it asked of others.
struct Place<'g> {
    gate: &'g Gate,
    holder: Holder,
    /// Whether WAIT_EXCL or PENDING may stand in the word on its behalf.
    asked: bool,
}

impl<'g> Place<'g> {
    fn new(gate: &'g Gate, holder: Holder) -> Self {
        Place {
            gate,
            holder,
            asked: false,
        }
    }

    /// Looks for as long as its patience has it spin.
    fn spin(&mut self, turn: &mut Turn, deadline: Option<Instant>) -> Result<Option<Kind>> {
        let mut timer = Timer::after(self.gate.spin_time());
        while !timer.expired() {
            match self.look(turn)? {
                Look::In(kind) => return Ok(Some(kind)),
                // Off the line, which others need who are to go first.
                Look::Blocked(Entry::StandBack) => (0..PAUSES).for_each(|_| spin_loop()),
                Look::Blocked(_) => spin_loop(),
            }
            self.gate.check_deadline(deadline)?;
        }
        Ok(None)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self.gate) as usize
    }

    /// It waits from here on.
    fn span(&self) -> trace::Wait {
        trace::wait(self.address(), self.holder, || self.gate.state())
    }

    /// It gives the processor away.
    fn parks(&self) {
        counts::park();
        trace::park(self.address(), self.holder);
    }

    /// Looks at the word and takes the hold if it can be had; if shared holders are in the way of
    /// an exclusive side, asks newcomers to stand back.
    fn look(&mut self, turn: &mut Turn) -> Result<Look> {
        self.look_or(|| turn.is_over(), self.gate.spin_time())
    }

    /// `spin` is for how long published readers may keep it.
    fn look_or(&mut self, stood_back: impl FnOnce() -> bool, spin: Duration) -> Result<Look> {
        let seen = self.gate.look();
        let (entry, kind) = (seen.entry(self.holder), seen.kind(self.holder));
        let entered = match entry {
            Entry::Open => self.gate.enter_open(kind, seen, Some(spin)),
            Entry::StandBack if stood_back() => self.gate.enter_past(kind),
            Entry::Full => self.gate.overflow(self.holder),
            Entry::Closed => return Err(Error::Closed),
            _ => false,
        };
        if entered {
            // The bits that it set are taken off by its own entry and release.
            self.asked = false;
            return Ok(Look::In(kind));
        }
        if !self.holder.is_shared() && seen.has_shared_holders() && !seen.has(Word::PENDING) {
            self.asked = true;
            // Ordering: Relaxed. A request: nothing is read or written on the strength of it.
            self.gate.word.fetch_or(Word::PENDING, Ordering::Relaxed);
        }
        Ok(Look::Blocked(entry))
    }

    /// Marks the word, and gives what the mark itself showed. The waiter is on the list already.
    fn mark(&mut self) -> Result<Entry> {
        self.asked |= !self.holder.is_shared();
        // Ordering: Release pairs with the fence of whoever sees the mark and wakes (`wake_all`): the
        // waiter's entry in the list comes before it. What it shows is only looked at, as in `Gate::look`.
        let before = self
            .gate
            .word
            .fetch_or(self.holder.wait_bit(), Ordering::Release);
        match Word::from_bits(before).entry(self.holder) {
            Entry::Closed => Err(Error::Closed),
            entry => Ok(entry),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.asked {
            return;
        }
        // Ordering: Relaxed. Who else waits is on the list that is woken next, see `wake_all`, and asks
        // anew.
        let before = self
            .gate
            .word
            .fetch_and(!(Word::WAIT_EXCL | Word::PENDING), Ordering::Relaxed);
        let before = Word::from_bits(before);
        if before.has(Word::WAITING) {
            wake_all(self.gate);
        }
    }
}

/// The future of [`Gate::acquire_async`].
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'g> {
    place: Place<'g>,
    listener: Option<EventListener>,
    counted: bool,
    stood_back: bool,
    done: bool,
}

impl<'g> Acquire<'g> {
    pub(super) fn new(gate: &'g Gate, holder: Holder) -> Self {
        Acquire {
            place: Place::new(gate, holder),
            listener: None,
            counted: false,
            stood_back: false,
            done: false,
        }
    }

    /// As polling, for one who keeps the hold itself.
    pub(crate) fn poll_enter(&mut self, cx: &mut Context<'_>) -> Poll<Result<Kind>> {
        assert!(!self.done, "polled after completion");
        loop {
            let looked = self.place.look_or(|| self.stood_back, Duration::ZERO);
            match looked {
                Ok(Look::In(kind)) => return self.finish(Ok(kind)),
                Err(error) => return self.finish(Err(error)),
                Ok(Look::Blocked(Entry::StandBack)) => {
                    // No clock here: one trip through the executor, then past.
                    self.stood_back = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Look::Blocked(_)) => {}
            }
            if !std::mem::replace(&mut self.counted, true) {
                self.place.gate.count_wait();
            }
            match &mut self.listener {
                None => {
                    self.listener = Some(waiters(self.place.address()).listen());
                    match self.place.mark() {
                        Ok(Entry::Held) => self.place.parks(),
                        Ok(_) => self.listener = None,
                        Err(error) => return self.finish(Err(error)),
                    }
                }
                Some(listener) => match Pin::new(listener).poll(cx) {
                    Poll::Ready(()) => self.listener = None,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    fn finish(&mut self, result: Result<Kind>) -> Poll<Result<Kind>> {
        self.listener = None;
        self.done = true;
        Poll::Ready(result)
    }
}

impl<'g> Future for Acquire<'g> {
    type Output = Result<Permit<'g>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let gate = self.place.gate;
        // A reader that comes to a biased gate does not touch the word.
        if !self.counted && self.place.holder == Holder::CpuRead {
            assert!(!self.done, "polled after completion");
            let at_once = gate.permit_or(Holder::CpuRead, || Err(Error::Closed));
            if at_once.is_ok() {
                self.done = true;
                return Poll::Ready(at_once);
            }
        }
        self.poll_enter(cx)
            .map(|entered| entered.map(|kind| Permit::new(gate, kind)))
    }
}

impl std::fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquire")
            .field("holder", &self.place.holder)
            .field("gate", self.place.gate)
            .finish_non_exhaustive()
    }
}
