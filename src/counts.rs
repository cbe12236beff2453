//! What has happened so far, counted for the whole process so that people can see it: who waited, what was
//! refused, and what had to be leaked because the NIC might still touch it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::sync::{LANES, global, lane};

/// What is counted while others wait: a line for some of the threads.
struct Lane {
    waits: AtomicU64,
    parks: AtomicU64,
    #[cfg(feature = "count-refusals")]
    refusals: AtomicU64,
}

// Of std in models, too: they are for people, and nobody's order depends on them.
static OFTEN: [CachePadded<Lane>; LANES] = [const {
    CachePadded::new(Lane {
        waits: AtomicU64::new(0),
        parks: AtomicU64::new(0),
        #[cfg(feature = "count-refusals")]
        refusals: AtomicU64::new(0),
    })
}; LANES];

/// What is rare.
#[derive(Default)]
struct Rare {
    rotations: AtomicU64,
    registrations: AtomicU64,
    bytes: AtomicU64,
    holds: AtomicU64,
}

global! {
    static RARE: Rare = Rare::default();
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

/// What has happened in this process since it began, over all regions; see [`counts`].
///
/// Each is a number of events, and only grows. They are read one after the other: while others go on,
/// two of them may be from moments a little apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Acquisitions that found the way barred and had to wait, spinning or parked, as threads or as
    /// futures: the sum of [`LocalMr::waits`](crate::LocalMr::waits) over all regions that there were, and of
    /// the waits for what the crate keeps behind gates of its own (a poller's turn, the list of leases).
    pub waits: u64,
    /// How often one of those gave the processor away: a thread slept, or a future registered its waker.
    /// One wait may park several times.
    pub parks: u64,
    /// Attempts (`try_*`) to get a guard, a permit or an operation's hold that found the region held or closed.
    /// `None`: not counted, for want of the feature `count-refusals`, with which each refusal costs one RMW on
    /// a line of the thread's, where it otherwise is one load and writes nothing.
    pub refusals: Option<u64>,
    /// Registrations of the same bytes with new keys that came into force
    /// ([`rotate_keys`](crate::LocalMr::rotate_keys), [`reregister`](crate::LocalMr::reregister)).
    pub rotations: u64,
    /// What was leaked; as [`leaks`] says.
    pub leaks: Leaks,
}

// Ordering: Relaxed, all that follow. Counters for people; they order nothing.
fn read(counter: &AtomicU64) -> u64 {
    // Ordering: Relaxed.
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, n: u64) {
    // Ordering: Relaxed.
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What has been leaked so far. Three loads.
///
/// ```
/// assert_eq!(rdma_mr::leaks().holds, 0);
/// ```
#[must_use]
pub fn leaks() -> Leaks {
    Leaks {
        registrations: read(&RARE.registrations),
        bytes: read(&RARE.bytes),
        holds: read(&RARE.holds),
    }
}

/// What has been counted so far, in this process. A few loads for each of eight lines; never waits.
///
/// ```
/// use rdma_mr::{LocalMr, backend::soft::Nic, counts};
///
/// let before = counts();
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
/// mr.rotate_keys()?;
/// let since = counts().since(before);
/// assert_eq!((since.rotations, since.waits), (1, 0));
/// assert_eq!(since.refusals.is_some(), cfg!(feature = "count-refusals"));
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use]
pub fn counts() -> Counts {
    let sum = |of: fn(&Lane) -> &AtomicU64| OFTEN.iter().map(|lane| read(of(lane))).sum();
    Counts {
        waits: sum(|lane| &lane.waits),
        parks: sum(|lane| &lane.parks),
        #[cfg(feature = "count-refusals")]
        refusals: Some(sum(|lane| &lane.refusals)),
        #[cfg(not(feature = "count-refusals"))]
        refusals: None,
        rotations: read(&RARE.rotations),
        leaks: leaks(),
    }
}

impl Leaks {
    /// What was leaked after `earlier` was taken.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Leaks {
            registrations: self.registrations.saturating_sub(earlier.registrations),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            holds: self.holds.saturating_sub(earlier.holds),
        }
    }
}

impl Counts {
    /// What happened after `earlier` was taken. (0 where `earlier` is the later one.)
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let refusals = self.refusals.zip(earlier.refusals);
        Counts {
            waits: self.waits.saturating_sub(earlier.waits),
            parks: self.parks.saturating_sub(earlier.parks),
            refusals: refusals.map(|(now, then)| now.saturating_sub(then)),
            rotations: self.rotations.saturating_sub(earlier.rotations),
            leaks: self.leaks.since(earlier.leaks),
        }
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leaks {
            registrations,
            bytes,
            holds,
        } = self;
        write!(
            f,
            "leaked: {holds} holds, {registrations} registrations of {bytes} B"
        )
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits, {} parks, ", self.waits, self.parks)?;
        match self.refusals {
            Some(refusals) => write!(f, "{refusals} refusals, ")?,
            None => f.write_str("refusals not counted, ")?,
        }
        write!(f, "{} rotations, {}", self.rotations, self.leaks)
    }
}

/// Somebody has to wait.
#[inline]
pub(crate) fn wait() {
    add(&OFTEN[lane()].waits, 1);
}

/// Somebody who waits is about to sleep.
pub(crate) fn park() {
    add(&OFTEN[lane()].parks, 1);
}

/// What an attempt brought, counted if it was refused and that is wanted.
#[inline(always)] // as in `mr::forms`
pub(crate) fn attempt<T>(brought: Option<T>) -> Option<T> {
    #[cfg(feature = "count-refusals")]
    if brought.is_none() {
        add(&OFTEN[lane()].refusals, 1);
    }
    brought
}

pub(crate) fn rotation() {
    add(&RARE.rotations, 1);
}

pub(crate) fn leaked_registration(bytes: usize) {
    add(&RARE.registrations, 1);
    add(&RARE.bytes, bytes as u64);
}

pub(crate) fn leaked_hold() {
    add(&RARE.holds, 1);
}
