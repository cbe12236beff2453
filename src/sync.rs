//! std or loom, chosen in this one place. Everything else in the crate takes its atomics, locks
//! and threads from here, and what a model has no notion of: time, and the static table of waiters.

mod worker;

use std::time::{Duration, Instant};

use event_listener::{Event, Listener};

#[cfg(all(loom, feature = "soft"))]
pub(crate) use loom::sync::MutexGuard;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Mutex};

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
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

    use std::mem::ManuallyDrop;

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

    loom::lazy_static! {
        static ref EVENT: Kept = Kept(ManuallyDrop::new(Event::new()));
    }

    /// One list for all: in a model every gate shares it.
    pub(crate) fn waiters(_address: usize) -> &'static Event {
        &EVENT.0
    }
}

pub(crate) use table::waiters;
pub(crate) use worker::{Stop, Worker};

#[cfg(not(loom))]
pub(crate) use atomic_waker::AtomicWaker;

/// A lock does what the other promises; and nobody touches it once it is gone, or loom tells.
#[cfg(loom)]
pub(crate) struct AtomicWaker {
    waker: Mutex<Option<std::task::Waker>>,
    life: Watches,
}

#[cfg(loom)]
impl AtomicWaker {
    pub(crate) fn new() -> Self {
        AtomicWaker {
            waker: Mutex::new(None),
            life: Watches::new(1),
        }
    }

    fn replace(&self, waker: Option<std::task::Waker>) -> Option<std::task::Waker> {
        self.life.read(0);
        std::mem::replace(&mut *self.waker.lock().unwrap(), waker)
    }

    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.replace(Some(waker.clone()));
    }

    pub(crate) fn take(&self) -> Option<std::task::Waker> {
        self.replace(None)
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

#[cfg(loom)]
impl Drop for AtomicWaker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.life.write(0);
        }
    }
}

/// Tells loom who reads and writes which slot, where the crate's own atomics would not show a race: loom
/// knows no load that comes late. Otherwise nothing.
pub(crate) struct Watches(#[cfg(loom)] Box<[UnsafeCell<()>]>);

// SAFETY: there is nothing in it to race for; loom tells whether it is used as if there were.
#[cfg(loom)]
unsafe impl Sync for Watches {}

#[cfg_attr(not(loom), allow(unused_variables, reason = "nobody watches"))]
impl Watches {
    pub(crate) fn new(slots: usize) -> Self {
        Watches(
            #[cfg(loom)]
            (0..slots).map(|_| UnsafeCell::new(())).collect(),
        )
    }

    #[inline]
    pub(crate) fn read(&self, at: usize) {
        #[cfg(loom)]
        self.0[at].with(|_| ());
    }

    #[inline]
    pub(crate) fn write(&self, at: usize) {
        #[cfg(loom)]
        self.0[at].with_mut(|_| ());
    }
}

/// What one at a time may use. Loom reports two who do.
#[cfg(loom)]
pub(crate) use loom::cell::{MutPtr, UnsafeCell};

#[cfg(not(loom))]
mod cell {
    /// std's, with the names of loom's.
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
}

#[cfg(not(loom))]
pub(crate) use cell::{MutPtr, UnsafeCell};

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

/// Something that all of the process share, made when it is first used; in a model, by each execution
/// anew.
#[cfg(not(loom))]
macro_rules! global {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $(#[$about])*
        static $name: std::sync::LazyLock<$type> = std::sync::LazyLock::new(|| $value);
    };
}
#[cfg(loom)]
macro_rules! global {
    ($(#[$about:meta])* static $name:ident: $type:ty = $value:expr;) => {
        loom::lazy_static! {
            $(#[$about])*
            static ref $name: $type = $value;
        }
    };
}
pub(crate) use global;

/// Runs `call`, which blocks, on a thread that may.
#[cfg(not(loom))]
pub(crate) use blocking::unblock;

/// A model has no threads to spare: at once.
#[cfg(loom)]
pub(crate) async fn unblock<T>(call: impl FnOnce() -> T) -> T {
    call()
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
