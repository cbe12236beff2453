//! What models in shuttle run on. Its threads are coroutines on one thread of the system, and they take
//! turns only where shuttle is asked: at its own atomics and locks, and here. Therefore nothing here may
//! block the thread of the system: event-listener's lists and `AtomicWaker` are used as they are, since
//! they block nobody as long as the waits come through [`park`]. crossbeam-epoch is used as it is, too: all
//! coroutines share one participant, so a state is kept longer than it had to be, never shorter.
//!
//! A run must be the same when it is replayed, so nothing depends on addresses or on the system's clock.

use std::collections::HashMap;
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{LazyLock, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use event_listener::Listener;
use shuttle::rand::Rng;

pub(crate) use atomic_waker::AtomicWaker;
#[cfg(feature = "soft")]
pub(crate) use shuttle::sync::{Condvar, MutexGuard};
pub(crate) use shuttle::{
    hint::spin_loop,
    lazy_static,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread, thread_local,
};

/// As many as models need, and one thread more may come than there are lines.
pub(crate) const LINES: usize = 7;
pub(crate) const PLACES: usize = 2;

/// The others may have a turn.
fn turn() {
    thread::sleep(Duration::ZERO);
}

/// Orders nothing that is not in order here, and is a place where turns change.
pub(crate) fn fence(order: Ordering) {
    turn();
    shuttle::sync::atomic::fence(order);
}

/// A list of waiters. Who comes to it, or calls those who are there, lets others have a turn before.
#[derive(Debug)]
pub(crate) struct Event(event_listener::Event);

impl Event {
    pub(crate) const fn new() -> Self {
        Event(event_listener::Event::new())
    }
}

impl Deref for Event {
    type Target = event_listener::Event;

    fn deref(&self) -> &Self::Target {
        turn();
        &self.0
    }
}

/// As many as a program has.
const LISTS: usize = 1 << 8;

/// The lists of waiters, and which address has which.
struct Lists {
    events: [Event; LISTS],
    places: std::sync::Mutex<HashMap<usize, usize>>,
}

lazy_static! {
    static ref EVENTS: Lists = Lists {
        events: [const { Event::new() }; LISTS],
        places: std::sync::Mutex::default(),
    };
}

/// The list of those who wait for what lies at `address`, by the order in which they were first asked for.
pub(crate) fn waiters(address: usize) -> &'static Event {
    let lists: &'static Lists = &EVENTS;
    let mut places = lists.places.lock().unwrap_or_else(PoisonError::into_inner);
    let next = places.len() % LISTS;
    &lists.events[*places.entry(address).or_insert(next)]
}

/// What is counted for people is counted on one line.
pub(crate) const LANES: usize = 1;

pub(crate) fn lane() -> usize {
    0
}

/// A number that tells this thread from all others that live; never 0.
pub(crate) fn this_thread() -> u64 {
    usize::from(thread::current().id()) as u64 + 1
}

lazy_static! {
    /// By how much time was passed over, in nanoseconds. Not shuttle's: to read the clock is no turn.
    static ref PASSED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
}

/// The time of the model: each turn of whatever thread takes a microsecond, and where all that a thread does
/// is to wait for a time, it comes. So spins and deadlines end after some turns of the others.
pub(crate) fn now() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let turns = shuttle::current::context_switches() as u64;
    // Ordering: Relaxed, here and below. One thread of the system.
    let passed = PASSED.load(Ordering::Relaxed);
    *START + Duration::from_nanos(turns.saturating_mul(1_000).saturating_add(passed))
}

/// Gives the others some turns, until `woken`; then it is that late.
fn pass(until: Instant, mut woken: impl FnMut() -> bool) {
    for _ in 0..shuttle::rand::thread_rng().gen_range(1..16) {
        if woken() {
            return;
        }
        thread::yield_now();
    }
    let left = until.saturating_duration_since(now()).as_nanos();
    let left = u64::try_from(left).unwrap_or(u64::MAX / 4);
    // Ordering: Relaxed, as in `now`.
    PASSED.fetch_add(left, Ordering::Relaxed);
}

/// Parks the thread until it is notified or the time has come.
pub(crate) fn park(listener: impl Listener<()>, until: Option<Instant>) {
    let Some(until) = until else {
        return shuttle::future::block_on(listener);
    };
    let mut listener = pin!(listener);
    let mut cx = Context::from_waker(Waker::noop());
    pass(until, || listener.as_mut().poll(&mut cx).is_ready());
}

/// Sleeps until the condition is signalled or the time has come, or a little shorter.
#[cfg(feature = "soft")]
pub(crate) fn sleep<'a, T>(
    signal: &Condvar,
    lock: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    until: Option<Instant>,
) -> MutexGuard<'a, T> {
    let Some(until) = until else {
        return signal.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    // Shuttle's never time out. Whoever sleeps until a time looks by itself what has come.
    drop(guard);
    pass(until, || false);
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `call`, which blocks, on a thread that may. It runs also if the future is dropped.
pub(crate) async fn unblock<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let task = shuttle::future::spawn(async move { call() });
    task.await.expect("nobody cancels it")
}

/// What one at a time may use. A model in which two do fails.
pub(crate) struct UnsafeCell<T> {
    value: std::cell::UnsafeCell<T>,
    used: Arc<AtomicBool>,
}

/// The use lasts as long as this.
pub(crate) struct MutPtr<T> {
    value: *mut T,
    used: Arc<AtomicBool>,
}

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell {
            value: std::cell::UnsafeCell::new(value),
            used: Arc::default(),
        }
    }

    pub(crate) fn get_mut(&self) -> MutPtr<T> {
        // Ordering: Relaxed, here and below. One thread of the system.
        let used = self.used.swap(true, Ordering::Relaxed);
        assert!(!used || thread::panicking(), "two use it at a time");
        MutPtr {
            value: self.value.get(),
            used: Arc::clone(&self.used),
        }
    }

    pub(crate) fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> MutPtr<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.value)
    }
}

impl<T> Drop for MutPtr<T> {
    fn drop(&mut self) {
        // Ordering: Relaxed, as in `get_mut`.
        self.used.store(false, Ordering::Relaxed);
    }
}
