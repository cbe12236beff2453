//! std or loom, chosen in this one place. Everything else in the crate takes its atomics, locks
//! and threads from here, and what a model has no notion of: time, and the static table of waiters.

use std::time::{Duration, Instant};

use event_listener::{Event, Listener};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(all(loom, feature = "soft"))]
pub(crate) use loom::sync::{Mutex, MutexGuard};

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};
/// For the NIC in software, which under loom has no thread and never sleeps.
#[cfg(all(not(loom), feature = "soft"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

#[cfg(not(loom))]
mod table {
    use super::Event;
    use crossbeam_utils::CachePadded;

    const BITS: u32 = 8;
    static EVENTS: [CachePadded<Event>; 1 << BITS] =
        [const { CachePadded::new(Event::new()) }; 1 << BITS];

    /// The list of those who wait for what lies at `address`. Fibonacci hashing: regions are
    /// allocated at regular distances.
    pub(crate) fn waiters(address: usize) -> &'static Event {
        let hash = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &EVENTS[(hash >> (u64::BITS - BITS)) as usize]
    }
}

#[cfg(loom)]
mod table {
    use super::Event;

    loom::lazy_static! {
        static ref EVENT: Event = Event::new();
    }

    /// One list for all: in a model every gate shares it.
    pub(crate) fn waiters(_address: usize) -> &'static Event {
        &EVENT
    }
}

pub(crate) use table::waiters;

#[cfg(not(loom))]
pub(crate) use atomic_waker::AtomicWaker;

/// Loom's, with the names of the other.
#[cfg(loom)]
pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

#[cfg(loom)]
impl AtomicWaker {
    pub(crate) fn new() -> Self {
        AtomicWaker(loom::future::AtomicWaker::new())
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.0.register_by_ref(waker);
    }

    pub(crate) fn take(&self) -> Option<std::task::Waker> {
        self.0.take_waker()
    }
}

/// A number that tells this thread from all others that live; never 0.
#[cfg(not(loom))]
pub(crate) fn this_thread() -> u64 {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as u64)
}

/// The threads of a model are one thread of the system.
#[cfg(loom)]
pub(crate) fn this_thread() -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    hasher.hash_one(loom::thread::current().id()) | 1
}

/// In a model, a spin gives the other threads a turn.
#[cfg(loom)]
pub(crate) fn spin_loop() {
    loom::thread::yield_now();
}

/// A bounded time. A model knows no time: there it ends after one look, or at once if it is zero.
pub(crate) struct Timer {
    #[cfg(not(loom))]
    end: Instant,
    #[cfg(loom)]
    looked: bool,
}

#[cfg(not(loom))]
impl Timer {
    pub(crate) fn after(limit: Duration) -> Self {
        Timer {
            end: Instant::now() + limit,
        }
    }

    pub(crate) fn expired(&mut self) -> bool {
        Instant::now() >= self.end
    }

    pub(crate) fn end(&self) -> Instant {
        self.end
    }
}

#[cfg(loom)]
impl Timer {
    pub(crate) fn after(limit: Duration) -> Self {
        Timer {
            looked: limit.is_zero(),
        }
    }

    pub(crate) fn expired(&mut self) -> bool {
        std::mem::replace(&mut self.looked, true)
    }

    pub(crate) fn end(&self) -> Instant {
        Instant::now()
    }
}

/// Parks the thread until it is notified or the time has come. In a model the time comes after the
/// other threads had a turn.
pub(crate) fn park(listener: impl Listener<()>, until: Option<Instant>) {
    match until {
        None => listener.wait(),
        #[cfg(not(loom))]
        Some(until) => {
            listener.wait_deadline(until);
        }
        #[cfg(loom)]
        Some(_) => {
            drop(listener);
            loom::thread::yield_now();
        }
    }
}
