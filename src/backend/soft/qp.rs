//! Queue pairs: creation, states, posting, destruction. What the NIC does with what was posted
//! stands in `engine`.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::context::QpInner;
use super::nic::Alive;
use super::ring::{RecvHeader, SendHeader, WorkQueue};
use super::{CompletionQueue, MAX_MESSAGE, QpState, SharedRecvQueue};
use crate::work::{self, QpCaps, RecvWr, SendFlags, SendWr, Sge};
use crate::{Error, Result};

/// The most that a queue pair may be asked to take.
const MOST: QpCaps = QpCaps {
    max_send_wr: 1 << 14,
    max_recv_wr: 1 << 14,
    max_send_sge: 16,
    max_recv_sge: 16,
    max_inline: 1024,
};

/// A reliable-connected queue pair of a [`Nic`](super::Nic) (`struct ibv_qp`).
///
/// New, it is in `RESET`; [`connect_pair`](Self::connect_pair) or [`connect`](Self::connect) bring
/// it to `RTS`. Posting and destruction are those of [`work::QueuePair`]; dropping it destroys it as
/// well. Completions that its completion queues hold already stay there.
pub struct QueuePair {
    inner: Arc<QpInner>,
    send_cq: CompletionQueue,
    recv_cq: CompletionQueue,
    alive: Arc<Alive>,
}

impl QueuePair {
    pub(super) fn create(
        alive: &Arc<Alive>,
        pd: u64,
        (send_cq, recv_cq): (&CompletionQueue, &CompletionQueue),
        srq: Option<&SharedRecvQueue>,
        mut caps: QpCaps,
    ) -> Result<Self> {
        let refuse = |source| Error::Provider {
            call: "soft create_qp",
            source,
        };
        let invalid = |reason| refuse(io::Error::new(io::ErrorKind::InvalidInput, reason));
        if let Some(srq) = srq {
            if !srq.belongs_to(alive) {
                return Err(invalid("the shared receive queue belongs to another NIC"));
            }
            (caps.max_recv_wr, caps.max_recv_sge) = (0, 0);
        }
        check_caps(caps).map_err(refuse)?;
        for cq in [send_cq, recv_cq] {
            let reason = if !cq.belongs_to(alive) {
                "a completion queue belongs to another NIC"
            } else if cq.inner().is_overrun() {
                "a completion queue was overrun"
            } else {
                continue;
            };
            return Err(invalid(reason));
        }
        alive.start().map_err(refuse)?;
        let srq = srq.map(SharedRecvQueue::inner).cloned();
        let send = WorkQueue::new(caps.max_send_wr, caps.max_send_sge, caps.max_inline);
        let recv = WorkQueue::new(caps.max_recv_wr, caps.max_recv_sge, 0);
        let queues = (send, recv);
        let cqs = (send_cq.inner().clone(), recv_cq.inner().clone());
        let inner = alive
            .core
            .add_qp(|num| QpInner::new(num, pd, caps, cqs, queues, srq.clone()));
        if let Some(srq) = srq {
            srq.join();
        }
        Ok(QueuePair {
            inner,
            send_cq: send_cq.clone(),
            recv_cq: recv_cq.clone(),
            alive: alive.clone(),
        })
    }

    /// The state that it is in (`ibv_query_qp`).
    #[must_use]
    pub fn state(&self) -> QpState {
        self.inner.state.get()
    }

    /// `RESET` to `INIT` (`ibv_modify_qp`): receives may be posted from then on.
    ///
    /// # Errors
    /// [`Error::QueuePairState`] from any other state.
    pub fn modify_to_init(&self) -> Result<()> {
        self.inner.init()
    }

    /// `RESET` or `INIT` to `RTS` in one call (`ibv_modify_qp`, three times), towards the queue pair
    /// of this NIC with that number; its own number connects it to itself. The peer has to be
    /// connected back before either sends: to the NIC, a peer that is not is gone.
    ///
    /// # Errors
    /// [`Error::QueuePairState`] from any other state.
    pub fn connect(&self, peer: u32) -> Result<()> {
        self.inner.ready_to_receive(peer)?;
        self.inner.ready_to_send()
    }

    /// Connects two queue pairs with each other; both hear before one may send.
    ///
    /// # Errors
    /// [`Error::QueuePairState`] if one is neither in `RESET` nor in `INIT`, [`Error::Provider`] if
    /// they belong to two NICs. Both are as they were then.
    pub fn connect_pair(a: &QueuePair, b: &QueuePair) -> Result<()> {
        if !Arc::ptr_eq(&a.alive, &b.alive) {
            return Err(Error::Provider {
                call: "soft modify_qp",
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the two queue pairs belong to two NICs",
                ),
            });
        }
        if Arc::ptr_eq(&a.inner, &b.inner) {
            return a.connect(a.inner.num);
        }
        let before = a.inner.ready_to_receive(b.inner.num)?;
        if let Err(error) = b.inner.ready_to_receive(a.inner.num) {
            // Fails only if somebody moved it to ERR meanwhile, and there it stays.
            let _ = a.inner.state.transition(QpState::Rtr, before);
            return Err(error);
        }
        a.inner.ready_to_send()?;
        b.inner.ready_to_send()
    }

    /// To `ERR`, from any state (`ibv_modify_qp`): the NIC flushes what is outstanding. It returns
    /// at once; a message that is being carried out goes on, so bytes may still change (rule R11).
    pub fn modify_to_error(&self) {
        self.inner.state.set_error();
        self.alive.core.bell.ring();
    }

    /// How often a SEND or a WRITE with immediate data is tried again that finds no receive at the
    /// peer (`rnr_retry` of `ibv_modify_qp`): 0 to 6 times, about 0.6 ms apart (in stepped mode each
    /// try is a step); 7, which is what a new queue pair has, and more: until there is one.
    pub fn set_rnr_retry(&self, retries: u8) {
        self.inner.set_rnr_retry(retries);
    }

    fn check_send(&self, wr: &SendWr<'_>) -> Result<u64> {
        let state = self.state();
        if !matches!(state, QpState::Rts | QpState::Err) {
            return Err(QpInner::refuse(state, "sending needs RTS"));
        }
        let length = check_elements(wr.sge, self.inner.caps.max_send_sge)?;
        let invalid = |reason| Err(Error::InvalidWorkRequest { reason });
        if let (true, Some(remote)) = (wr.op.is_atomic(), wr.op.remote()) {
            if length != 8 {
                return invalid("an atomic operation needs 8 bytes of local memory");
            }
            remote.check_aligned()?;
        }
        if wr.flags.contains(SendFlags::INLINE) {
            if wr.op.writes_locally() {
                return invalid("READ and the atomics can't be posted inline");
            }
            let max = self.inner.caps.max_inline;
            if length > u64::from(max) {
                return Err(Error::InlineTooLong {
                    given: length as usize,
                    max,
                });
            }
        }
        Ok(length)
    }
}

