//! The vocabulary of the queues as plain data: work requests, completions, status codes; and the
//! two traits through which [`op`](crate::op) posts and polls. No region, no gate, no sys type.

use std::io;
use std::sync::Arc;

use crate::error::Result;

mod completion;
mod state;

pub use completion::{WcOpcode, WcStatus, WorkCompletion};
pub use state::QpState;

/// A scatter/gather element: bytes of this side, named by a local key (`struct ibv_sge`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Sge {
    /// Address of the first byte.
    pub addr: u64,
    /// How many bytes.
    pub length: u32,
    /// The local key of a registration that covers them.
    pub lkey: u32,
}

/// Bytes of the peer, named by a remote key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct RemoteAddr {
    /// Address of the first byte in the peer's address space.
    pub addr: u64,
    /// The remote key that the peer granted.
    pub rkey: u32,
}

/// What a send-queue work request does (`enum ibv_wr_opcode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendOp {
    /// SEND: the bytes go to the peer's next posted receive.
    Send {
        /// Immediate data, in host byte order, delivered with the peer's completion.
        imm: Option<u32>,
    },
    /// RDMA WRITE: the bytes go to the peer's memory; with `imm` it also uses up one of the peer's
    /// receives and completes there (`IBV_WR_RDMA_WRITE_WITH_IMM`).
    Write {
        /// Where to.
        remote: RemoteAddr,
        /// Immediate data, in host byte order.
        imm: Option<u32>,
    },
    /// RDMA READ: the peer's memory comes here.
    Read {
        /// Where from.
        remote: RemoteAddr,
    },
    /// 64-bit fetch-and-add on the peer's memory; the value before comes here (8 bytes).
    FetchAdd {
        /// The peer's integer, 8-byte aligned.
        remote: RemoteAddr,
        /// What to add.
        add: u64,
    },
    /// 64-bit compare-and-swap on the peer's memory; the value before comes here (8 bytes).
    CompareSwap {
        /// The peer's integer, 8-byte aligned.
        remote: RemoteAddr,
        /// Swapped only if the integer equals this.
        compare: u64,
        /// What to store then.
        swap: u64,
    },
}

impl SendOp {
    /// Whether the NIC writes this side's bytes (READ and the atomics); otherwise it reads them
    /// (rule R13).
    #[must_use]
    pub const fn writes_locally(&self) -> bool {
        matches!(
            self,
            SendOp::Read { .. } | SendOp::FetchAdd { .. } | SendOp::CompareSwap { .. }
        )
    }

    /// Whether it is one of the 64-bit atomics.
    #[must_use]
    pub const fn is_atomic(&self) -> bool {
        matches!(self, SendOp::FetchAdd { .. } | SendOp::CompareSwap { .. })
    }

    /// The peer's bytes that it names, if any.
    #[must_use]
    pub const fn remote(&self) -> Option<RemoteAddr> {
        match self {
            SendOp::Send { .. } => None,
            SendOp::Write { remote, .. }
            | SendOp::Read { remote }
            | SendOp::FetchAdd { remote, .. }
            | SendOp::CompareSwap { remote, .. } => Some(*remote),
        }
    }
}

bitflags::bitflags! {
    /// How a send-queue work request is carried out (`enum ibv_send_flags`, same numbers).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct SendFlags: u32 {
        /// Wait for earlier READs and atomics of the same queue.
        const FENCE = 1;
        /// Make a completion on success. An error completes in any case.
        const SIGNALED = 1 << 1;
        /// Raise an event at the peer.
        const SOLICITED = 1 << 2;
        /// Copy the bytes during the post: the region is free again when the post returns, and the
        /// local key is not looked at.
        const INLINE = 1 << 3;
    }
}

/// A send-queue work request (`struct ibv_send_wr`).
#[derive(Clone, Copy, Debug)]
pub struct SendWr<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// This side's bytes, in order.
    pub sge: &'a [Sge],
    /// What to do.
    pub op: SendOp,
    /// How.
    pub flags: SendFlags,
}

