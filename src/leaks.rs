//! What had to be leaked because the NIC might still touch it, counted so that it can be seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::global;

#[derive(Default)]
struct Counters {
    registrations: AtomicU64,
    bytes: AtomicU64,
    holds: AtomicU64,
}

global! {
    static COUNTERS: Counters = Counters::default();
}

/// What this process has leaked so far, on purpose (rules R5, R11, R14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Leaks {
    /// Registrations that the provider refused to end when their last region was dropped. Their
    /// memory stays allocated.
    pub registrations: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Holds of operations whose end could not be shown. Their regions stay held.
    pub holds: u64,
}

/// What has been leaked so far. Three loads.
///
/// ```
/// assert_eq!(rdma_mr::leaks().holds, 0);
/// ```
#[must_use]
pub fn leaks() -> Leaks {
    // Ordering: Relaxed, here and below. Counters for people; they order nothing.
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Leaks {
        registrations: read(&COUNTERS.registrations),
        bytes: read(&COUNTERS.bytes),
        holds: read(&COUNTERS.holds),
    }
}

pub(crate) fn registration(bytes: usize) {
    // Ordering: Relaxed, as in `leaks`.
    COUNTERS.registrations.fetch_add(1, Ordering::Relaxed);
    COUNTERS.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
}

pub(crate) fn hold() {
    // Ordering: Relaxed, as in `leaks`.
    COUNTERS.holds.fetch_add(1, Ordering::Relaxed);
}
