//! What happened, counted by kind, and the first thing that went wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static COUNTS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
static FAILURE: Mutex<Option<String>> = Mutex::new(None);
static FAILED: AtomicBool = AtomicBool::new(false);
static PROGRESS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);
static MISMATCHES: AtomicU64 = AtomicU64::new(0);

/// Whether nothing may be forgotten that takes memory.
pub static SPARING: AtomicBool = AtomicBool::new(false);

/// Whether the device may tell success of atomics, and of READs of more than one packet, whose answers it never placed:
/// soft-RoCE, where packets get lost (docs/faults.md; `examples/answers`).
pub static LOSES_ANSWERS: AtomicBool = AtomicBool::new(false);

pub fn loses_answers() -> bool {
    LOSES_ANSWERS.load(Ordering::SeqCst)
}

/// Whether it may be so of a READ of that many bytes: of one packet the answer is there.
pub fn loses_answers_of(length: usize) -> bool {
    const ONE_PACKET: usize = 1000;
    length > ONE_PACKET && loses_answers()
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one more of that kind. The kinds' first word is what they are printed and asked for by.
pub fn count(what: &'static str) {
    *lock(&COUNTS).entry(what).or_default() += 1;
}

/// An operation has ended: something moves.
pub fn progress() {
    PROGRESS.fetch_add(1, Ordering::Relaxed);
}

pub fn progressed() -> u64 {
    PROGRESS.load(Ordering::Relaxed)
}

/// Something is wrong: everybody stops, and the test fails with the first of these.
pub fn fail(text: impl Display) {
    FAILURES.fetch_add(1, Ordering::SeqCst);
    let mut failure = lock(&FAILURE);
    if failure.is_none() {
        eprintln!("torture: {text}");
        *failure = Some(text.to_string());
        FAILED.store(true, Ordering::SeqCst);
    }
}

/// Bytes are not what they must be.
pub fn mismatch(text: impl Display) {
    MISMATCHES.fetch_add(1, Ordering::SeqCst);
    fail(text);
}

#[allow(dead_code, reason = "the soak tells of them")]
pub fn mismatches() -> u64 {
    MISMATCHES.load(Ordering::SeqCst)
}

pub fn failures() -> u64 {
    FAILURES.load(Ordering::SeqCst)
}

pub fn failed() -> bool {
    FAILED.load(Ordering::SeqCst)
}

pub fn failure() -> Option<String> {
    lock(&FAILURE).clone()
}

pub fn counted(what: &str) -> u64 {
    lock(&COUNTS).get(what).copied().unwrap_or(0)
}

/// All kinds, by their first word.
pub fn print() {
    let mut group = "";
    for (what, count) in &*lock(&COUNTS) {
        let (first, rest) = what.split_once(' ').unwrap_or((what, ""));
        if first != group {
            group = first;
            print!("\n{first:>8}:");
        }
        print!(" {rest} {count};");
    }
    println!();
}
