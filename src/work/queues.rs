//! The queues of a backend, as [`op`](crate::op) sees them: where work requests go, and where their
//! completions come from.

use std::fmt;
use std::io;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{QpCaps, RecvWr, SendWr, WorkCompletion};
use crate::error::{Error, Result};

/// The first work request of a list that was not posted (`bad_wr` of `ibv_post_send`), and why.
/// Those before it were posted, those from it on were not (rule R10).
#[derive(Debug)]
pub struct BadWr {
    /// Its place in the list, from 0.
    pub at: usize,
    /// What was wrong with it.
    pub error: Error,
}

impl fmt::Display for BadWr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work request {} of the list: {}", self.at, self.error)
    }
}

impl std::error::Error for BadWr {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<BadWr> for Error {
    fn from(bad: BadWr) -> Self {
        bad.error
    }
}

/// Posts one by one, for who has no call for a list.
fn post_each<W>(list: &[W], mut post: impl FnMut(&W) -> Result<()>) -> Result<(), BadWr> {
    let mut posts = list.iter().map(&mut post).enumerate();
    match posts.find_map(|(at, posted)| posted.err().map(|error| BadWr { at, error })) {
        None => Ok(()),
        Some(bad) => Err(bad),
    }
}

/// A queue pair of some backend, as [`op`](crate::op) sees it.
///
/// # Safety
/// - **QP-1**: after a successful post the NIC touches the bytes of the scatter/gather list until,
///   at the latest, the work request's completion has been polled; an `INLINE` one does not touch
///   them once the post has returned.
/// - **QP-2**: after `Err` from a post the NIC does not touch them at all; after
///   [`BadWr`] it does so only for those before [`at`](BadWr::at), which are posted.
/// - **QP-3**: every work request with [`SendFlags::SIGNALED`](super::SendFlags::SIGNALED), every receive, and every one that
///   fails gets at most one completion, which carries its `wr_id`.
/// - **QP-5**: completions of one send queue come in the order of the posts, and so do those of one
///   receive queue: a completion says that what was posted before it to the same queue is over.
/// - **QP-4**: after [`destroy`](Self::destroy) returned `Ok`, the NIC carries out none of its work
///   requests any more.
///
/// Its completions are to arrive at [`send_cq`](Self::send_cq) and [`recv_cq`](Self::recv_cq), under its
/// [number](Self::qp_num). No bytes depend on that: a completion that comes elsewhere, or under another
/// number, is unknown, and what it was of stays held until the queue pair is destroyed.
pub unsafe trait QueuePair: Sized {
    /// The completion queues that it feeds: a handle, clones are the same queue.
    type Cq: CompletionQueue + Clone;

    /// Posts to the send queue (`ibv_post_send`). Does not wait.
    ///
    /// # Errors
    /// A full queue, a request that the queue can't take, a queue pair that is not ready to send;
    /// nothing was posted then.
    ///
    /// # Safety
    /// - **POST-1**: the bytes that `wr.sge` names stay allocated until the work request is over
    ///   (QP-1); during that time nobody writes them, nor reads them if the operation
    ///   [writes locally](super::SendOp::writes_locally).
    /// - **POST-3**: if the queue pair is handed to an [`Endpoint`](crate::op::Endpoint) later, the
    ///   work request is over by then, and its completion polled. If it belongs to one now, and the
    ///   caller is not that endpoint, `wr.wr_id` is less than 2⁴⁸: an endpoint's own are not.
    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()>;

