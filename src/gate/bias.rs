//! Read bias: readers that leave the word alone.
//!
//! While a gate is biased, a reader publishes itself in a slot of its own thread (`slots`) and does not
//! touch the word but to look: many threads read one region without passing its line around. Exclusive sides
//! pay for it: they have to look at the slots of all threads.
//!
//! - **In**: the reader publishes, has a fence, looks at the word. An exclusive side sets its bit in the word
//!   while nobody is counted there, has a fence, looks at the slots. One of the two sees the other.
//! - **Out**: the reader empties its slot, a plain store. Who waits for it looks at the slot, for a bounded
//!   time.
//! - **Moved**: a reader that stays is moved into the word, so that whoever wants in waits for the word
//!   alone, parked if need be, as at any gate. The exclusive side counts it there, says so beside the slot,
//!   and has the other threads pass a fence ([`heavy`]). If the slot is empty then, the count
//!   is given back; if not, its reader will see what stands beside it, and gives back the count as a
//!   counted reader does. One exchange decides who of the two does. Then the bit is taken off the word
//!   again, and the bias with it.
//!
//! The bias is taken off by the release of each exclusive hold, and comes back when there was none for a
//! while: readers, who are counted now, look at the clock once in so many times. Where it does not stand nobody
//! looks at the slots: only who has seen that nobody is published, or has moved them all, takes it off.

use std::time::{Duration, Instant};

use super::Gate;
use super::slots::{self, Place};
use super::word::{Entry, Holder, Kind, Word};
use crate::sync::{Ordering, Timer, fence, global, heavy, light, now, prepare, spin_loop};

/// For regions that many threads read and the NIC rarely writes: readers of a biased gate touch a line of
/// their own instead of the gate's.
///
/// | | without | biased |
/// |---|---|---|
/// | a reader's guard, there and back | 2 RMWs on the gate's line | 1 fence; 0 RMWs |
/// | an exclusive hold | 2 RMWs | 3 RMWs, 1 fence, and a look at a line for each thread that has ever read so, in use or not |
///
/// A gate begins biased. Each exclusive hold ends that, and it comes back when there was none for
/// [`quiet`](Self::quiet): so a ring of receives goes on as if there were no bias. What is held by operations
/// that only read (SEND, the source of a WRITE) does not concern it.
///
/// Up to 256 threads at a time read so, each up to 3 guards at a time; what is beyond is counted in the word.
/// Guards may be dropped on other threads, as always.
///
/// An exclusive side that finds a reader which stays (longer than [`spin`](super::Patience::spin), or at
/// once if it is a future) calls `membarrier(2)` where the kernel has it, which takes 1 to 10 µs. On
/// other systems guards have a second fence when they are dropped, and are as fast as without a bias on one
/// thread. After `fork` the child must not use the parent's gates, as with all locks.
///
/// ```
/// use rdma_mr::gate::ReadBias;
/// use rdma_mr::{LocalMrReadAccess, MrOptions, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let table = MrOptions::new().read_bias(ReadBias::default()).alloc(&pd, 4096)?;
/// let guard = table.as_slice();
/// assert!(table.state().biased);
/// assert_eq!(table.state().cpu_readers, 1);
/// # drop(guard);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBias {
    /// How long there is no exclusive hold before a gate is biased again. At most 71 minutes, in
    /// microseconds.
    pub quiet: Duration,
    /// What a reader has between its slot and its look at the word.
    pub barrier: Barrier,
}

/// Who pays for the order between a reader's slot and the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The reader, by a fence.
    Fence,
    /// The exclusive side, by a `membarrier(2)`, where the kernel has that: a reader's guard costs two stores
    /// and two loads, and each exclusive hold of a biased gate 0.5 to 10 µs more, by how many threads run. As
    /// [`Fence`](Self::Fence) elsewhere.
    Membarrier,
}

impl Default for ReadBias {
    /// Biased again after 10 ms; a fence.
    fn default() -> Self {
        ReadBias {
            quiet: Duration::from_millis(10),
            barrier: Barrier::Fence,
        }
    }
}

/// How often a counted reader looks at the clock: once in so many.
const LOOKS: u64 = 64;

global! {
    /// From when the time is counted.
    static START: Instant = now();
}

