//! How a turn is taken so and so often: alone, sixteen at a time, beside another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::clock::keep_to_core;
use super::turns::{Run, alone, take};

/// How many looks are taken at a time: one is less than the loop around it.
pub const LOOKS: usize = 16;

#[allow(unused_macros, reason = "each bench uses a part of it")]
macro_rules! twice {
    ($look:expr) => {{
        $look;
        $look;
    }};
}

/// Looks that know nothing of each other. Written out one after the other, since what a loop of so few
/// instructions takes depends on where it lies; each is inlined, since it is called nowhere else.
#[allow(unused_macros, reason = "each bench uses a part of it")]
macro_rules! sixteen {
    ($what:expr, $look:expr) => {{
        use $crate::shapes::{paths::look_at, runs::twice, turns::alone};
        let what = $what;
        alone(move |_| twice!(twice!(twice!(twice!(look_at(&what, $look))))))
    }};
}

#[allow(unused_imports, reason = "each bench uses a part of it")]
pub(crate) use {sixteen, twice};

/// Beside a thread that does nothing else, with the same.
pub fn beside<F: Fn(usize) + Send + Sync + 'static>(turn: F) -> Run {
    let turn = Arc::new(turn);
    two(called_once(Arc::clone(&turn)), called_once(turn))
}

/// Beside a thread that does nothing else, each with its own.
pub fn apart<F: FnMut(usize) + Send + 'static>(make: impl Fn() -> F) -> Run {
    two(make(), make())
}

/// The one place from which a turn is called that is taken alone and by two threads, so that it is inlined into the
/// same loop, whoever else is at it: a call of its own, with what that saves and brings back, can cost more than
/// a guard.
fn called_once<F: Fn(usize)>(turn: Arc<F>) -> impl Fn(usize) {
    move |n| turn(n)
}

/// How many turns the other thread takes before it looks whether it is over.
const TURNS: usize = 16;

fn two<F: FnMut(usize) + Send + 'static>(mut mine: F, mut theirs: F) -> Run {
    Box::new(move |count| {
        // Looked at by the other thread, so on no line with this one's stack.
        let signals = CachePadded::new((Barrier::new(2), AtomicBool::new(false)));
        let (both, over) = &*signals;
        std::thread::scope(|scope| {
            let theirs = &mut theirs;
            scope.spawn(move || {
                keep_to_core(1);
                both.wait();
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    take(theirs, n..n + TURNS);
                    n += TURNS;
                }
            });
            keep_to_core(0);
            both.wait();
            let start = Instant::now();
            take(&mut mine, 0..count as usize);
            let took = start.elapsed();
            over.store(true, Ordering::Relaxed);
            took
        })
    })
}

/// Who else is at it.
#[derive(Clone, Copy)]
pub enum Threads {
    One,
    /// Two, at the same.
    Same,
    /// Two, each at its own.
    Apart,
}

impl Threads {
    pub fn run<F: Fn(usize) + Send + Sync + 'static>(self, make: impl Fn() -> F) -> Run {
        match self {
            Threads::One => alone(called_once(Arc::new(make()))),
            Threads::Same => beside(make()),
            Threads::Apart => apart(|| called_once(Arc::new(make()))),
        }
    }
}
