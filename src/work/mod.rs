//! The vocabulary of the queues as plain data: work requests, completions, status codes; and the
//! two traits through which [`op`](crate::op) posts and polls. No region, no gate, no sys type.

mod completion;
mod queues;
mod state;

pub use completion::{WcOpcode, WcStatus, WorkCompletion};
pub use queues::{BadWr, CompletionEvents, CompletionQueue, QueuePair, SharedRecvQueue};
pub use state::QpState;

use crate::error::{Error, Result};

/// A scatter/gather element: bytes of this side, named by a local key (`struct ibv_sge`, same layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
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

impl RemoteAddr {
    /// Refuses what no 64-bit atomic can be done on.
    #[inline]
    pub(crate) fn check_aligned(self) -> Result<()> {
        let (addr, align) = (self.addr, 8);
        match addr % align as u64 {
            0 => Ok(()),
            _ => Err(Error::Misaligned { addr, align }),
        }
    }
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