impl Gate {
    /// This gate, with read bias, from now on.
    #[must_use]
    pub fn with_read_bias(mut self, bias: ReadBias) -> Self {
        self.quiet_us = u32::try_from(bias.quiet.as_micros()).unwrap_or(u32::MAX);
        self.bias = Some(bias.barrier);
        self.free = const {
            assert!(Word::MAY_BIAS <= u8::MAX as u64);
            Word::MAY_BIAS as u8
        };
        prepare();
        // Ordering: Relaxed. Nobody else has it yet.
        self.word
            .fetch_or(Word::MAY_BIAS | Word::BIASED, Ordering::Relaxed);
        self
    }

    /// What it was made with, if it may be biased.
    #[must_use]
    pub fn read_bias(&self) -> Option<ReadBias> {
        self.bias.map(|barrier| ReadBias {
            quiet: Duration::from_micros(self.quiet_us.into()),
            barrier,
        })
    }

    fn address(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// How many readers are published, at this moment.
    #[inline]
    pub(super) fn published(&self, seen: Word) -> u64 {
        match seen.has(Word::BIASED) {
            true => self.count_published(),
            false => 0,
        }
    }

    #[cold]
    fn count_published(&self) -> u64 {
        let address = self.address();
        // Those that were moved are counted in the word, also when the bias is back before they have left.
        slots::published(address)
            .filter(|place| !place.is_moved(address))
            .count() as u64
    }

    /// Lets a reader in at a gate that may be biased, and says where it is published, if it is not counted.
    #[inline(always)] // as in `mr::forms`
    pub(super) fn biased_reader(&self) -> Option<Option<&'static Place>> {
        match self.look().lets_publish().then(|| self.publish()).flatten() {
            Some(place) => Some(Some(place)),
            None => self.read_counted().then_some(None),
        }
    }

