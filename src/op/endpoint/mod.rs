//! A queue pair and the posting sides of its queues in one hand: posting needs no `unsafe`, and no hold
//! is released before its operation is over.

pub(super) mod drain;
pub(super) mod future;
pub(super) mod list;
pub(super) mod request;
pub(super) mod shared;

use std::fmt;
use std::io;
use std::pin::Pin;

use super::gather::{Holding, check_kind};
use super::number::OpId;
use super::poll::poller::Poller;
use super::poll::seat::{Parts, QueueOf, Seat};
use super::queue::done::Done;
use super::queue::poster::Poster;
use super::queue::ticket::Ticket;
use crate::error::{Error, Rejected, Result};
use crate::gate::Holder;
use crate::mr::{Remote, RemoteMut};
use crate::work::{CompletionQueue, QueuePair, RecvWr, SendFlags, SendOp, SendWr};
use request::{SendRequest, check_send};

/// A queue pair with the holds of what is outstanding on it.
///
/// Posting belongs to one thread at a time (`&mut self`); completions are taken by its
/// [`Poller`], on any thread. No lock, no allocation per operation. Dropped, it destroys the queue
/// pair, and only then releases what was outstanding (rule R11); if the provider refuses to destroy
/// it, those holds are leaked and counted in [`leaks`](crate::leaks()).
///
/// ```
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::op::{Begin, Endpoint};
/// use rdma_mr::work::{QpCaps, WcStatus};
/// use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
/// let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
/// let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
/// QueuePair::connect_pair(&a, &b)?;
/// let (mut a, mut b) = (Endpoint::new(a), Endpoint::new(b));
///
/// let (mut from, to) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 64)?);
/// from.as_mut_slice()[..5].copy_from_slice(b"hello");
/// b.recv(to.begin_write()?)?;
/// a.send(from.begin_read()?, None)?;
///
/// assert!(to.try_as_slice().is_none()); // held until the completion has been polled
/// let bytes = to.as_slice_with(|| { b.poll(|done| assert_eq!(done.status, WcStatus::Success)).unwrap(); });
/// assert_eq!(&bytes[..5], b"hello");
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct Endpoint<Q: QueuePair> {
    /// There until it is destroyed.
    qp: Option<Q>,
    pub(in crate::op) sends: Poster,
    pub(in crate::op) recvs: Poster,
    send_seat: Seat<Q::Cq>,
    /// `None`: the same.
    recv_seat: Option<Seat<Q::Cq>>,
}

const ALIVE: &str = "the queue pair is there until the endpoint is gone";

/// What became of the operations that were outstanding when a queue pair came to its end.
#[derive(Clone, Copy, Default)]
pub(in crate::op) struct Ended {
    pub(in crate::op) released: usize,
    pub(in crate::op) leaked: usize,
}

impl<Q: QueuePair> Endpoint<Q> {
    /// Takes over `qp`, on which nothing is outstanding ([POST-3](QueuePair)), with pollers of its
    /// own: its completion queues are to be polled by this endpoint alone.
    ///
    /// Allocates, once, what the queue pair's capacity asks for.
    pub fn new(qp: Q) -> Self {
        let sends = Poller::new(qp.send_cq().clone());
        let recvs = if qp.recv_cq().is_same_as(qp.send_cq()) {
            sends.clone()
        } else {
            Poller::new(qp.recv_cq().clone())
        };
        Self::attach_two(qp, &sends, &recvs).expect("new pollers of its own queues have room")
    }

    /// As [`new`](Self::new), with completions that `poller` takes, as it does for others.
    ///
    /// # Errors
    /// The queue pair, with what [`attach_two`](Self::attach_two) says.
    pub fn attach(qp: Q, poller: &Poller<Q::Cq>) -> Result<Self, Rejected<Q>> {
        Self::attach_two(qp, poller, poller)
    }

    /// As [`attach`](Self::attach), for a queue pair whose sends and receives complete at two queues.
    /// Waits at most for another thread's poll.
    ///
    /// # Errors
    /// The queue pair, with [`Error::InvalidWorkRequest`] if it feeds other queues than those, or if
    /// called by a waker from inside of a poll; [`Error::PollerFull`].
    pub fn attach_two(
        qp: Q,
        sends: &Poller<Q::Cq>,
        recvs: &Poller<Q::Cq>,
    ) -> Result<Self, Rejected<Q>> {
        if !qp.send_cq().is_same_as(sends.cq()) || !qp.recv_cq().is_same_as(recvs.cq()) {
            let reason = "the queue pair feeds other completion queues than these pollers poll";
            return Err(Rejected::new(qp, Error::InvalidWorkRequest { reason }));
        }
        match Parts::new(&qp, sends, recvs) {
            Ok(parts) => Ok(Endpoint {
                qp: Some(qp),
                sends: parts.sends,
                recvs: parts.recvs,
                send_seat: parts.send_seat,
                recv_seat: parts.recv_seat,
            }),
            Err(error) => Err(Rejected::new(qp, error)),
        }
    }