/// A receive-queue work request (`struct ibv_recv_wr`).
#[derive(Clone, Copy, Debug)]
pub struct RecvWr<'a> {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// Where the message goes, in order.
    pub sge: &'a [Sge],
}

/// What a queue pair takes (`struct ibv_qp_cap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpCaps {
    /// Outstanding work requests on the send queue.
    pub max_send_wr: u32,
    /// Outstanding work requests on the receive queue.
    pub max_recv_wr: u32,
    /// Scatter/gather elements in a send-queue work request.
    pub max_send_sge: u32,
    /// Scatter/gather elements in a receive-queue work request.
    pub max_recv_sge: u32,
    /// Bytes in an inline work request.
    pub max_inline: u32,
}

impl Default for QpCaps {
    fn default() -> Self {
        QpCaps {
            max_send_wr: 64,
            max_recv_wr: 64,
            max_send_sge: 4,
            max_recv_sge: 4,
            max_inline: 64,
        }
    }
}

/// A queue pair of some backend, as [`op`](crate::op) sees it.
///
/// # Safety
/// - **QP-1**: after a successful post the NIC touches the bytes of the scatter/gather list until,
///   at the latest, the work request's completion has been polled; an `INLINE` one does not touch
///   them once the post has returned.
/// - **QP-2**: after `Err` from a post the NIC does not touch them at all.
/// - **QP-3**: every work request with [`SendFlags::SIGNALED`], every receive, and every one that
///   fails gets at most one completion, which carries its `wr_id`.
/// - **QP-6**: its completions arrive at [`send_cq`](Self::send_cq) and
///   [`recv_cq`](Self::recv_cq), and while it lives no other queue pair that feeds one of these has
///   its number.
/// - **QP-5**: completions of one send queue come in the order of the posts, and so do those of one
///   receive queue: a completion says that what was posted before it to the same queue is over.
/// - **QP-4**: after [`destroy`](Self::destroy) returned `Ok`, the NIC carries out none of its work
///   requests any more.
pub unsafe trait QueuePair: Sized {
    /// The completion queues that it feeds.
    type Cq: CompletionQueue;

    /// Posts to the send queue (`ibv_post_send`). Does not wait.
    ///
    /// # Errors
    /// A full queue, a request that the queue can't take, a queue pair that is not ready to send;
    /// nothing was posted then.
    ///
    /// # Safety
    /// - **POST-1**: the bytes that `wr.sge` names stay allocated until the work request is over
    ///   (QP-1); during that time nobody writes them, nor reads them if the operation
    ///   [writes locally](SendOp::writes_locally).
    /// - **POST-3**: if the queue pair is handed to an [`Endpoint`](crate::op::Endpoint) later, the
    ///   work request is over by then, and its completion polled. If it belongs to one now, and the
    ///   caller is not that endpoint, `wr.wr_id` is less than 2⁴⁸: an endpoint's own are not.
    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()>;

    /// Posts to the receive queue (`ibv_post_recv`). Does not wait.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send).
    ///
    /// # Safety
    /// - **POST-2**: the bytes that `wr.sge` names stay allocated, and nobody reads or writes them,
    ///   until the work request is over (QP-1); **POST-3** as for `post_send`.
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()>;

    /// Where the completions of the send queue arrive.
    fn send_cq(&self) -> &Self::Cq;

    /// Where the completions of the receive queue arrive; may be the same.
    fn recv_cq(&self) -> &Self::Cq;

    /// What the queue pair takes.
    fn caps(&self) -> QpCaps;

    /// The queue pair's number.
    fn qp_num(&self) -> u32;

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

// SAFETY: CQ-1, CQ-2: it is the same queue.
unsafe impl<C: CompletionQueue + ?Sized> CompletionQueue for Arc<C> {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        C::poll(self, out)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other) || C::is_same_as(self, other)
    }
}
