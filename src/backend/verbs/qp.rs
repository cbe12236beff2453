//! Queue pairs of reliable connections: making, posting, destroying. How they are connected is in
//! `connect.rs` and `cm`.

use std::ffi::c_int;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdma_sys::{
    ibv_create_qp, ibv_destroy_qp, ibv_post_recv, ibv_post_send, ibv_qp, ibv_qp_cap,
    ibv_qp_init_attr, ibv_qp_state, ibv_qp_type,
};
use serde::{Deserialize, Serialize};

use super::{
    CompletionQueue, ProtectionDomain, SharedRecvQueue, code, invalid, last_error, note_leak, pd,
    post, srq, wr,
};
use crate::error::{Error, Result};
use crate::work::{self, BadWr, QpCaps, QpState, RecvWr, SendWr};

/// READs and atomics that a queue pair has under way, or serves, at a time.
pub(super) const MAX_RD_ATOMIC: u32 = 16;

/// How often a packet is sent again: 7 never gives up on rxe.
pub(super) const RETRIES: u8 = 6;

/// How often a message is sent again when the peer has no receive posted: for ever.
pub(super) const RNR_RETRIES: u8 = 7;

/// How long until a packet is sent again: 4.096 µs × 2^16, about 0.27 s.
pub(super) const ACK_TIMEOUT: u8 = 16;

/// What a peer has to know to connect a queue pair by hand; plain data, to be sent over some other
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QpAddress {
    /// The queue pair's number.
    pub qp_num: u32,
    /// The number of the first packet that it sends.
    pub psn: u32,
    /// Its port's local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Its port's GID.
    pub gid: [u8; 16],
    /// The largest packet that its port takes, as `enum ibv_mtu`.
    pub mtu: u32,
}

/// A queue pair of a reliable connection (`struct ibv_qp`, `IBV_QPT_RC`).
///
/// Connect it with [`cm`](super::cm), or by hand: [`connect`](Self::connect) and
/// [`connect_loopback`](Self::connect_loopback). Dropping it destroys it.
pub struct QueuePair {
    raw: NonNull<ibv_qp>,
    destroyed: bool,
    qp_num: u32,
    caps: QpCaps,
    psn: u32,
    /// The last state (`enum ibv_qp_state`) that it was brought into from here.
    state: AtomicU32,
    pd: Arc<pd::Inner>,
    send_cq: Arc<CompletionQueue>,
    recv_cq: Arc<CompletionQueue>,
    /// Where its receives come from, if not from its own queue.
    srq: Option<Arc<srq::Inner>>,
}

// SAFETY: the verbs may be called on a queue pair from any thread at the same time.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("qp_num", &self.qp_num)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

impl ProtectionDomain {
    /// Creates a queue pair that takes at least `caps` (`ibv_create_qp`); its state is RESET. Only
    /// work requests with `SIGNALED` complete on success.
    ///
    /// # Errors
    /// [`Error::TooManySge`] if `caps` asks for more elements than the device takes
    /// ([`Limits::max_sge`](super::Limits::max_sge)); [`Error::Provider`], for queues of another
    /// device as well.
    pub fn create_qp(
        &self,
        send_cq: &Arc<CompletionQueue>,
        recv_cq: &Arc<CompletionQueue>,
        caps: QpCaps,
    ) -> Result<QueuePair> {
        self.new_qp(send_cq, recv_cq, None, caps)
    }

    /// The same with receives from `srq`, which it keeps alive; they complete at `recv_cq`. It has
    /// no receive queue of its own: what `caps` says of one is not looked at, and 0 in
    /// [`caps`](work::QueuePair::caps).
    ///
    /// # Errors
    /// As [`create_qp`](Self::create_qp).
    pub fn create_qp_with_srq(
        &self,
        send_cq: &Arc<CompletionQueue>,
        recv_cq: &Arc<CompletionQueue>,
        srq: &SharedRecvQueue,
        caps: QpCaps,
    ) -> Result<QueuePair> {
        let caps = QpCaps {
            max_recv_wr: 0,
            max_recv_sge: 0,
            ..caps
        };
        self.new_qp(send_cq, recv_cq, Some(srq.inner()), caps)
    }

