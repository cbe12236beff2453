//! The free slots of a pool: a stack in one word and a link for each slot.
//!
//! A slot that comes back may be the last thing that kept its pool, so whoever brings it touches nothing of
//! the pool after that RMW, as with a gate. What it has to know must be in the word that the RMW changes:
//! whether somebody waits, and whether the pool is gone. That is why this is no queue with a flag beside
//! it. It also spares the fence between a queue and a flag, and slots are taken that are warm.
//!
//! No wake-up is lost, by these steps:
//! 1. who waits puts itself on the list of waiters, then marks the word with an RMW, then parks, unless
//!    that very RMW shows a slot, or that it may register more itself;
//! 2. what ends that state is an RMW on the same word (a slot is brought, a growth ends): it comes before
//!    the mark, and then the waiter saw it; or after, and then it sees the mark and wakes one;
//! 3. the mark stays until a waker finds nobody on the list; it takes the mark off, and then wakes all who
//!    came to the list meanwhile: they look again, and mark anew before they park;
//! 4. who is woken looks for a slot, then whether it may register more; a place on the list that was woken
//!    and is given up instead passes that on (event-listener does it).

use crossbeam_utils::{Backoff, CachePadded};

use super::word::{Link, Word};
use crate::sync::{AtomicU64, Event, Ordering, Watches};

pub(super) struct FreeList {
    word: CachePadded<AtomicU64>,
    /// Of each slot, what lies below it while it is free.
    links: Box<[AtomicU64]>,
    /// Who waits for a slot, or for the end of a growth.
    pub(super) waiting: Event,
    life: Watches,
}

/// What became of a slot that was brought.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Brought {
    /// It is free; it, and the pool, may be gone.
    Home,
    /// The pool is gone, and the slot is still the caller's.
    Closed,
}

impl FreeList {
    #[inline(always)] // where it is inlined, zeroed pages are asked for and not written
    pub(super) fn new(slots: usize) -> Self {
        FreeList {
            word: CachePadded::new(AtomicU64::new(Word::EMPTY.bits())),
            links: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            waiting: Event::new(),
            life: Watches::new(1),
        }
    }

    #[inline]
    fn look(&self) -> Word {
        Self::look_at(&self.word)
    }

    #[inline]
    fn look_at(word: &AtomicU64) -> Word {
        // Ordering: Acquire pairs with the Release of `put`: the link of the slot on top is seen.
        Word::from_bits(word.load(Ordering::Acquire))
    }

    #[inline]
    fn link(&self, slot: usize) -> Link {
        // Ordering: Relaxed. Published by the word; one that was changed since is found out by it.
        Link::from_bits(self.links[slot].load(Ordering::Relaxed))
    }

    /// Takes the slot on top. One load and one RMW; one load if there is none. Who loses the word to
    /// another thread leaves it alone for some turns of the processor: to ask for the line at once makes
    /// it go to and fro, and each turn cost three times as much.
    #[inline]
    pub(super) fn take(&self) -> Option<usize> {
        let backoff = Backoff::new();
        loop {
            let seen = self.look();
            let slot = seen.top()?;
            if self.replace(seen, seen.taken(self.link(slot))) {
                return Some(slot);
            }
            backoff.spin();
        }
    }

