//! Shared receive queues: one ring of receives that several queue pairs take from.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::nic::Alive;
use super::qp::{check_caps, check_elements};
use super::ring::{RecvHeader, WorkQueue};
use crate::sync::{AtomicU64, Ordering};
use crate::work::{self, QpCaps, RecvWr};
use crate::{Error, Result};

/// A shared receive queue of a [`Nic`](super::Nic) (`struct ibv_srq`);
/// [`create_srq`](super::ProtectionDomain::create_srq) makes one. Posting and destruction are those of
/// [`work::SharedRecvQueue`].
///
/// A message takes the oldest receive, whichever queue pair it is for; the completion arrives at that
/// queue pair's `recv_cq` with its number. The keys of a receive are looked up in the protection
/// domain of this queue.
///
/// - Room comes back when a message has taken a receive, before its completion is polled: so more
///   completions may be outstanding than [`capacity`](work::SharedRecvQueue::capacity), and the
///   completion queues have to have room for them (rule R15).
/// - A queue pair that goes to `ERR` leaves the receives here to the others. Only the receive of a
///   SEND that fails together with this side's queue pair is over: it completes with an error.
///   If only the sender fails in the middle, or the queue pair is destroyed, the receive stays the
///   oldest, though bytes may have been written there.
/// - Destruction is refused (`EBUSY`) while a queue pair that takes from it lives. Dropped, it is kept
///   until the last of these is gone, and they go on taking from it.
pub struct SharedRecvQueue {
    inner: Arc<SrqInner>,
    alive: Arc<Alive>,
}

/// The queue as the NIC and its queue pairs see it.
pub(super) struct SrqInner {
    pub(super) queue: WorkQueue<RecvHeader>,
    pub(super) pd: u64,
    /// Queue pairs that take from it.
    users: AtomicU64,
}

impl SrqInner {
    /// Takes away the receive at the head, which gives its room back. Under the engine's lock, so
    /// that the credit only grows.
    pub(super) fn take(&self) -> Option<RecvHeader> {
        let (receive, taken) = self.queue.pop()?;
        self.queue.credit().free(taken);
        Some(receive)
    }

    pub(super) fn join(&self) {
        // Ordering: Relaxed: the queue is borrowed, so that its destruction comes later anyhow.
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// Called when the NIC works on that queue pair no more.
    pub(super) fn leave(&self) {
        // Ordering: Release: pairs with the Acquire of `destroy`.
        self.users.fetch_sub(1, Ordering::Release);
    }
}

impl SharedRecvQueue {
    pub(super) fn create(
        alive: &Arc<Alive>,
        pd: u64,
        max_recv_wr: u32,
        max_recv_sge: u32,
    ) -> Result<Self> {
        let caps = QpCaps {
            max_recv_wr,
            max_recv_sge,
            ..QpCaps::default()
        };
        check_caps(caps)
            .and(match max_recv_wr {
                0 => Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a capacity of 0: ask for at least one work request",
                )),
                _ => Ok(()),
            })
            .map_err(|source| Error::Provider {
                call: "soft create_srq",
                source,
            })?;
        Ok(SharedRecvQueue {
            inner: Arc::new(SrqInner {
                queue: WorkQueue::new(max_recv_wr, max_recv_sge, 0),
                pd,
                users: AtomicU64::new(0),
            }),
            alive: alive.clone(),
        })
    }

    pub(super) fn inner(&self) -> &Arc<SrqInner> {
        &self.inner
    }

    pub(super) fn belongs_to(&self, alive: &Arc<Alive>) -> bool {
        Arc::ptr_eq(&self.alive, alive)
    }
}

// SAFETY: SRQ-1: the engine copies to a receive only while it is at the head, and pushes its
// completion after it was taken away; every check comes before the ring's `post`. SRQ-2: a receive
// leaves the ring in one place, `SrqInner::take`, with at most one completion. SRQ-3: the NIC gets to
// the ring through a queue pair only, and `leave` comes after the end of one (`QpInner::end`).
unsafe impl work::SharedRecvQueue for SharedRecvQueue {
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        check_elements(wr.sge, self.max_sge())?;
        let header = RecvHeader { wr_id: wr.wr_id };
        self.inner.queue.post(header, wr.sge)?;
        self.alive.core.bell.ring();
        Ok(())
    }

    fn capacity(&self) -> u32 {
        self.inner.queue.capacity
    }

    fn max_sge(&self) -> u32 {
        self.inner.queue.max_sge
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        // Ordering: Acquire: pairs with the Release of `leave`: what the NIC did for that queue pair
        // comes before. No queue pair can join any more.
        match self.inner.users.load(Ordering::Acquire) {
            0 => Ok(()),
            users => {
                let error = io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("{users} queue pair(s) take receives from it: destroy them first"),
                );
                Err((self, error))
            }
        }
    }
}

impl fmt::Debug for SharedRecvQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRecvQueue")
            .field("capacity", &self.inner.queue.capacity)
            .field("max_sge", &self.inner.queue.max_sge)
            // Ordering: Relaxed: for people to read.
            .field("users", &self.inner.users.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