    fn new_qp(
        &self,
        send_cq: &Arc<CompletionQueue>,
        recv_cq: &Arc<CompletionQueue>,
        srq: Option<&Arc<srq::Inner>>,
        caps: QpCaps,
    ) -> Result<QueuePair> {
        let given = caps.max_send_sge.max(caps.max_recv_sge);
        let max = self.context().limits().max_sge;
        if given > max {
            let given = given as usize;
            return Err(Error::TooManySge { given, max });
        }
        let device = self.context().as_raw();
        let mut queues = [send_cq.context(), recv_cq.context()]
            .into_iter()
            .chain(srq.map(|srq| srq.context()));
        if queues.any(|queue| queue.as_raw() != device) {
            let why = "a queue and the protection domain are of different contexts";
            return Err(invalid("ibv_create_qp", why));
        }
        let mut attr = ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: send_cq.as_raw(),
            recv_cq: recv_cq.as_raw(),
            srq: srq.map_or(ptr::null_mut(), |srq| srq.as_raw()),
            cap: ibv_qp_cap {
                max_send_wr: caps.max_send_wr,
                max_recv_wr: caps.max_recv_wr,
                max_send_sge: caps.max_send_sge,
                max_recv_sge: caps.max_recv_sge,
                max_inline_data: caps.max_inline,
            },
            qp_type: ibv_qp_type::IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: the protection domain and the queues are alive and of one device, `attr` is alive
        // for the call.
        let raw = NonNull::new(unsafe { ibv_create_qp(self.as_raw(), &mut attr) })
            .ok_or_else(|| last_error("ibv_create_qp"))?;
        Ok(QueuePair {
            raw,
            destroyed: false,
            // SAFETY: just created; the field does not change.
            qp_num: unsafe { (*raw.as_ptr()).qp_num },
            caps: QpCaps {
                max_send_wr: attr.cap.max_send_wr,
                max_send_sge: attr.cap.max_send_sge,
                max_inline: attr.cap.max_inline_data,
                ..match srq {
                    Some(_) => caps,
                    None => QpCaps {
                        max_recv_wr: attr.cap.max_recv_wr,
                        max_recv_sge: attr.cap.max_recv_sge,
                        ..caps
                    },
                }
            },
            // A packet of an earlier connection should not look like one of this.
            psn: (RandomState::new().build_hasher().finish() & 0xff_ffff) as u32,
            state: AtomicU32::new(ibv_qp_state::IBV_QPS_RESET),
            pd: Arc::clone(self.inner()),
            send_cq: Arc::clone(send_cq),
            recv_cq: Arc::clone(recv_cq),
            srq: srq.cloned(),
        })
    }
}

