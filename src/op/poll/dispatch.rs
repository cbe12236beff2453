//! The rings of several queues behind one call, for those who poll themselves.

use std::fmt;
use std::task::Waker;

use super::table::{Found, Table};
use crate::error::{Error, Result};
use crate::op::Poster;
use crate::op::number::Numbers;
use crate::op::queue::done::Over;
use crate::op::queue::ring::Ring;
use crate::op::queue::slots::SlotCompleter;
use crate::work::{QpCaps, WcStatus, WorkCompletion};

/// The posting sides of a queue pair that you keep yourself; see [`Dispatch::queue_pair`].
#[derive(Debug)]
pub struct Rings {
    /// For its send queue.
    pub sends: Poster,
    /// For its receive queue.
    pub recvs: Poster,
}

/// The completing sides of all queues whose completions you poll, found by the `wr_id`: one call for
/// each completion. One thread at a time; for those whose queues are a backend's there is the
/// [`Poller`](crate::op::Poller).
///
/// ```
/// use rdma_mr::op::{Begin, Dispatch};
/// use rdma_mr::work::{QpCaps, SendFlags, WcStatus};
/// use rdma_mr::{LocalMr, backend::soft::Nic};
///
/// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
/// let mut dispatch = Dispatch::new();
/// let mut rings = dispatch.queue_pair(QpCaps::default())?;
/// let send = rings.sends.prepare(mr.begin_read()?, SendFlags::SIGNALED)?;
/// let wr_id = send.wr_id(); // … post it …
/// send.commit();
/// // … and for each completion that is polled, of whichever queue:
/// // SAFETY: COMPLETE-1: here, nothing was posted.
/// let over = unsafe { dispatch.complete(wr_id, WcStatus::Success) }?;
/// assert_eq!(over.count(), 1);
/// // A completion that comes twice, or is nobody's, releases nothing.
/// // SAFETY: COMPLETE-1: as above.
/// assert!(unsafe { dispatch.complete(wr_id, WcStatus::Success) }.is_err());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Default)]
pub struct Dispatch {
    table: Table,
}

impl Dispatch {
    /// Of no queue yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings for a queue pair with these capacities, as [`send_ring`](crate::op::send_ring) and
    /// [`recv_ring`](crate::op::recv_ring) make them. If they are dropped while work is outstanding, it
    /// stays so until its completions, or until the dispatch is dropped, which leaks and counts it.
    ///
    /// # Errors
    /// [`Error::PollerFull`].
    pub fn queue_pair(&mut self, caps: QpCaps) -> Result<Rings> {
        let max = Numbers::QUEUES;
        let number = self.table.insert(0).ok_or(Error::PollerFull { max })?;
        let mut ring = |capacity, max_sge, recv| {
            let (poster, completer) =
                Ring::sides(capacity, max_sge, Numbers::of_queue(number, recv));
            self.table.add(number, completer);
            poster
        };
        Ok(Rings {
            sends: ring(caps.max_send_wr, caps.max_send_sge, false),
            recvs: ring(caps.max_recv_wr, caps.max_recv_sge, true),
        })
    }

    /// The completing side of a shared receive queue; see [`recv_slots`](crate::op::recv_slots).
    ///
    /// # Errors
    /// [`Error::PollerFull`].
    pub fn shared_queue(&mut self, slots: &SlotCompleter) -> Result<()> {
        let max = Numbers::QUEUES;
        let inserted = self.table.insert_shared(slots.clone());
        inserted.then_some(()).ok_or(Error::PollerFull { max })
    }

    /// Releases what the completion of `wr_id` says is over; as
    /// [`Completer::complete`](crate::op::Completer::complete), for whichever queue it is.
    ///
    /// # Errors
    /// [`Error::UnknownCompletion`] if it belongs to nothing outstanding: unknown, stale, or told before.
    /// Nothing is released then.
    ///
    /// # Safety
    /// - **COMPLETE-1** as for [`Completer::complete`](crate::op::Completer::complete).
    pub unsafe fn complete(&mut self, wr_id: u64, status: WcStatus) -> Result<Over> {
        let wc = WorkCompletion {
            wr_id,
            status,
            ..WorkCompletion::EMPTY
        };
        // SAFETY: COMPLETE-1, as required of the caller.
        match unsafe { self.table.finish(&wc, &mut Waker::wake) } {
            Found::Over(over) => Ok(over),
            Found::Late | Found::Nothing => Err(Error::UnknownCompletion { wr_id }),
        }
    }

