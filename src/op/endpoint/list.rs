//! Several work requests in one post (`next` of `struct ibv_send_wr`).

use std::fmt;
use std::mem::ManuallyDrop;

use super::Endpoint;
use super::request::{SendRequest, check_send};
use crate::error::{Error, Result};
use crate::gate::Holder;
use crate::op::gather::{Holding, check_kind};
use crate::op::number::OpId;
use crate::op::queue::poster::Poster;
use crate::work::{BadWr, QueuePair, RecvWr, SendFlags, SendWr};

/// A list of which not all was posted. The holds of what was not are released (rule R10).
#[derive(Debug)]
pub struct PartlyPosted {
    /// The first operation, if any was posted; those after it follow [in order](OpId::after).
    pub first: OpId,
    /// How many were posted; the next one is the bad one.
    pub posted: usize,
    /// What was wrong with it.
    pub error: Error,
}

impl fmt::Display for PartlyPosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "work request {} of the list: {}",
            self.posted, self.error
        )
    }
}

impl std::error::Error for PartlyPosted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<PartlyPosted> for Error {
    fn from(partly: PartlyPosted) -> Self {
        partly.error
    }
}

impl From<PartlyPosted> for std::io::Error {
    fn from(partly: PartlyPosted) -> Self {
        partly.error.into()
    }
}

impl<Q: QueuePair> Endpoint<Q> {
    /// Posts a list to the send queue in one call, and gives the first one's name; the others follow
    /// [in order](OpId::after). Does not wait, does not allocate.
    ///
    /// # Errors
    /// [`PartlyPosted`]: those before the bad one are in flight. If the whole list does not fit the
    /// queue, or one has holds of the wrong kind, nothing was posted.
    pub fn post_list<H: Holding, const N: usize>(
        &mut self,
        list: [SendRequest<H>; N],
    ) -> Result<OpId, PartlyPosted> {
        let plan = list.map(|request| (request.holds, request.flags, request.op));
        let (qp, sends) = self.qp_and_sends();
        post(sends, plan, check_send, |ids, plan| {
            let wrs: [SendWr<'_>; N] = std::array::from_fn(|at| SendWr {
                wr_id: ids[at].wr_id(),
                sge: plan[at].0.sges(),
                op: plan[at].2,
                flags: plan[at].1,
            });
            // SAFETY: POST-1, POST-3 as for one: the ring keeps the holds.
            unsafe { qp.post_send_list(&wrs) }
        })
    }

    /// Posts a list of receives in one call; as [`post_list`](Self::post_list).
    ///
    /// # Errors
    /// As [`post_list`](Self::post_list).
    pub fn recv_list<H: Holding, const N: usize>(
        &mut self,
        list: [H; N],
    ) -> Result<OpId, PartlyPosted> {
        let plan = list.map(|holds| (holds, SendFlags::SIGNALED, ()));
        let check = |holds: &H, (): &()| check_kind(holds, Holder::NicWrite);
        let (qp, recvs) = self.qp_and_recvs();
        post(recvs, plan, check, |ids, plan| {
            let wrs: [RecvWr<'_>; N] = std::array::from_fn(|at| RecvWr {
                wr_id: ids[at].wr_id(),
                sge: plan[at].0.sges(),
            });
            // SAFETY: POST-2, POST-3 as for one: the ring keeps the holds.
            unsafe { qp.post_recv_list(&wrs) }
        })
    }
}

/// Holds, and how and what is posted.
type Plan<H, T> = (H, SendFlags, T);

/// Takes all of `plan` into the ring if each passes the check, posts, and keeps what was posted.
fn post<H: Holding, T, const N: usize>(
    poster: &mut Poster,
    mut plan: [Plan<H, T>; N],
    check: impl Fn(&H, &T) -> Result<()>,
    post: impl FnOnce(&[OpId; N], &[Plan<H, T>; N]) -> Result<(), BadWr>,
) -> Result<OpId, PartlyPosted> {
    let mut chain = poster.chain();
    let first = chain.next_id();
    let ids = std::array::from_fn(|at| first.after(at as u64));
    let partly = |posted, error| PartlyPosted {
        first,
        posted,
        error,
    };
    let admitted = plan.iter_mut().try_for_each(|(holds, flags, what)| {
        check(holds, what)?;
        chain.admit(holds, *flags).map(drop)
    });
    if let Err(error) = admitted {
        chain.abandon();
        return Err(partly(0, error));
    }
    // From here on the chain has the holds, and `plan` only their scatter/gather elements.
    let plan = ManuallyDrop::new(plan);
    match post(&ids, &plan) {
        Ok(()) => {
            chain.commit();
            Ok(first)
        }
        Err(BadWr { at, error }) => {
            chain.commit_first(at);
            Err(partly(at, error))
        }
    }
}
