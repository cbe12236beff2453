//! What programs run on.

use std::time::Instant;

use crossbeam_utils::CachePadded;
use event_listener::Listener;

pub(crate) use atomic_waker::AtomicWaker;
pub(crate) use event_listener::Event;
/// For the NIC in software.
#[cfg(feature = "soft")]
pub(crate) use std::sync::{Condvar, MutexGuard};
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering, fence},
    },
    thread,
};

/// Runs `call`, which blocks, on a thread that may.
pub(crate) use blocking::unblock;

/// How many threads at a time have a line of slots for their reading, and how many slots that has.
pub(crate) const LINES: usize = 256;
pub(crate) const PLACES: usize = 3;

const BITS: u32 = 8;
static EVENTS: [CachePadded<Event>; 1 << BITS] =
    [const { CachePadded::new(Event::new()) }; 1 << BITS];

/// The list of those who wait for what lies at `address`. Fibonacci hashing: regions are
/// allocated at regular distances.
pub(crate) fn waiters(address: usize) -> &'static Event {
    let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &EVENTS[(hash >> (u64::BITS - BITS)) as usize]
}

/// A number that tells this thread from all others that live; never 0.
pub(crate) fn this_thread() -> u64 {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as u64)
}

/// How many lines there are to count on, and which one is this thread's: of several that count at a time, most
/// have one for themselves. What tells threads apart is an address, and far from the next.
pub(crate) const LANES: usize = 1 << LANE_BITS;
const LANE_BITS: u32 = 3;

pub(crate) fn lane() -> usize {
    let hash = this_thread().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (u64::BITS - LANE_BITS)) as usize
}

/// The time, which a model has a clock of its own for.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Parks the thread until it is notified or the time has come.
pub(crate) fn park(listener: impl Listener<()>, until: Option<Instant>) {
    match until {
        None => listener.wait(),
        Some(until) => {
            listener.wait_deadline(until);
        }
    }
}

/// Sleeps until the condition is signalled or the time has come, or a little shorter.
#[cfg(feature = "soft")]
pub(crate) fn sleep<'a, T>(
    signal: &Condvar,
    _lock: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    until: Option<Instant>,
) -> MutexGuard<'a, T> {
    use std::sync::PoisonError;
    match until {
        None => signal.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(until) => {
            let left = until.saturating_duration_since(now());
            let slept = signal.wait_timeout(guard, left);
            slept.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

/// What one at a time may use; std's, with the names of loom's.
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

/// In a model, the use lasts as long as this.
pub(crate) struct MutPtr<T>(*mut T);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn get_mut(&self) -> MutPtr<T> {
        MutPtr(self.0.get())
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T> MutPtr<T> {
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0)
    }
}
