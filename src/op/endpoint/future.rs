//! Operations as futures.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use super::Endpoint;
use super::drain::Drain;
use super::request::SendRequest;
use crate::error::{Error, Rejected, Result};
use crate::gate::{Gate, Holder};
use crate::mr::{MrAccess, Remote, RemoteMut};
use crate::op::Begin;
use crate::op::gather::Holding;
use crate::op::number::OpId;
use crate::op::poll::poller::Poller;
use crate::op::queue::done::Done;
use crate::op::queue::ring::Ring;
use crate::op::queue::ticket::{Outcome, Ticket, Waiting};
use crate::sync::UnsafeCell;
use crate::work::{QueuePair, SendFlags, SendOp};

/// A queue pair whose operations are futures, for any number of tasks and threads at a time.
///
/// Each waits for its region, then for a turn to post and for room in the queue, then for the
/// completion. Needs no runtime: runs on any executor, a bare `block_on` too. Somebody has to poll the
/// completion queues: a [`PollerThread`](crate::op::PollerThread), a task that sleeps on
/// [`fd`](crate::work::CompletionEvents::fd), or a thread that calls [`Poller::poll`].
///
/// Dropping a future before its operation is posted takes the wish back; afterwards the operation goes
/// on without it, and its region stays held until the completion (rule R9). Forgetting it does the same,
/// except that a region which it held already, while it waited for a turn or room, stays held. A future
/// allocates only if it has to wait for a region, a turn or room; waiting for the completion costs no
/// allocation. The turn to post is a [`Gate`]: two more RMWs, on the queue pair's line.
///
/// Who waits for a region, a turn or room is woken under the lock of a list of waiters: a waker may not
/// poll or drop such a future from inside [`wake`](std::task::Waker::wake). Executors schedule there,
/// and do no more.
///
/// ```
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::op::{AsyncQueuePair, Endpoint, Poller};
/// use rdma_mr::work::QpCaps;
/// use rdma_mr::{LocalMr, LocalMrReadAccess};
///
/// let nic = Nic::new();
/// let pd = nic.alloc_pd();
/// let cq = nic.create_cq(256)?;
/// let poller = Poller::new(cq.clone());
/// let polling = poller.spawn("poller").unwrap();
/// let a = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// let b = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// QueuePair::connect_pair(&a, &b)?;
/// let a = AsyncQueuePair::new(Endpoint::attach(a, &poller)?);
/// let b = AsyncQueuePair::new(Endpoint::attach(b, &poller)?);
///
/// let (from, to) = (LocalMr::alloc(&pd, 64)?, LocalMr::alloc(&pd, 64)?);
/// futures_lite::future::block_on(async {
///     let (sent, received) = futures_lite::future::zip(a.send(&from, None), b.recv(&to)).await;
///     assert_eq!(received?.byte_len, 64);
///     sent
/// })?;
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct AsyncQueuePair<Q: QueuePair> {
    /// Who has it may use the endpoint.
    turn: Gate,
    endpoint: UnsafeCell<Endpoint<Q>>,
    sends: Side<Q::Cq>,
    recvs: Side<Q::Cq>,
}

/// What a future needs while it waits.
struct Side<C: crate::work::CompletionQueue> {
    ring: Arc<Ring>,
    poller: Poller<C>,
}

// SAFETY: ASYNC-1: the endpoint is used by who has the turn, one at a time; the rest is made to be
// shared.
unsafe impl<Q: QueuePair + Send> Sync for AsyncQueuePair<Q> where Q::Cq: Send + Sync {}

