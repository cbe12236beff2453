//! How the NIC's thread learns that there is work: one word that posts count up, and a place to
//! sleep.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};
#[cfg(not(loom))]
use {
    super::{lock, sleep},
    crate::sync::{Condvar, Mutex, now, spin_loop, thread},
    std::time::Instant,
};

/// The NIC's thread sleeps, or is about to.
const SLEEPING: u64 = 1;
/// The NIC's thread is to end.
const STOP: u64 = 1 << 1;
/// One ring; the count takes the bits from here on.
const RING: u64 = 1 << 2;

/// Turns of the loop before the thread sleeps, about 10 µs: the next message of a ping-pong comes
/// within that, and waking a thread costs more. In a model each is a turn of the others.
#[cfg(not(loom))]
const SPINS: u32 = if cfg!(shuttle) { 4 } else { 400 };
/// Waits shorter than that are not slept through: the system wakes too late.
#[cfg(not(loom))]
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// Rung by posts and state changes, heard by the NIC's thread. In stepped mode nobody listens.
pub(super) struct Doorbell {
    word: AtomicU64,
    #[cfg(not(loom))]
    bed: Mutex<()>,
    #[cfg(not(loom))]
    alarm: Condvar,
}

/// How often the bell had been rung when the thread looked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard(u64);

impl Doorbell {
    pub(super) fn new() -> Self {
        Doorbell {
            word: AtomicU64::new(0),
            #[cfg(not(loom))]
            bed: Mutex::new(()),
            #[cfg(not(loom))]
            alarm: Condvar::new(),
        }
    }

    /// There is something new to look at. Cheap unless the thread sleeps.
    pub(super) fn ring(&self) {
        // Ordering: Release: pairs with the Acquire of `listen`: the thread that hears this ring
        // sees what was posted before it. One location, so a thread that went to sleep after it has
        // seen it, and one that slept before it is seen here.
        let before = self.word.fetch_add(RING, Ordering::Release);
        if before & SLEEPING != 0 {
            self.wake();
        }
    }
}

/// What a thread does that listens; under loom that is a model.
#[cfg(any(not(loom), test))]
impl Doorbell {
    /// Where the bell stands, to be asked before looking for work; `None` once it is to end.
    pub(super) fn listen(&self) -> Option<Heard> {
        // Ordering: Acquire: pairs with the Release of `ring`.
        let word = self.word.load(Ordering::Acquire);
        (word & STOP == 0).then_some(Heard(word & !SLEEPING))
    }

    /// Says that the thread sleeps, unless the bell was rung after `heard`.
    pub(super) fn lie_down(&self, heard: Heard) -> bool {
        // Ordering: Relaxed: the bit guards nothing but the sleep; a ring in between makes this
        // fail, because it changes the same word.
        let asleep = self.word.compare_exchange(
            heard.0,
            heard.0 | SLEEPING,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        asleep.is_ok()
    }
}

impl Doorbell {
    /// Takes back that the thread sleeps; whether it was so.
    pub(super) fn get_up(&self) -> bool {
        // Ordering: Relaxed: only the bit is at stake.
        self.word.fetch_and(!SLEEPING, Ordering::Relaxed) & SLEEPING != 0
    }
}

#[cfg(loom)]
impl Doorbell {
    fn wake(&self) {
        self.get_up();
    }
}

#[cfg(not(loom))]
impl Doorbell {
    fn wake(&self) {
        // The thread holds the lock from setting SLEEPING until it waits, so it can't miss this.
        let _bed = lock(&self.bed);
        if self.get_up() {
            self.alarm.notify_one();
        }
    }

    /// Tells the thread to end.
    pub(super) fn stop(&self) {
        // Ordering: Relaxed: who hears it ends, and hands on by `join` what it did.
        self.word.fetch_or(STOP, Ordering::Relaxed);
        self.ring();
    }

    /// Waits until the bell is rung after `heard`, or `most` is over: spins first, then sleeps.
    pub(super) fn wait(&self, heard: Heard, most: Option<Duration>) {
        let deadline = most.map(|most| now() + most);
        let short = most.is_some_and(|most| most < SHORTEST_SLEEP);
        let mut spins = 0;
        loop {
            // Ordering: Relaxed: `listen` comes before the next look at the queues.
            if self.word.load(Ordering::Relaxed) != heard.0 {
                return;
            }
            if deadline.is_some_and(|deadline| now() >= deadline) {
                return;
            }
            if short {
                thread::yield_now();
            } else if spins < SPINS {
                spins += 1;
                spin_loop();
            } else {
                break;
            }
        }
        self.sleep(heard, deadline);
    }

    fn sleep(&self, heard: Heard, deadline: Option<Instant>) {
        let mut bed = lock(&self.bed);
        if !self.lie_down(heard) {
            return;
        }
        // Ordering: Relaxed: `wake` clears the bit under the lock that is held here.
        while self.word.load(Ordering::Relaxed) & SLEEPING != 0 {
            let slept;
            (bed, slept) = sleep(&self.alarm, &self.bed, bed, deadline);
            if !slept {
                break;
            }
        }
        // It is still so after a timeout.
        self.get_up();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_ring_after_the_look_is_heard() {
        let bell = Doorbell::new();
        let heard = bell.listen().unwrap();
        bell.ring();
        // Would hang if the ring were lost.
        bell.wait(heard, None);
        assert!(bell.listen() != Some(heard));
    }

    #[test]
    fn sleepers_wake() {
        let bell = Arc::new(Doorbell::new());
        let sleeper = {
            let bell = bell.clone();
            std::thread::spawn(move || {
                let mut rounds = 0_u32;
                while let Some(heard) = bell.listen() {
                    bell.wait(heard, None);
                    rounds += 1;
                }
                rounds
            })
        };
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(1));
            bell.ring();
        }
        bell.stop();
        assert!(sleeper.join().unwrap() >= 1);
        assert!(bell.listen().is_none());
    }

    #[test]
    fn waits_end_at_their_deadline() {
        let bell = Doorbell::new();
        let heard = bell.listen().unwrap();
        for most in [Duration::from_micros(50), Duration::from_millis(5)] {
            let start = Instant::now();
            bell.wait(heard, Some(most));
            assert!(start.elapsed() >= most);
        }
        assert!(bell.listen() == Some(heard), "the word is clean again");
    }
}
