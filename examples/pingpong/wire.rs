//! What the backends differ in: how queue pairs are made, and how they are used without a layer.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_mr::registration::Registrar;
use rdma_mr::work::{
    CompletionQueue as _, QpCaps, QueuePair, RecvWr, SendFlags, SendOp, SendWr, Sge, WorkCompletion,
};

use crate::Failure;

/// A device.
pub trait Wire: Bare {
    type Pd: Registrar;

    fn name(&self) -> String;
    fn pd(&self) -> &Arc<Self::Pd>;

    /// Two connected queue pairs, each with a completion queue of its own.
    fn pair(&self, caps: QpCaps) -> Result<[Self::Qp; 2], Failure>;
}

/// How its queues are used without a layer.
pub trait Bare {
    type Qp: QueuePair;

    /// Posts a signalled SEND.
    ///
    /// # Safety
    /// POST-1, and POST-3 for a queue pair that an endpoint has.
    unsafe fn post_send(qp: &Self::Qp, wr_id: u64, sge: Sge, inline: bool) -> Result<(), Failure>;

    /// Posts a receive.
    ///
    /// # Safety
    /// POST-2, and POST-3 for a queue pair that an endpoint has.
    unsafe fn post_recv(qp: &Self::Qp, wr_id: u64, sge: Sge) -> Result<(), Failure>;

    /// Takes up to two completions, as many as there can be, and tells their `wr_id`s.
    ///
    /// # Errors
    /// The first one that is no success, after all of them were told.
    fn poll(qp: &Self::Qp, each: impl FnMut(u64)) -> Result<(), Failure>;
}

/// Through the crate's traits of the queues: with a device, what the backend costs without a hold.
pub struct Queues<Q>(PhantomData<Q>);

impl<Q: QueuePair> Bare for Queues<Q> {
    type Qp = Q;

    #[inline]
    unsafe fn post_send(qp: &Q, wr_id: u64, sge: Sge, inline: bool) -> Result<(), Failure> {
        let mut flags = SendFlags::SIGNALED;
        flags.set(SendFlags::INLINE, inline);
        let wr = SendWr {
            wr_id,
            sge: &[sge],
            op: SendOp::Send { imm: None },
            flags,
        };
        // SAFETY: POST-1, POST-3: as required of the caller.
        Ok(unsafe { qp.post_send(&wr) }?)
    }

    #[inline]
    unsafe fn post_recv(qp: &Q, wr_id: u64, sge: Sge) -> Result<(), Failure> {
        let sge = &[sge];
        // SAFETY: POST-2, POST-3: as required of the caller.
        Ok(unsafe { qp.post_recv(&RecvWr { wr_id, sge }) }?)
    }

    #[inline]
    fn poll(qp: &Q, mut each: impl FnMut(u64)) -> Result<(), Failure> {
        let mut batch = [WorkCompletion::EMPTY; 2];
        let taken = qp.recv_cq().poll(&mut batch)?;
        let mut bad = None;
        for wc in &batch[..taken] {
            each(wc.wr_id);
            if !wc.status.is_success() {
                bad = bad.or(Some(wc.status));
            }
        }
        bad.map_or(Ok(()), |status| Err(failed(status)))
    }
}

/// What a completion with that status is, as a failure.
pub fn failed(status: impl std::fmt::Display) -> Failure {
    format!("an operation failed: {status}").into()
}

/// Ends a wait for a completion that does not come.
pub struct Patience {
    yields: bool,
    turns: u32,
    since: Option<Instant>,
}

impl Patience {
    const LIMIT: Duration = Duration::from_secs(30);

    pub fn new(yields: bool) -> Self {
        Patience {
            yields,
            turns: 0,
            since: None,
        }
    }

    /// Called once for each look that found nothing. Reads the clock but now and then.
    #[inline]
    pub fn turn(&mut self) -> Result<(), Failure> {
        if self.yields {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
        self.turns = self.turns.wrapping_add(1);
        if self.turns % (1 << 16) == 0 {
            let since = *self.since.get_or_insert_with(Instant::now);
            if since.elapsed() > Self::LIMIT {
                return Err("no completion came for 30 s".into());
            }
        }
        Ok(())
    }
}
