//! What models in loom run on. They know no time.

use std::mem::ManuallyDrop;
use std::task::Waker;
use std::time::{Duration, Instant};

use event_listener::Listener;

pub(crate) use event_listener::Event;
#[cfg(feature = "soft")]
pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::{
    cell::{MutPtr, UnsafeCell},
    lazy_static,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering, fence},
    },
    thread, thread_local,
};

/// As many as models need: each is looked at by each exclusive side.
pub(crate) const LINES: usize = 3;
pub(crate) const PLACES: usize = 1;

/// Not dropped while a model fails: that would ask loom once more.
struct Kept(ManuallyDrop<Event>);

impl Drop for Kept {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: this is its only drop.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

lazy_static! {
    static ref EVENT: Kept = Kept(ManuallyDrop::new(Event::new()));
}

/// One list for all: in a model every gate shares it.
pub(crate) fn waiters(_address: usize) -> &'static Event {
    &EVENT.0
}

/// A lock does what the other promises; and nobody touches it once it is gone, or loom tells.
pub(crate) struct AtomicWaker {
    waker: Mutex<Option<Waker>>,
    life: Watches,
}

impl AtomicWaker {
    pub(crate) fn new() -> Self {
        AtomicWaker {
            waker: Mutex::new(None),
            life: Watches::new(1),
        }
    }

    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        self.life.read(0);
        std::mem::replace(&mut *self.waker.lock().unwrap(), waker)
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.replace(Some(waker.clone()));
    }

    pub(crate) fn take(&self) -> Option<Waker> {
        self.replace(None)
    }
}

impl Drop for AtomicWaker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.life.write(0);
        }
    }
}

/// What is counted for people is counted on one line.
pub(crate) const LANES: usize = 1;

pub(crate) fn lane() -> usize {
    0
}

/// A number that tells this thread from all others that live; never 0. The threads of a model are one
/// thread of the system.
pub(crate) fn this_thread() -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    hasher.hash_one(thread::current().id()) | 1
}

/// Tells loom who reads and writes which slot, where the crate's own atomics would not show a race: loom
/// knows no load that comes late.
pub(crate) struct Watches(Box<[UnsafeCell<()>]>);

// SAFETY: there is nothing in it to race for; loom tells whether it is used as if there were.
unsafe impl Sync for Watches {}

impl Watches {
    pub(crate) fn new(slots: usize) -> Self {
        Watches((0..slots).map(|_| UnsafeCell::new(())).collect())
    }

    pub(crate) fn read(&self, at: usize) {
        self.0[at].with(|_| ());
    }

    pub(crate) fn write(&self, at: usize) {
        self.0[at].with_mut(|_| ());
    }
}

/// A spin gives the other threads a turn.
pub(crate) fn spin_loop() {
    thread::yield_now();
}

/// Deadlines pass, or don't, by the system's clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A bounded time: it ends after one look, or at once if it is zero.
pub(crate) struct Timer {
    looked: bool,
}

impl Timer {
    pub(crate) fn after(limit: Duration) -> Self {
        Timer {
            looked: limit.is_zero(),
        }
    }

    pub(crate) fn expired(&mut self) -> bool {
        std::mem::replace(&mut self.looked, true)
    }

    pub(crate) fn end(&mut self) -> Instant {
        now()
    }
}

/// A model has no threads to spare: at once.
pub(crate) async fn unblock<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Parks the thread until it is notified or the time has come, which it has after the other threads had a
/// turn.
pub(crate) fn park(listener: impl Listener<()>, until: Option<Instant>) {
    match until {
        None => listener.wait(),
        Some(_) => {
            drop(listener);
            thread::yield_now();
        }
    }
}