    /// Lets a reader in, at a biased gate, if this thread has a place for it and nobody was faster.
    #[inline(always)] // as in `mr::forms`
    fn publish(&self) -> Option<&'static Place> {
        let place = slots::publish(self.address())?;
        if self.bias == Some(Barrier::Membarrier) {
            light();
        } else {
            // Ordering: SeqCst pairs with the fence in `drain`: either this reader sees the exclusive bit, or
            // the exclusive side sees the reader.
            fence(Ordering::SeqCst);
        }
        // Ordering: Acquire pairs with the Release of the last exclusive release: its bytes are seen.
        let seen = Word::from_bits(self.word.load(Ordering::Acquire));
        if seen.lets_publish() {
            return Some(place);
        }
        self.take_out(place);
        None
    }

    /// A published reader is out.
    #[inline(always)] // as in `mr::forms`
    pub(super) fn take_out(&self, place: &Place) {
        place.empty();
        // Pairs with `heavy` in `move_readers`: either this sees that the reader was moved, or it is seen
        // that the slot is empty.
        light();
        if place.is_moved(self.address()) {
            self.release_moved(place);
        }
    }

    #[cold]
    fn release_moved(&self, place: &Place) {
        if place.settle(self.address()) {
            // SAFETY: GATE-1: the count that stands for this reader, by the exchange just now. The gate is
            // borrowed, so it is not orphaned and nobody has to free.
            let _ = unsafe { Self::release(self, Kind::CpuRead) };
        }
    }

    /// Counts a reader in the word, at a gate that may be biased, if the way is open.
    #[cold]
    fn read_counted(&self) -> bool {
        let seen = self.look();
        let is_open = seen.has(Word::MAY_BIAS) && seen.entry(Holder::CpuRead) == Entry::Open;
        if !is_open || self.add_shared(Kind::CpuRead).is_none() {
            return false;
        }
        // Ordering: Relaxed, here and below: how many, and since when, decide nothing but what it costs.
        let quiet = self.quiet.load(Ordering::Relaxed);
        if (quiet + 1) % LOOKS != 0 && self.quiet_us != 0 {
            self.quiet.store(quiet + 1, Ordering::Relaxed);
        } else if !seen.has(Word::BIASED | Word::PENDING) {
            self.bias_if_quiet(quiet / LOOKS);
        }
        true
    }

    /// Biases the gate again, if there was no exclusive hold for so long. For who holds it as a reader.
    #[cold]
    fn bias_if_quiet(&self, since: u64) {
        let time = now().saturating_duration_since(*START).as_nanos() as u64;
        if self.quiet_us != 0 && since == 0 {
            // The first look after an exclusive hold.
            return self.quiet.store(time.max(1) * LOOKS, Ordering::Relaxed);
        }
        if time.saturating_sub(since) >= u64::from(self.quiet_us) * 1000 {
            // Ordering: Relaxed. Continues the release sequence of the last exclusive release, and the next
            // exclusive side sees it, since this reader is counted before.
            self.word.fetch_or(Word::BIASED, Ordering::Relaxed);
        } else {
            self.quiet.store(since * LOOKS, Ordering::Relaxed);
        }
    }

    /// Lets an exclusive side in that found the way open at a gate that may be biased. `spin` is for how
    /// long it waits for published readers before it moves them into the word and is not in; a `try` gives
    /// `None`, and leaves them.
    #[cold]
    pub(super) fn enter_biasable(&self, kind: Kind, seen: Word, spin: Option<Duration>) -> bool {
        if spin.is_none() && self.published(seen) != 0 {
            return false;
        }
        let Some(before) = self.enter_seen(kind, seen) else {
            return false;
        };
        self.is_in(kind, before, spin)
    }

    /// Whether an exclusive side is in that has its bit in the word since that was `before`, and nobody counted
    /// there beside it.
    pub(super) fn is_in(&self, kind: Kind, before: Word, spin: Option<Duration>) -> bool {
        if before.has(Word::MAY_BIAS) {
            // Ordering: Relaxed, as in `read_counted`.
            self.quiet.store(0, Ordering::Relaxed);
        }
        !before.has(Word::BIASED) || self.drain(kind, spin)
    }

    /// For who has just set its exclusive bit in the word: whether no reader is published, or they have
    /// gone. If not, the bit is taken off again.
    fn drain(&self, kind: Kind, spin: Option<Duration>) -> bool {
        if self.bias == Some(Barrier::Membarrier) {
            heavy();
        } else {
            // Ordering: SeqCst pairs with the fence in `publish`.
            fence(Ordering::SeqCst);
        }
        let is_free = || !slots::is_published(self.address());
        if is_free() {
            return true;
        }
        let Some(spin) = spin else {
            self.give_back(kind);
            return false;
        };
        let mut spin = Timer::after(spin);
        while !spin.expired() {
            spin_loop();
            if is_free() {
                return true;
            }
        }
        self.move_readers();
        self.take_back(kind, 0);
        false
    }

    /// Takes the exclusive bit off again, for who did not get in after all. The bias stays: who is published is
    /// looked for only where it stands, and may be there still.
    pub(super) fn give_back(&self, kind: Kind) {
        self.take_back(kind, Word::BIASED);
    }

    /// As [`give_back`](Self::give_back), but that only the bits in `kept` are left as they are.
    fn take_back(&self, kind: Kind, kept: u64) {
        let before = self.take_off_exclusive(kind.holder(), kept);
        if !before.release_is_done(kind.holder()) {
            // The gate is borrowed, so it is not orphaned and nobody has to free.
            let _ = Self::after_release(self, before, kind);
        }
    }

    /// Counts the readers in the word that are published still. Only for who has the exclusive bit, under
    /// which nobody is published any more.
    #[cold]
    fn move_readers(&self) {
        let address = self.address();
        let still = || slots::published(address).filter(|place| !place.is_moved(address));
        while let Some(place) = still().next() {
            // Ordering: Relaxed. See `say_moved`.
            self.word.fetch_add(Word::READER, Ordering::Relaxed);
            if !place.say_moved(address) {
                // Ordering: Relaxed. Nobody has been told of it.
                self.word.fetch_sub(Word::READER, Ordering::Relaxed);
                // Who moved the reader of another gate that was here settles that soon.
                spin_loop();
            }
        }
        // Pairs with `light` in `take_out`.
        heavy();
        for place in slots::moved(address) {
            if !place.is_of(address) && place.settle(address) {
                // Ordering: Relaxed. What that reader read comes before, by `is_of`, and is handed on by who
                // gives the exclusive bit back.
                self.word.fetch_sub(Word::READER, Ordering::Relaxed);
            }
        }
    }

    /// Counts, for good, the readers that were published and forgotten. For who has the gate alone: no
    /// permit of it lives.
    pub(super) fn count_forgotten(&self) {
        let forgotten = self.published(self.look());
        if forgotten != 0 {
            // Ordering: Relaxed. Nobody gives these back.
            self.word
                .fetch_add(forgotten * Word::READER, Ordering::Relaxed);
        }
    }
}

impl Drop for Gate {
    /// What is published of it still was forgotten: another gate may come to be at that address.
    fn drop(&mut self) {
        if self.bias.is_some() && !std::thread::panicking() {
            slots::published(self.address()).for_each(Place::empty);
        }
    }
}