    /// The queue pair.
    pub fn qp(&self) -> &Q {
        self.qp.as_ref().expect(ALIVE)
    }

    /// Its number, until its end.
    pub(in crate::op) fn qp_num(&self) -> Option<u32> {
        self.qp.as_ref().map(Q::qp_num)
    }

    /// Who polls for its send queue.
    pub fn send_poller(&self) -> &Poller<Q::Cq> {
        self.send_seat.poller()
    }

    /// Who polls for its receive queue; may be the same.
    pub fn recv_poller(&self) -> &Poller<Q::Cq> {
        self.recv_seat.as_ref().unwrap_or(&self.send_seat).poller()
    }

    /// How many operations are outstanding: sends and receives.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        (self.sends.outstanding(), self.recvs.outstanding())
    }

    /// SEND: the bytes go to the peer's next receive. Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with what [`post`](Self::post) says.
    #[inline]
    pub fn send<H: Holding>(&mut self, from: H, imm: Option<u32>) -> Result<OpId, Rejected<H>> {
        self.post_watched(SendRequest::send(from, imm), None)
    }

    /// RDMA WRITE of the bytes to the front of the peer's. Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with what [`SendRequest::write`] and [`post`](Self::post) say.
    #[inline]
    pub fn write<H: Holding>(
        &mut self,
        from: H,
        to: impl RemoteMut,
        imm: Option<u32>,
    ) -> Result<OpId, Rejected<H>> {
        self.post_watched(SendRequest::write(from, to, imm)?, None)
    }

    /// RDMA READ of the front of the peer's bytes into these. Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with what [`SendRequest::read`] and [`post`](Self::post) say.
    #[inline]
    pub fn read<H: Holding>(&mut self, into: H, from: impl Remote) -> Result<OpId, Rejected<H>> {
        self.post_watched(SendRequest::read(into, from)?, None)
    }

    /// FETCH_ADD on the peer's integer; its value before comes into the 8 bytes. Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with what [`SendRequest::fetch_add`] and [`post`](Self::post) say.
    #[inline]
    pub fn fetch_add<H: Holding>(
        &mut self,
        into: H,
        remote: impl Remote,
        add: u64,
    ) -> Result<OpId, Rejected<H>> {
        self.post_watched(SendRequest::fetch_add(into, remote, add)?, None)
    }

    /// CMP_SWAP on the peer's integer; its value before comes into the 8 bytes. Does not wait.
    ///
    /// # Errors
    /// The holds, as they were, with what [`SendRequest::compare_swap`] and [`post`](Self::post) say.
    #[inline]
    pub fn compare_swap<H: Holding>(
        &mut self,
        into: H,
        remote: impl Remote,
        compare: u64,
        swap: u64,
    ) -> Result<OpId, Rejected<H>> {
        let request = SendRequest::compare_swap(into, remote, compare, swap)?;
        self.post_watched(request, None)
    }

    /// Posts any operation to the send queue (`ibv_post_send`). Does not wait. One that is not
    /// [`SIGNALED`](SendFlags::SIGNALED) is over when a later one that is has completed. An
    /// [`INLINE`](SendFlags::INLINE) one gives its holds back before this returns.
    ///
    /// # Errors
    /// The holds, as they were, with [`Error::QueueFull`], [`Error::InvalidWorkRequest`] if they are not
    /// of the kind that the operation needs (R13), or if the queue would be full of unsignalled ones,
    /// which nothing would release; or what the provider says. Nothing was posted.
    #[inline]
    pub fn post<H: Holding>(
        &mut self,
        holds: H,
        op: SendOp,
        flags: SendFlags,
    ) -> Result<OpId, Rejected<H>> {
        self.post_watched(SendRequest { holds, op, flags }, None)
    }

    #[inline]
    pub(in crate::op) fn post_watched<H: Holding>(
        &mut self,
        request: SendRequest<H>,
        ticket: Option<Pin<&Ticket>>,
    ) -> Result<OpId, Rejected<H>> {
        let SendRequest { holds, op, flags } = request;
        if let Err(error) = check_send(&holds, &op) {
            return Err(Rejected::new(holds, error));
        }
        let qp = self.qp.as_ref().expect(ALIVE);
        let prepared = self.sends.prepare_watched(holds, flags, ticket)?;
        let wr = SendWr {
            wr_id: prepared.wr_id(),
            sge: prepared.sges(),
            op,
            flags,
        };
        // SAFETY: POST-1: the holds are of the kind that the operation needs, and are kept until the
        // work request is over; POST-3: all of this queue pair's posts come from here.
        match unsafe { qp.post_send(&wr) } {
            Ok(()) => Ok(prepared.commit()),
            Err(error) => Err(Rejected::new(prepared.take_back(), error)),
        }
    }

    /// Posts a receive (`ibv_post_recv`): the peer's next message, or the immediate data of its
    /// WRITE, goes there. Does not wait.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    #[inline]
    pub fn recv<H: Holding>(&mut self, into: H) -> Result<OpId, Rejected<H>> {
        self.recv_watched(into, None)
    }

    #[inline]
    pub(in crate::op) fn recv_watched<H: Holding>(
        &mut self,
        into: H,
        ticket: Option<Pin<&Ticket>>,
    ) -> Result<OpId, Rejected<H>> {
        if let Err(error) = check_kind(&into, Holder::NicWrite) {
            return Err(Rejected::new(into, error));
        }
        let qp = self.qp.as_ref().expect(ALIVE);
        let flags = SendFlags::SIGNALED;
        let prepared = self.recvs.prepare_watched(into, flags, ticket)?;
        let wr = RecvWr {
            wr_id: prepared.wr_id(),
            sge: prepared.sges(),
        };
        // SAFETY: POST-2: the holds are exclusive and kept until the work request is over; POST-3 as
        // in `post_watched`.
        match unsafe { qp.post_recv(&wr) } {
            Ok(()) => Ok(prepared.commit()),
            Err(error) => Err(Rejected::new(prepared.take_back(), error)),
        }
    }

    /// What a list is posted with.
    pub(in crate::op) fn qp_and_sends(&mut self) -> (&Q, &mut Poster) {
        let qp = self.qp.as_ref().expect(ALIVE);
        (qp, &mut self.sends)
    }

    /// What a list of receives is posted with.
    pub(in crate::op) fn qp_and_recvs(&mut self) -> (&Q, &mut Poster) {
        let qp = self.qp.as_ref().expect(ALIVE);
        (qp, &mut self.recvs)
    }

    /// Polls for both of its queues; see [`Poller::poll_with`]. With a poller that others use as well,
    /// `done` is told of their operations, too.
    ///
    /// After an operation that failed the queue pair is in ERR: [drain](Self::drain), close or drop it.
    /// Not every device completes what is posted from then on (R16): a wait for it might not end.
    ///
    /// # Errors
    /// As [`Poller::poll`].
    pub fn poll(&mut self, mut done: impl FnMut(Done)) -> Result<usize> {
        let sends = self.send_seat.poller().poll_with(&mut done);
        match &self.recv_seat {
            None => sends,
            Some(seat) => {
                let recvs = seat.poller().poll_with(done);
                Ok(sends? + recvs?)
            }
        }
    }

    /// Destroys the queue pair (`ibv_destroy_qp`), then releases all that was outstanding. May block
    /// in the kernel.
    ///
    /// # Errors
    /// The endpoint, as it was, with what the provider said.
    #[allow(
        clippy::result_large_err,
        reason = "rare, and it is all that was handed in"
    )]
    pub fn close(mut self) -> Result<(), (Self, io::Error)> {
        match self.end() {
            Ok(_) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }

    /// Destroys the queue pair, then releases; `Err`: it was refused, and all is as before.
    pub(in crate::op) fn end(&mut self) -> io::Result<Ended> {
        let Some(qp) = self.qp.take() else {
            return Ok(Ended::default());
        };
        if let Err((qp, error)) = qp.destroy() {
            self.qp = Some(qp);
            return Err(error);
        }
        // SAFETY: COMPLETE-2 by QP-4: it was destroyed; nothing is prepared, since that borrows the
        // endpoint.
        let released = unsafe { self.settle(true) };
        Ok(Ended {
            released,
            leaked: 0,
        })
    }

    /// The NIC may go on: neither the queue pair nor the regions may be let go.
    pub(in crate::op) fn abandon(&mut self) -> Ended {
        std::mem::forget(self.qp.take());
        // SAFETY: COMPLETE-2: nothing is said to be destroyed.
        let leaked = unsafe { self.settle(false) };
        Ended {
            released: 0,
            leaked,
        }
    }

    /// # Safety
    /// - **COMPLETE-2** if `destroyed`.
    unsafe fn settle(&mut self, destroyed: bool) -> usize {
        let seats = [Some(&mut self.send_seat), self.recv_seat.as_mut()];
        let seats = seats.into_iter().flatten();
        // SAFETY: COMPLETE-2, as required of the caller.
        seats.map(|seat| unsafe { seat.leave(destroyed) }).sum()
    }
}

impl<Q: QueuePair> Drop for Endpoint<Q> {
    fn drop(&mut self) {
        if self.end().is_err() {
            self.abandon();
        }
    }
}

impl<Q: QueuePair> fmt::Debug for Endpoint<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sends, recvs) = self.outstanding();
        let queue = |seat, recv| QueueOf { seat, recv };
        let recv_seat = self.recv_seat.as_ref().unwrap_or(&self.send_seat);
        f.debug_struct("Endpoint")
            .field("qp_num", &self.qp_num())
            .field("sends", &sends)
            .field("recvs", &recvs)
            .field("send_queue", &queue(&self.send_seat, false))
            .field("recv_queue", &queue(recv_seat, true))
            .finish()
    }
}
