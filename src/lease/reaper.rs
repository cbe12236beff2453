//! The end of leases whose time has passed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::listener;

use super::Shared;
use crate::gate::Locked;
use crate::mr::MrToken;
use crate::sync::{Stop, Worker, global, now, park, waiters};
use crate::trace;

/// When a lease that the provider refused to end is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// By when they expire, and where they are.
type Leases = BTreeMap<(Instant, usize), Arc<Shared>>;

global! {
    /// All leases in force.
    static LEASES: Locked<Leases> = Locked::new(Leases::new());
}

/// Stands for the list of those who wait for leases to expire.
static PLACE: u8 = 0;

fn address() -> usize {
    std::ptr::from_ref(&PLACE) as usize
}

fn key(lease: &Shared) -> (Instant, usize) {
    (lease.expires, std::ptr::from_ref(lease) as usize)
}

pub(super) fn enlist(lease: &Arc<Shared>) {
    let key = key(lease);
    let first = LEASES.with(|leases| {
        leases.insert(key, Arc::clone(lease));
        leases.first_key_value().map(|(first, _)| *first)
    });
    if first == Some(key) {
        waiters(address()).notify(usize::MAX);
    }
}

pub(super) fn strike(lease: &Shared) {
    let entry = LEASES.with(|leases| leases.remove(&key(lease)));
    // Not the last one: the caller has the lease.
    drop(entry);
}

/// A lease in force, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lent {
    /// The address of the region's gate, by which its `Debug` names it.
    pub gate: usize,
    /// Which bytes, with which key and rights.
    pub token: MrToken,
    /// When its time has passed.
    pub expires: Instant,
}

impl Lent {
    /// For how long its time has passed; `None` if it has not. Then nobody [reaps](reap), or the provider refuses
    /// to end it: the region stays held.
    #[must_use]
    pub fn overdue(&self) -> Option<Duration> {
        now().checked_duration_since(self.expires)
    }
}

/// All leases of the process that are in force, by when they expire. For people: by the time it is read, some
/// may be over. Waits for who changes the list, never for the kernel; O(leases).
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::lease::lent;
/// use rdma_mr::prelude::*;
/// use rdma_mr::backend::soft::Nic;
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
/// let lease = mr.lease(..8, Access::REMOTE_READ, Duration::ZERO)?;
/// let all = lent();
/// assert!(all[0].token == lease.token() && all[0].overdue().is_some());
/// lease.revoke()?;
/// assert!(lent().is_empty());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use]
pub fn lent() -> Vec<Lent> {
    let about = |lease: &Arc<Shared>| Lent {
        gate: lease.gate,
        token: lease.token,
        expires: lease.expires,
    };
    LEASES.with(|leases| leases.values().map(about).collect())
}

/// What [`reap`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaped {
    /// Leases that it revoked.
    pub revoked: usize,
    /// Leases whose time has passed and whose registration the provider refused to end: they are in
    /// force, and will be tried again.
    pub refused: usize,
    /// When to call it next; `None` if there is no lease.
    pub next: Option<Instant>,
}

/// Revokes all leases of the process whose time has passed. For those who have a thread that comes by; a
/// [`Reaper`] does it by itself. Without either, a lease lasts until it is revoked or dropped. Blocks in
/// the kernel if one has expired.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::lease::reap;
/// use rdma_mr::prelude::*;
/// use rdma_mr::backend::soft::Nic;
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
/// let lease = mr.lease(.., Access::REMOTE_READ, Duration::ZERO)?;
/// reap();
/// assert!(lease.is_revoked());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub fn reap() -> Reaped {
    let now = now();
    let due: Vec<Arc<Shared>> = LEASES.with(|leases| {
        let due = leases.range(..=(now, usize::MAX));
        due.map(|(_, lease)| Arc::clone(lease)).collect()
    });
    let mut reaped = Reaped::default();
    for lease in due {
        match lease.revoke() {
            Ok(true) => {
                reaped.revoked += 1;
                lease.tell(trace::expired);
            }
            Ok(false) => {}
            Err(_) => reaped.refused += 1,
        }
    }
    let first = LEASES.with(|leases| leases.first_key_value().map(|((when, _), _)| *when));
    reaped.next = match reaped.refused {
        0 => first,
        _ => first.map(|first| first.max(now + AGAIN)),
    };
    reaped
}

/// A thread that revokes leases when their time has passed, and sleeps otherwise. Any number of them serve
/// all leases of the process; one is enough. Dropped, it ends the thread, and waits for it.
#[derive(Debug)]
pub struct Reaper(Worker<()>);

impl Reaper {
    /// Starts a thread of that name.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use rdma_mr::lease::Reaper;
    /// use rdma_mr::prelude::*;
    /// use rdma_mr::backend::soft::Nic;
    ///
    /// let _reaper = Reaper::spawn("leases")?;
    /// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
    /// let lease = mr.lease(.., Access::REMOTE_WRITE, Duration::from_millis(20))?;
    /// let bytes = mr.as_slice(); // waits until the lease is over
    /// assert!(lease.is_revoked() && Instant::now() >= lease.expires());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The operating system's, for a thread.
    pub fn spawn(name: &str) -> io::Result<Reaper> {
        let run = |stop: Stop| {
            loop {
                // On the list before it looks: it is told of what comes after that.
                listener!(waiters(address()) => listener);
                if stop.is_told() {
                    return;
                }
                park(listener, reap().next);
            }
        };
        Worker::spawn(name, run).map(Reaper)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // It has nothing to say; a panic of a provider's was printed.
        let _ = self.0.end(|| {
            waiters(address()).notify(usize::MAX);
        });
    }
}
