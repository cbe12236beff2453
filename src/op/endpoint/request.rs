//! One work request of the send queue, with the peer's bytes checked (rules R13, R19, R20).

use crate::error::{Rejected, Result};
use crate::gate::Holder;
use crate::mr::{Remote, RemoteMut};
use crate::op::gather::{Holding, check_kind};
use crate::registration::Access;
use crate::work::{RemoteAddr, SendFlags, SendOp};

/// One work request of a list for [`Endpoint::post_list`](super::Endpoint::post_list); its fields are
/// what [`Endpoint::post`](super::Endpoint::post) takes, too.
///
/// The functions that are named for an operation check the peer's bytes, as [`Remote`] says, before
/// anything is posted. What they make is [`SIGNALED`](SendFlags::SIGNALED); the flags may be changed.
///
/// ```
/// # use std::time::Duration;
/// # use rdma_mr::backend::soft::{Nic, QueuePair};
/// # use rdma_mr::prelude::*;
/// # use rdma_mr::work::{QpCaps, SendFlags};
/// # use rdma_mr::{Error, MrOptions, RemoteMr, op::SendRequest};
/// # let nic = Nic::new();
/// # let (pd, cq) = (nic.alloc_pd(), nic.create_cq(128)?);
/// # let a = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// # let b = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// # QueuePair::connect_pair(&a, &b)?;
/// # let mut endpoint = Endpoint::new(a);
/// # let theirs = MrOptions::new().access(Access::REMOTE_READ).alloc(&pd, 16)?;
/// # let token = theirs.token_with_timeout(Duration::from_secs(60)).unwrap();
/// # let (first, second) = (LocalMr::alloc(&pd, 8)?, LocalMr::alloc(&pd, 8)?);
/// let remote = RemoteMr::new(token)?;
/// let mut one = SendRequest::read(first.begin_write()?, remote.get(..8)?)?;
/// one.flags = SendFlags::empty(); // the second one's completion tells of both
/// let two = SendRequest::read(second.begin_write()?, remote.get(8..)?)?;
/// endpoint.post_list([one, two])?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct SendRequest<H: Holding> {
    /// This side's bytes.
    pub holds: H,
    /// What to do.
    pub op: SendOp,
    /// How.
    pub flags: SendFlags,
}

impl<H: Holding> SendRequest<H> {
    /// SEND: the bytes go to the peer's next receive.
    #[inline]
    pub fn send(from: H, imm: Option<u32>) -> Self {
        SendRequest {
            holds: from,
            op: SendOp::Send { imm },
            flags: SendFlags::SIGNALED,
        }
    }

    /// RDMA WRITE of the bytes to the front of `to`; with `imm` it also uses up one of the peer's
    /// receives, and completes there.
    ///
    /// # Errors
    /// The holds, as they were, with [`Error::RangeOutside`](crate::Error::RangeOutside) if `to` is shorter than they are,
    /// [`Error::MissingRight`](crate::Error::MissingRight) without REMOTE_WRITE, [`Error::TokenExpired`](crate::Error::TokenExpired).
    #[inline]
    pub fn write(from: H, to: impl RemoteMut, imm: Option<u32>) -> Result<Self, Rejected<H>> {
        let op = |remote| SendOp::Write { remote, imm };
        Self::rdma(from, &to, Access::REMOTE_WRITE, op)
    }

    /// RDMA READ of the front of `from` into the bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write), with REMOTE_READ.
    #[inline]
    pub fn read(into: H, from: impl Remote) -> Result<Self, Rejected<H>> {
        let op = |remote| SendOp::Read { remote };
        Self::rdma(into, &from, Access::REMOTE_READ, op)
    }

    /// FETCH_ADD on the 8 bytes at the front of `remote`; their value before comes into this side's 8
    /// bytes.
    ///
    /// # Errors
    /// As [`write`](Self::write), with REMOTE_ATOMIC; [`Error::Misaligned`](crate::Error::Misaligned).
    #[inline]
    pub fn fetch_add(into: H, remote: impl Remote, add: u64) -> Result<Self, Rejected<H>> {
        let op = |remote| SendOp::FetchAdd { remote, add };
        Self::atomic(into, &remote, op)
    }

    /// CMP_SWAP on the 8 bytes at the front of `remote`; their value before comes into this side's 8
    /// bytes.
    ///
    /// # Errors
    /// As [`fetch_add`](Self::fetch_add).
    #[inline]
    pub fn compare_swap(
        into: H,
        remote: impl Remote,
        compare: u64,
        swap: u64,
    ) -> Result<Self, Rejected<H>> {
        let op = |remote| SendOp::CompareSwap {
            remote,
            compare,
            swap,
        };
        Self::atomic(into, &remote, op)
    }

    /// WRITE or READ of as many bytes as this side has.
    #[inline]
    fn rdma(
        mut holds: H,
        remote: &impl Remote,
        needed: Access,
        op: impl FnOnce(RemoteAddr) -> SendOp,
    ) -> Result<Self, Rejected<H>> {
        holds.refresh();
        let lengths = holds.sges().iter().map(|sge| sge.length as usize);
        let length = lengths.fold(0, usize::saturating_add);
        Self::checked(holds, remote.locate(length, needed).map(op))
    }

    #[inline]
    fn atomic(
        holds: H,
        remote: &impl Remote,
        op: impl FnOnce(RemoteAddr) -> SendOp,
    ) -> Result<Self, Rejected<H>> {
        let integer = remote.locate(8, Access::REMOTE_ATOMIC);
        let aligned = integer.and_then(|integer| integer.check_aligned().map(|()| integer));
        Self::checked(holds, aligned.map(op))
    }

    #[inline]
    fn checked(holds: H, op: Result<SendOp>) -> Result<Self, Rejected<H>> {
        match op {
            Ok(op) => Ok(SendRequest {
                holds,
                op,
                flags: SendFlags::SIGNALED,
            }),
            Err(error) => Err(Rejected::new(holds, error)),
        }
    }
}

/// Refuses holds of another kind than the operation needs (R13).
#[inline]
pub(super) fn check_send(holds: &impl Holding, op: &SendOp) -> Result<()> {
    let needs = match op.writes_locally() {
        true => Holder::NicWrite,
        false => Holder::NicRead,
    };
    check_kind(holds, needs)
}
