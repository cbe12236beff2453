//! The queue pair as the NIC sees it (a device calls it the queue pair's context): its numbers, its
//! state, its queues, and the end of it.

use std::sync::Arc;

use super::cq::CqInner;
use super::ring::{RecvHeader, SendHeader, WorkQueue};
use super::srq::SrqInner;
use super::state::AtomicState;
use super::{QpState, lock};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::work::QpCaps;
use crate::{Error, Result};

/// The `rnr_retry` that means: without end.
const RNR_FOREVER: u64 = 7;

/// What the NIC knows of a queue pair.
pub(super) struct QpInner {
    pub(super) num: u32,
    pub(super) pd: u64,
    pub(super) caps: QpCaps,
    pub(super) state: AtomicState,
    /// The number of the peer, once the state is RTR.
    peer: AtomicU64,
    rnr_retry: AtomicU64,
    /// 1 from the begin of the destruction on.
    destroyed: AtomicU64,
    pub(super) send: WorkQueue<SendHeader>,
    /// Its own; of no capacity if it has a shared one.
    pub(super) recv: WorkQueue<RecvHeader>,
    pub(super) srq: Option<Arc<SrqInner>>,
    pub(super) send_cq: Arc<CqInner>,
    pub(super) recv_cq: Arc<CqInner>,
    /// Held by the NIC while it works on this queue pair, as requester or responder.
    pub(super) working: Mutex<Rnr>,
    /// Held while it is being connected.
    control: Mutex<()>,
}

/// How often and when the NIC tries the work request at the head again that found no receive.
#[derive(Default)]
pub(super) struct Rnr {
    pub(super) tries: u64,
    /// On the NIC's clock.
    pub(super) due: u64,
}

impl QpInner {
    /// A new one, in RESET.
    pub(super) fn new(
        num: u32,
        pd: u64,
        caps: QpCaps,
        (send_cq, recv_cq): (Arc<CqInner>, Arc<CqInner>),
        (send, recv): (WorkQueue<SendHeader>, WorkQueue<RecvHeader>),
        srq: Option<Arc<SrqInner>>,
    ) -> Self {
        QpInner {
            num,
            pd,
            caps,
            state: AtomicState::new(QpState::Reset),
            peer: AtomicU64::new(u64::MAX),
            rnr_retry: AtomicU64::new(RNR_FOREVER),
            destroyed: AtomicU64::new(0),
            send,
            recv,
            srq,
            send_cq,
            recv_cq,
            working: Mutex::new(Rnr::default()),
            control: Mutex::new(()),
        }
    }

    pub(super) fn peer(&self) -> u32 {
        // Ordering: Relaxed: read after the state, whose Release and Acquire order it.
        self.peer.load(Ordering::Relaxed) as u32
    }

    pub(super) fn is_destroyed(&self) -> bool {
        // Ordering: Relaxed: whoever takes `working` after `end` did sees it, by the lock; seen
        // earlier it is a hint.
        self.destroyed.load(Ordering::Relaxed) != 0
    }

    /// Whether the NIC has something to do here; a hint for the one that then looks.
    pub(super) fn has_work(&self) -> bool {
        match self.state.get() {
            QpState::Rts => self.send.has_pending(),
            QpState::Err => self.send.has_pending() || self.recv.has_pending(),
            _ => false,
        }
    }

    /// Whether it takes in what the queue pair with that number sends.
    pub(super) fn hears(&self, requester: u32) -> bool {
        !self.is_destroyed()
            && matches!(self.state.get(), QpState::Rtr | QpState::Rts)
            && self.peer() == requester
    }

    /// The queue that messages to it take receives from, and the domain of the keys in these.
    pub(super) fn receives(&self) -> (&WorkQueue<RecvHeader>, u64) {
        self.srq
            .as_ref()
            .map_or((&self.recv, self.pd), |srq| (&srq.queue, srq.pd))
    }

    /// How many tries a missing receive is worth after the first; `None`: all of them.
    pub(super) fn rnr_retry(&self) -> Option<u64> {
        // Ordering: Relaxed: a setting; nothing hangs on when it is seen.
        let retry = self.rnr_retry.load(Ordering::Relaxed);
        (retry < RNR_FOREVER).then_some(retry)
    }

    pub(super) fn set_rnr_retry(&self, retries: u8) {
        // Ordering: Relaxed: see `rnr_retry`.
        self.rnr_retry.store(u64::from(retries), Ordering::Relaxed);
    }

    /// Ends it: from the return on, the NIC does not work on it any more and never will (QP-4).
    /// Waits for the packet under way, if it is one of its own.
    pub(super) fn end(&self) {
        // Ordering: Relaxed: the lock below hands it on. First, so that the NIC stops after the packet
        // under way.
        self.destroyed.store(1, Ordering::Relaxed);
        // Once the NIC has let go of it, it finds it destroyed. What was posted stays where it is.
        drop(lock(&self.working));
    }

    /// RESET to INIT.
    pub(super) fn init(&self) -> Result<()> {
        let _control = lock(&self.control);
        self.state
            .transition(QpState::Reset, QpState::Init)
            .map_err(|now| Self::refuse(now, "INIT comes after RESET"))
    }

    pub(super) fn refuse(state: QpState, needed: &'static str) -> Error {
        Error::QueuePairState {
            state: state.name(),
            needed,
        }
    }

    /// RESET or INIT to RTR, towards that peer; on success the state that it was in.
    pub(super) fn ready_to_receive(&self, peer: u32) -> Result<QpState> {
        let _control = lock(&self.control);
        let state = self.state.get();
        if !matches!(state, QpState::Reset | QpState::Init) {
            return Err(Self::refuse(state, "connecting needs RESET or INIT"));
        }
        // Ordering: Relaxed: the Release of the transition publishes it.
        self.peer.store(u64::from(peer), Ordering::Relaxed);
        self.state
            .transition(state, QpState::Rtr)
            .map_err(|now| Self::refuse(now, "connecting needs RESET or INIT"))?;
        Ok(state)
    }

    pub(super) fn ready_to_send(&self) -> Result<()> {
        self.state
            .transition(QpState::Rtr, QpState::Rts)
            .map_err(|now| Self::refuse(now, "it left RTR while it was being connected"))
    }
}