pub(super) fn check_elements(elements: &[Sge], max: u32) -> Result<u64> {
    if elements.len() > max as usize {
        return Err(Error::TooManySge {
            given: elements.len(),
            max,
        });
    }
    let length = elements.iter().map(|sge| u64::from(sge.length)).sum();
    if length > MAX_MESSAGE {
        return Err(Error::InvalidWorkRequest {
            reason: "a message is at most 2 GiB long",
        });
    }
    Ok(length)
}

pub(super) fn check_caps(caps: QpCaps) -> io::Result<()> {
    for (what, asked, most) in [
        ("max_send_wr", caps.max_send_wr, MOST.max_send_wr),
        ("max_recv_wr", caps.max_recv_wr, MOST.max_recv_wr),
        ("max_send_sge", caps.max_send_sge, MOST.max_send_sge),
        ("max_recv_sge", caps.max_recv_sge, MOST.max_recv_sge),
        ("max_inline", caps.max_inline, MOST.max_inline),
    ] {
        if asked > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{what} of {asked}: the NIC takes {most}"),
            ));
        }
    }
    Ok(())
}

// SAFETY: QP-1: the engine pushes the completion after the last copy, and an inline request is
// copied during the post. QP-2: every check comes before the ring's `post`, whose own failure
// leaves it as it was. QP-3: a request leaves the ring in one place, `WorkQueue::pop`, with at most
// one completion (FAULT-1 as in `cq`). QP-5: only the head of a ring is ever carried out or
// flushed, and it is popped before the next one is looked at; a completion that is held back holds back
// those behind it (or lets them go ahead, FAULT-1). QP-4: `QpInner::end`, which `drop`
// calls.
unsafe impl work::QueuePair for QueuePair {
    type Cq = CompletionQueue;

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        let length = self.check_send(wr)?;
        let header = SendHeader {
            wr_id: wr.wr_id,
            op: wr.op,
            flags: wr.flags,
            due: self.alive.core.due(),
        };
        let send = &self.inner.send;
        if wr.flags.contains(SendFlags::INLINE) {
            // SAFETY: POST-1: the elements name allocated bytes that nobody writes during the call.
            // `check_send` compared `length` with `max_inline`.
            unsafe { send.post_inline(header, wr.sge, length as usize) }?;
        } else {
            send.post(header, wr.sge)?;
        }
        self.alive.core.bell.ring();
        Ok(())
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        if self.inner.srq.is_some() {
            let reason = "the queue pair has a shared receive queue: post to the shared queue";
            return Err(Error::InvalidWorkRequest { reason });
        }
        let state = self.state();
        if state == QpState::Reset {
            return Err(QpInner::refuse(state, "receiving needs INIT or later"));
        }
        check_elements(wr.sge, self.inner.caps.max_recv_sge)?;
        let header = RecvHeader { wr_id: wr.wr_id };
        self.inner.recv.post(header, wr.sge)?;
        self.alive.core.bell.ring();
        Ok(())
    }

    fn send_cq(&self) -> &CompletionQueue {
        &self.send_cq
    }

    fn recv_cq(&self) -> &CompletionQueue {
        &self.recv_cq
    }

    fn caps(&self) -> QpCaps {
        self.inner.caps
    }

    fn qp_num(&self) -> u32 {
        self.inner.num
    }

    /// Never fails.
    fn modify_to_error(&self) -> Result<()> {
        QueuePair::modify_to_error(self);
        Ok(())
    }

    /// Waits for the packet that the NIC is copying for this queue pair, if there is one. Fails only
    /// by [`Fault::Destroy`](super::Fault::Destroy).
    fn destroy(self) -> Result<(), (Self, io::Error)> {
        if self.alive.core.faults.destroy() {
            let refused = "injected fault: the destruction is refused, the queue pair stays";
            return Err((self, io::Error::new(io::ErrorKind::ResourceBusy, refused)));
        }
        drop(self);
        Ok(())
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.alive.core.remove_qp(self.inner.num);
        self.inner.end();
        if let Some(srq) = &self.inner.srq {
            srq.leave();
        }
        // A peer that waits for a receive here has waited for nothing.
        self.alive.core.bell.ring();
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("num", &self.inner.num)
            .field("state", &self.state())
            .field("peer", &self.inner.peer())
            .finish_non_exhaustive()
    }
}