    /// Takes slots, if the word is still what was seen.
    #[inline]
    fn replace(&self, seen: Word, with: Word) -> bool {
        // Ordering: Relaxed. The same top after the same number of takes was put there by the same `put`,
        // and the look that showed it is an Acquire.
        let replaced = self.word.compare_exchange_weak(
            seen.bits(),
            with.bits(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        replaced.is_ok()
    }

    /// Brings a slot back. One load and one RMW if nobody waits. `keep` keeps this list: it is called if
    /// there is something left to do after the RMW.
    ///
    /// # Safety
    /// - **POOL-1**: the slot is the caller's, who uses it no more, unless it is told that the pool is gone.
    /// - **POOL-2**: the list lives until the slot is free.
    #[inline]
    pub(super) unsafe fn bring<K>(
        list: *const FreeList,
        slot: usize,
        keep: impl FnOnce() -> K,
    ) -> Brought {
        // SAFETY: POOL-2; until the RMW. A slot that is not free keeps it.
        let (word, links, life) = unsafe { (&*(*list).word, &*(*list).links, &(*list).life) };
        life.read(0);
        let backoff = Backoff::new();
        loop {
            let seen = Self::look_at(word);
            if seen.has(Word::CLOSED) {
                return Brought::Closed;
            }
            if seen.has(Word::WAITING) {
                break;
            }
            if Self::put(word, links, slot, seen) {
                return Brought::Home;
            }
            backoff.spin();
        }
        // SAFETY: POOL-1, POOL-2, as required of the caller.
        unsafe { Self::bring_and_wake(list, slot, keep()) }
    }

    /// Puts a slot on top, if the word is still what was seen.
    #[inline]
    fn put(word: &AtomicU64, links: &[AtomicU64], slot: usize, seen: Word) -> bool {
        // Ordering: Relaxed, as in `link`.
        let below = seen
            .top()
            .map(|top| Link::from_bits(links[top].load(Ordering::Relaxed)));
        // Ordering: Relaxed. Published by the RMW.
        links[slot].store(Link::on(seen, below).bits(), Ordering::Relaxed);
        // Ordering: Release pairs with the Acquire of `take`. Relaxed on failure: it is looked at anew.
        let put = word.compare_exchange_weak(
            seen.bits(),
            seen.with_top(slot).bits(),
            Ordering::Release,
            Ordering::Relaxed,
        );
        put.is_ok()
    }

    /// # Safety
    /// - **POOL-1**, **POOL-2**; and `_kept` keeps the list until the end of this.
    #[cold]
    unsafe fn bring_and_wake<K>(list: *const FreeList, slot: usize, _kept: K) -> Brought {
        // SAFETY: POOL-2: it is kept.
        let list = unsafe { &*list };
        loop {
            let seen = list.look();
            if seen.has(Word::CLOSED) {
                return Brought::Closed;
            }
            if Self::put(&list.word, &list.links, slot, seen) {
                list.wake_one();
                return Brought::Home;
            }
        }
    }

    /// Wakes one who waits. For who has seen the mark, with whatever ordering: `notify` starts with a SeqCst
    /// fence, which pairs with the Release of the mark, so that who set it is on the list.
    fn wake_one(&self) {
        self.life.read(0);
        if self.waiting.notify_additional(1) > 0 {
            return;
        }
        // Ordering: Relaxed. Who set the marks that are taken off is on the list that is woken, as above.
        self.word.fetch_and(!Word::WAITING, Ordering::Relaxed);
        self.waiting.notify(usize::MAX);
    }

    /// For who is on the list of waiters: marks the word. `false`: no need to wait, look again.
    pub(super) fn mark(&self) -> bool {
        // Ordering: Release pairs with the fence of whoever sees the mark (`wake_one`): the place on the
        // list comes before. What it shows is only looked at.
        let before = Word::from_bits(self.word.fetch_or(Word::WAITING, Ordering::Release));
        before.top().is_none() && !before.may_grow()
    }

    /// Whether the caller is the one who registers more slots, until [`grown`](Self::grown): there are none,
    /// and nobody else does.
    pub(super) fn begin_growth(&self) -> bool {
        loop {
            let seen = self.look();
            if seen.top().is_some() || !seen.may_grow() {
                return false;
            }
            // It hands nothing on: what is registered is behind a lock.
            if self.replace(seen, seen.with(Word::GROWING)) {
                return true;
            }
        }
    }

    /// The end of what [`begin_growth`](Self::begin_growth) began, whatever came of it. One of those who
    /// waited asks in its turn: for them it is as if they had come later.
    pub(super) fn grown(&self) {
        // Ordering: Relaxed. For who marked the word, see `wake_one`.
        let before = self.word.fetch_and(!Word::GROWING, Ordering::Relaxed);
        if Word::from_bits(before).has(Word::WAITING) {
            self.wake_one();
        }
    }

    /// Whether more slots can be registered.
    pub(super) fn set_full(&self, full: bool) {
        // Ordering: Relaxed. It is looked at and hands nothing on; who waits for what it says is woken by
        // what comes after it.
        let _ = match full {
            true => self.word.fetch_or(Word::FULL, Ordering::Relaxed),
            false => self.word.fetch_and(!Word::FULL, Ordering::Relaxed),
        };
    }

    pub(super) fn is_closed(&self) -> bool {
        self.look().has(Word::CLOSED)
    }

    /// Whether somebody waits, or did lately.
    pub(super) fn is_waited_for(&self) -> bool {
        self.look().has(Word::WAITING)
    }

    /// How many are free, at this moment. Two loads.
    pub(super) fn free(&self) -> usize {
        self.look().top().map_or(0, |top| self.link(top).depth())
    }

    /// Takes all that are free; with `close`, those that are out don't come back any more. Gives them from
    /// the top. For who alone takes slots: links of slots that are not free change at any time.
    pub(super) fn take_all(&self, close: bool) -> impl Iterator<Item = usize> {
        let closed = if close { Word::CLOSED } else { 0 };
        let taken = loop {
            let seen = self.look();
            if self.replace(seen, seen.emptied().with(closed)) {
                break seen;
            }
        };
        // The next one is looked up before this one is used again.
        let mut next = taken.top();
        std::iter::from_fn(move || {
            let slot = next?;
            next = self.link(slot).below();
            Some(slot)
        })
    }
}

/// Nobody touches it once it is gone, or loom tells.
#[cfg(loom)]
impl Drop for FreeList {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.life.write(0);
        }
    }
}