impl<Q: QueuePair> AsyncQueuePair<Q> {
    /// Takes over an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint<Q>) -> Self {
        AsyncQueuePair {
            turn: Gate::new(),
            sends: Side {
                ring: Arc::clone(endpoint.sends.ring()),
                poller: endpoint.send_poller().clone(),
            },
            recvs: Side {
                ring: Arc::clone(endpoint.recvs.ring()),
                poller: endpoint.recv_poller().clone(),
            },
            endpoint: UnsafeCell::new(endpoint),
        }
    }

    /// The endpoint; what is outstanding stays so.
    #[must_use]
    pub fn into_endpoint(self) -> Endpoint<Q> {
        self.endpoint.into_inner()
    }

    /// See [`Endpoint::drain`].
    pub fn drain(self) -> Drain<Q> {
        self.into_endpoint().drain()
    }

    /// How many operations are outstanding: sends and receives.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        (self.sends.ring.len(), self.recvs.ring.len())
    }

    /// SEND: the bytes go to the peer's next receive.
    ///
    /// # Errors
    /// As [`post`](Self::post), and what [`Begin`] says.
    pub async fn send<T>(&self, from: &T, imm: Option<u32>) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = from.begin_read_async().await?;
        self.request(hold, |hold| Ok(SendRequest::send(hold, imm)))
            .await
    }

    /// RDMA WRITE of the bytes to the front of the peer's.
    ///
    /// # Errors
    /// As [`post`](Self::post), and what [`Begin`] and [`SendRequest::write`] say: the peer's bytes are
    /// checked when it is this one's turn.
    pub async fn write<T>(&self, from: &T, mut to: impl RemoteMut) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = from.begin_read_async().await?;
        self.request(hold, |hold| SendRequest::write(hold, &mut to, None))
            .await
    }

    /// RDMA WRITE that uses up one of the peer's receives, too, and completes there with `imm`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_with_imm<T>(
        &self,
        from: &T,
        mut to: impl RemoteMut,
        imm: u32,
    ) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = from.begin_read_async().await?;
        self.request(hold, |hold| SendRequest::write(hold, &mut to, Some(imm)))
            .await
    }

    /// RDMA READ of the front of the peer's bytes into these.
    ///
    /// # Errors
    /// As [`write`](Self::write), with what [`SendRequest::read`] says.
    pub async fn read<T>(&self, into: &T, from: impl Remote) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = into.begin_write_async().await?;
        self.request(hold, |hold| SendRequest::read(hold, &from))
            .await
    }

    /// FETCH_ADD on the peer's integer; its value before comes into the 8 bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write), with what [`SendRequest::fetch_add`] says.
    pub async fn fetch_add<T>(&self, into: &T, remote: impl Remote, add: u64) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = into.begin_write_async().await?;
        self.request(hold, |hold| SendRequest::fetch_add(hold, &remote, add))
            .await
    }

    /// CMP_SWAP on the peer's integer; its value before comes into the 8 bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write), with what [`SendRequest::compare_swap`] says.
    pub async fn compare_swap<T>(
        &self,
        into: &T,
        remote: impl Remote,
        compare: u64,
        swap: u64,
    ) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = into.begin_write_async().await?;
        self.request(hold, |hold| {
            SendRequest::compare_swap(hold, &remote, compare, swap)
        })
        .await
    }

    /// Posts a receive: the peer's next message, or the immediate data of its WRITE, goes there.
    ///
    /// # Errors
    /// As [`post`](Self::post), and what [`Begin`] says.
    pub async fn recv<T>(&self, into: &T) -> Result<Done>
    where
        T: MrAccess + ?Sized,
    {
        let hold = into.begin_write_async().await?;
        self.recv_held(hold).await
    }

    /// Any operation of the send queue, over holds that were begun before; it is posted `SIGNALED`.
    ///
    /// # Errors
    /// [`Error::OperationFailed`] if it ended with an error; [`Error::QueuePairGone`],
    /// [`Error::CompletionsLost`]; what [`Endpoint::post`] says, but waits instead of
    /// [`Error::QueueFull`], unless nothing is outstanding whose end would make room (a queue pair on a
    /// shared receive queue takes no receives). If it was not posted, the holds are released.
    pub async fn post<H: Holding>(&self, holds: H, op: SendOp, flags: SendFlags) -> Result<Done> {
        let flags = flags | SendFlags::SIGNALED;
        self.request(holds, |holds| Ok(SendRequest { holds, op, flags }))
            .await
    }

    /// A receive over holds that were begun before.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn recv_held<H: Holding>(&self, into: H) -> Result<Done> {
        self.run(&self.recvs, into, |endpoint, holds, ticket| {
            endpoint.recv_watched(holds, Some(ticket))
        })
        .await
    }

    /// What `request` makes of the holds each time that it is tried.
    async fn request<H: Holding>(
        &self,
        holds: H,
        mut request: impl FnMut(H) -> Result<SendRequest<H>, Rejected<H>>,
    ) -> Result<Done> {
        self.run(&self.sends, holds, |endpoint, holds, ticket| {
            endpoint.post_watched(request(holds)?, Some(ticket))
        })
        .await
    }

    /// Waits for a turn and for room, posts, and waits for the completion.
    async fn run<H: Holding>(
        &self,
        side: &Side<Q::Cq>,
        mut holds: H,
        mut post: impl FnMut(&mut Endpoint<Q>, H, Pin<&Ticket>) -> Result<OpId, Rejected<H>>,
    ) -> Result<Done> {
        let ticket = pin!(Ticket::new());
        let ticket = ticket.as_ref();
        let mut room = None;
        let (id, waiting) = loop {
            let turn = self.turn.acquire_async(Holder::CpuWrite).await?;
            // Who has the turn alone adds to it.
            let was_empty = side.ring.is_empty();
            let posted = self.endpoint.get_mut().with(|endpoint| {
                // SAFETY: ASYNC-1: this is the turn, until it is dropped below.
                let posted = post(unsafe { &mut *endpoint }, holds, ticket);
                // The ticket's guard before anything else: giving the turn back runs others' wakers,
                // and one may panic.
                posted.map(|id| {
                    let slot = side.ring.ticket(id.sequence());
                    (id, Waiting::new(ticket, slot))
                })
            });
            drop(turn);
            let Rejected { value, error } = match posted {
                Ok(posted) => break posted,
                Err(rejected) => rejected,
            };
            // Full without anything of ours in it: there is no room to come.
            if was_empty || !matches!(error, Error::QueueFull { .. }) {
                return Err(error);
            }
            if side.poller.is_broken() {
                return Err(Error::CompletionsLost);
            }
            holds = value;
            // The first time round only to be told of room that comes from now on.
            match room.take() {
                None => room = Some(side.poller.listen()),
                Some(told) => told.await,
            }
        };
        let outcome = poll_fn(|cx| match waiting.poll(cx) {
            Poll::Pending if side.poller.is_broken() => Poll::Ready(Outcome::Lost),
            polled => polled,
        });
        match outcome.await {
            Outcome::Completed(completion) if completion.status.is_success() => {
                Ok(Done::new(id, completion))
            }
            Outcome::Completed(completion) => Err(Error::OperationFailed {
                status: completion.status,
                vendor_err: completion.vendor_err,
            }),
            Outcome::Gone => Err(Error::QueuePairGone),
            Outcome::Lost => Err(Error::CompletionsLost),
        }
    }
}

impl<Q: QueuePair> fmt::Debug for AsyncQueuePair<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sends, recvs) = self.outstanding();
        f.debug_struct("AsyncQueuePair")
            .field("sends", &sends)
            .field("recvs", &recvs)
            .finish()
    }
}