    /// The queue pair is no more: releases all that was outstanding on it, and returns how many work
    /// requests that were. Rings of another dispatch are left as they are: 0.
    ///
    /// # Safety
    /// - **COMPLETE-2** as for [`Completer::release_all`](crate::op::Completer::release_all).
    pub unsafe fn release_all(&mut self, rings: Rings) -> usize {
        let number = rings.sends.ring().numbers().number();
        if !self.table.has(number, rings.sends.ring()) {
            return 0;
        }
        let queues = self.table.remove(number);
        // SAFETY: COMPLETE-2, as required of the caller.
        queues.map_or(0, |mut queues| unsafe { queues.settle(true) })
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatch").field(&self.table).finish()
    }
}

#[cfg(all(test, feature = "soft", not(loom)))]
mod tests {
    use super::*;
    use crate::LocalMr;
    use crate::backend::soft::Nic;
    use crate::op::{Begin, recv_slots};
    use crate::work::SendFlags;

    #[test]
    fn r11_each_completion_finds_its_queue_and_no_other() {
        let mr = || LocalMr::alloc(&Nic::new().alloc_pd(), 64).unwrap();
        let (one, two, three, four) = (mr(), mr(), mr(), mr());
        let mut dispatch = Dispatch::new();
        let mut a = dispatch.queue_pair(QpCaps::default()).unwrap();
        let mut b = dispatch.queue_pair(QpCaps::default()).unwrap();
        let (mut slots, completer) = recv_slots(4, 1);
        dispatch.shared_queue(&completer).unwrap();
        let flags = SendFlags::SIGNALED;
        let ids = [
            a.sends
                .prepare(one.begin_read().unwrap(), flags)
                .unwrap()
                .commit(),
            a.recvs
                .prepare(two.begin_write().unwrap(), flags)
                .unwrap()
                .commit(),
            b.sends
                .prepare(three.begin_read().unwrap(), flags)
                .unwrap()
                .commit(),
            slots.prepare(four.begin_write().unwrap()).unwrap().commit(),
        ];
        let mut held = vec![&one, &two, &three, &four];
        for (at, id) in ids.iter().enumerate().rev() {
            assert!(held.iter().all(|mr| !mr.state().is_free()));
            // SAFETY: COMPLETE-1: nothing was posted.
            let over = unsafe { dispatch.complete(id.wr_id(), WcStatus::Success) }.unwrap();
            assert_eq!(over.each().map(|done| done.id).collect::<Vec<_>>(), [*id]);
            assert!(held.remove(at).state().is_free());
            // SAFETY: COMPLETE-1: as above; told before.
            let again = unsafe { dispatch.complete(id.wr_id(), WcStatus::Success) };
            assert!(matches!(again, Err(Error::UnknownCompletion { .. })));
        }
    }

    #[test]
    fn r11_the_end_of_a_queue_pair_releases_its_own_alone() {
        let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64).unwrap();
        let (mut dispatch, mut other) = (Dispatch::new(), Dispatch::new());
        let mut a = dispatch.queue_pair(QpCaps::default()).unwrap();
        let b = other.queue_pair(QpCaps::default()).unwrap();
        for _ in 0..3 {
            let hold = mr.begin_read().unwrap();
            a.sends.prepare(hold, SendFlags::SIGNALED).unwrap().commit();
        }
        // SAFETY: COMPLETE-2: there is no queue pair.
        assert_eq!(unsafe { dispatch.release_all(b) }, 0);
        assert_eq!(mr.state().nic_reads, 3);
        // SAFETY: COMPLETE-2: as above.
        assert_eq!(unsafe { dispatch.release_all(a) }, 3);
        assert!(mr.state().is_free());
    }
}