// SAFETY: QP-1, QP-3 and QP-5 are the verbs' for reliable connections. QP-2: an error names the
// first work request that was not posted, but for the case that `refused_send` sees to. QP-4 is ibv_destroy_qp's
// promise when it returns 0.
unsafe impl work::QueuePair for QueuePair {
    type Cq = Arc<CompletionQueue>;

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        // SAFETY: POST-1, POST-3, as required of the caller.
        Ok(unsafe { self.post_sends::<1>(slice::from_ref(wr)) }?)
    }

    unsafe fn post_send_list(&self, wrs: &[SendWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-1, POST-3, as required of the caller.
        unsafe { self.post_sends::<{ post::LIST }>(wrs) }
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        // SAFETY: POST-2, POST-3, as required of the caller.
        Ok(unsafe { self.post_recvs::<1>(slice::from_ref(wr)) }?)
    }

    unsafe fn post_recv_list(&self, wrs: &[RecvWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-2, POST-3, as required of the caller.
        unsafe { self.post_recvs::<{ post::LIST }>(wrs) }
    }

    fn send_cq(&self) -> &Arc<CompletionQueue> {
        &self.send_cq
    }

    fn recv_cq(&self) -> &Arc<CompletionQueue> {
        &self.recv_cq
    }

    fn caps(&self) -> QpCaps {
        self.caps
    }

    fn qp_num(&self) -> u32 {
        self.qp_num
    }

    fn modify_to_error(&self) -> Result<()> {
        QueuePair::modify_to_error(self)
    }

    fn destroy(mut self) -> Result<(), (Self, io::Error)> {
        match self.destroy_once() {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}

impl QueuePair {
    /// `ibv_destroy_qp`, once.
    fn destroy_once(&mut self) -> io::Result<()> {
        if self.destroyed {
            return Ok(());
        }
        // SAFETY: we created it, and it has not been destroyed yet.
        match unsafe { ibv_destroy_qp(self.raw.as_ptr()) } {
            0 => {
                self.destroyed = true;
                Ok(())
            }
            ret => Err(code(ret)),
        }
    }

    /// Posts to the send queue, `N` in a call.
    ///
    /// # Safety
    /// - POST-1, POST-3.
    unsafe fn post_sends<const N: usize>(&self, wrs: &[SendWr<'_>]) -> Result<(), BadWr> {
        post::in_lists::<N, _, _>(
            wrs,
            |wr| {
                let needed = "posting a send needs RTS: connect it first";
                self.need(ibv_qp_state::IBV_QPS_RTS, needed)?;
                wr::send(wr, &self.caps)
            },
            // SAFETY: the queue pair is alive; the list and what it points to are alive for the
            // call, which copies them. The bytes are the caller's duty (POST-1).
            |list, bad| unsafe { ibv_post_send(self.raw.as_ptr(), list, bad) },
            |ret, named| self.refused_send(ret, named),
        )
    }

    /// Posts to the receive queue, `N` in a call.
    ///
    /// # Safety
    /// - POST-2, POST-3.
    unsafe fn post_recvs<const N: usize>(&self, wrs: &[RecvWr<'_>]) -> Result<(), BadWr> {
        post::in_lists::<N, _, _>(
            wrs,
            |wr| {
                if self.srq.is_some() {
                    return Err(Error::InvalidWorkRequest {
                        reason: "the queue pair has a shared receive queue: post to the shared queue",
                    });
                }
                let needed = "posting a receive needs INIT: call init first";
                self.need(ibv_qp_state::IBV_QPS_INIT, needed)?;
                wr::recv(wr, self.caps.max_recv_sge)
            },
            // SAFETY: as in `post_sends`; the bytes are the caller's duty (POST-2).
            |list, bad| unsafe { ibv_post_recv(self.raw.as_ptr(), list, bad) },
            |ret, _| Err(post::refusal("ibv_post_recv", ret, self.caps.max_recv_wr)),
        )
    }

    /// Refuses to post before `state`, in the words of the caller rather than the provider's.
    fn need(&self, state: ibv_qp_state::Type, needed: &'static str) -> Result<()> {
        // Ordering: Relaxed, the state only goes up, and the kernel has the state proper: the call
        // that raised it returned before the caller could know that it may post.
        let now = self.state.load(Ordering::Relaxed);
        if now >= state {
            return Ok(());
        }
        Err(Error::QueuePairState {
            state: QpState::from_raw(now).name(),
            needed,
        })
    }

    /// What it means that a post of sends returned `ret`; `named`: the provider said which work
    /// request was the bad one. rxe does not when it has put all into the queue and the kernel then
    /// refuses the doorbell (with `EINVAL` before RTS): they would be carried out with the next one.
    /// So they count as posted (QP-2), and the queue pair goes into ERR, in which their completions
    /// come as flushes. Receives have no doorbell.
    #[cold]
    fn refused_send(&self, ret: c_int, named: bool) -> Result<()> {
        // A provider that has no such call says EOPNOTSUPP.
        if named || ret == libc::EOPNOTSUPP {
            return Err(post::refusal("ibv_post_send", ret, self.caps.max_send_wr));
        }
        // If this fails, the completions come later, or the queue pair is destroyed.
        let _ = self.modify_to_error();
        Ok(())
    }

    /// The last state that it was brought into from here.
    pub(super) fn known_state(&self) -> &AtomicU32 {
        &self.state
    }

    /// The number of the first packet that it sends.
    pub(super) fn psn(&self) -> u32 {
        self.psn
    }

    /// The queue pair itself, for calls that are not offered here. It must not be destroyed, nor
    /// brought back into an earlier state while work requests are outstanding.
    #[must_use]
    pub fn as_raw(&self) -> *mut ibv_qp {
        self.raw.as_ptr()
    }

    /// Where its sends complete.
    #[must_use]
    pub fn send_cq(&self) -> &Arc<CompletionQueue> {
        &self.send_cq
    }

    /// Where its receives complete.
    #[must_use]
    pub fn recv_cq(&self) -> &Arc<CompletionQueue> {
        &self.recv_cq
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        if self.destroy_once().is_err() {
            note_leak();
            // It still uses all that it stands on.
            mem::forget(Arc::clone(&self.pd));
            mem::forget(Arc::clone(&self.send_cq));
            mem::forget(Arc::clone(&self.recv_cq));
            mem::forget(self.srq.clone());
        }
    }
}