    /// Posts a list to the send queue, in order (`ibv_post_send` with `next`). Does not wait.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send), with the first one that was not posted.
    ///
    /// # Safety
    /// - As for [`post_send`](Self::post_send), for each of them.
    unsafe fn post_send_list(&self, wrs: &[SendWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-1, POST-3, as required of the caller.
        post_each(wrs, |wr| unsafe { self.post_send(wr) })
    }

    /// Posts to the receive queue (`ibv_post_recv`). Does not wait.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send).
    ///
    /// # Safety
    /// - **POST-2**: the bytes that `wr.sge` names stay allocated, and nobody reads or writes them,
    ///   until the work request is over (QP-1); **POST-3** as for `post_send`.
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()>;

    /// Posts a list to the receive queue, in order (`ibv_post_recv` with `next`). Does not wait.
    ///
    /// # Errors
    /// As [`post_recv`](Self::post_recv), with the first one that was not posted.
    ///
    /// # Safety
    /// - As for [`post_recv`](Self::post_recv), for each of them.
    unsafe fn post_recv_list(&self, wrs: &[RecvWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-2, POST-3, as required of the caller.
        post_each(wrs, |wr| unsafe { self.post_recv(wr) })
    }

    /// Where the completions of the send queue arrive.
    fn send_cq(&self) -> &Self::Cq;

    /// Where the completions of the receive queue arrive; may be the same.
    fn recv_cq(&self) -> &Self::Cq;

    /// What the queue pair takes.
    fn caps(&self) -> QpCaps;

    /// The queue pair's number.
    fn qp_num(&self) -> u32;

    /// To ERR (`ibv_modify_qp`), from any state: what is outstanding is flushed, though not by every
    /// provider all of it (rule R16). Ends nothing by itself: bytes may still change after it
    /// returned (rule R11).
    ///
    /// # Errors
    /// The provider's.
    fn modify_to_error(&self) -> Result<()>;

    /// Destroys it (`ibv_destroy_qp`); what was outstanding gets no completion.
    ///
    /// # Errors
    /// The provider refused; the queue pair comes back as it was.
    fn destroy(self) -> Result<(), (Self, io::Error)>;
}

/// A completion queue of some backend, as [`op`](crate::op) sees it.
///
/// # Safety
/// - **CQ-1**: a completion is reported once, and only after the NIC has stopped touching the bytes
///   of its work request; for a successful one that writes locally, after the bytes have arrived.
/// - **CQ-2**: `poll` makes the NIC's writes visible to the thread that polled (the provider's read
///   barrier).
pub unsafe trait CompletionQueue {
    /// Takes up to `out.len()` completions off the queue (`ibv_poll_cq`), fills `out` from the
    /// front and returns how many. Does not wait.
    ///
    /// # Errors
    /// The provider's; a queue that was overrun is one (rule R15). Nothing is known to be over then
    /// (rule R11).
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize>;

    /// Whether the two are handles of one queue.
    fn is_same_as(&self, other: &Self) -> bool;
}

/// A shared receive queue of some backend, as [`op`](crate::op) sees it. Its receives complete at the
/// receive queues of the queue pairs that take from it, in any order.
///
/// # Safety
/// - **SRQ-1**: after a successful post the NIC touches the bytes of the scatter/gather list until, at
///   the latest, the work request's completion has been polled; after `Err` not at all.
/// - **SRQ-2**: every work request gets at most one completion, which carries its `wr_id`.
/// - **SRQ-3**: after [`destroy`](Self::destroy) returned `Ok`, the NIC carries out none of its work
///   requests any more.
pub unsafe trait SharedRecvQueue: Sized {
    /// Posts a receive (`ibv_post_srq_recv`). Does not wait.
    ///
    /// # Errors
    /// A full queue, a request that the queue can't take; nothing was posted then.
    ///
    /// # Safety
    /// - **POST-2** as for [`QueuePair::post_recv`]; **POST-3** as there, with an
    ///   `op::SharedRecv` in place of the endpoint.
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()>;

    /// How many work requests it takes.
    fn capacity(&self) -> u32;

    /// Scatter/gather elements in a work request.
    fn max_sge(&self) -> u32;

    /// Destroys it (`ibv_destroy_srq`); what was outstanding gets no completion.
    ///
    /// # Errors
    /// The provider refused, since a queue pair takes from it still, for example; it comes back as it
    /// was.
    fn destroy(self) -> Result<(), (Self, io::Error)>;
}

/// A completion queue that can be slept on: arm, poll once more, sleep.
pub trait CompletionEvents: CompletionQueue {
    /// Asks for one event when the next completion comes (`ibv_req_notify_cq`); with
    /// `solicited_only` for one that the peer marked
    /// ([`SOLICITED`](super::SendFlags::SOLICITED)), or that failed (of sends that failed soft-RoCE
    /// tells only those who arm for all). Completions that are there already need not make an event:
    /// poll again after this call, before sleeping.
    ///
    /// # Errors
    /// The provider's.
    fn req_notify(&self, solicited_only: bool) -> Result<()>;

    /// Takes the events that are there, and returns how many (`ibv_get_cq_event`,
    /// `ibv_ack_cq_events`). Does not wait.
    ///
    /// # Errors
    /// The provider's.
    fn take_events(&self) -> Result<u32>;

    /// Sleeps until there is an event, or `timeout` has passed (`None`: for ever); takes it, and says
    /// whether there was one. May return early. Blocks.
    ///
    /// # Errors
    /// The provider's; a queue that was created without a channel may be one.
    fn wait_event(&self, timeout: Option<Duration>) -> Result<bool>;

    /// A descriptor for `epoll` and its kin, readable when there is an event; `None` if the queue was
    /// created without a channel.
    #[cfg(unix)]
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

// SAFETY: CQ-1, CQ-2: it is the same queue.
unsafe impl<C: CompletionQueue + ?Sized> CompletionQueue for Arc<C> {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        C::poll(self, out)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other) || C::is_same_as(self, other)
    }
}

impl<C: CompletionEvents + ?Sized> CompletionEvents for Arc<C> {
    fn req_notify(&self, solicited_only: bool) -> Result<()> {
        C::req_notify(self, solicited_only)
    }

    fn take_events(&self) -> Result<u32> {
        C::take_events(self)
    }

    fn wait_event(&self, timeout: Option<Duration>) -> Result<bool> {
        C::wait_event(self, timeout)
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        C::fd(self)
    }
}
