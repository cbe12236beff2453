//! Receives, of queue pairs and shared ones.

use std::sync::{Arc, MutexGuard};

use rdma_mr::gate::Holder;
use rdma_mr::op::{Endpoint, Holding, OpId, SharedRecv};
use rdma_mr::work::{CompletionQueue, QueuePair, SharedRecvQueue};
use rdma_mr::{LocalMr, Rejected};

use super::holds::{Consumer, all, plan};
use super::hub::Table;
use super::lane::{Group, Lane};
use super::ops::{LONGEST, begin, posted, refused, words};
use super::random::Random;
use super::record::{Bytes, Record};
use super::{Victim, World};

impl<F: Victim> Lane<F> {
    /// Posts a receive to one of the ends that have a queue of their own.
    pub fn recv(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        let side = random.below(2);
        let end = &mut self.ends[side];
        // Not so many that nobody else finds a region.
        let room = end.endpoint.qp().caps().max_recv_wr as usize;
        let many = random.pick(&[6, 6, room + 2]);
        if room == 0 || end.endpoint.outstanding().1 > random.below(many) {
            return None;
        }
        let bytes = plan(&world.pool, LONGEST, random)?;
        let pair = Some(Arc::clone(&self.pair));
        let mut record = Record::new("op RECV", end.owner, pair);
        record.inbox = Some(Arc::clone(&self.inboxes[side]));
        let mut receiving = Receiving {
            record: Some(record),
            table: || end.hub.table(),
            post: &mut end.endpoint,
        };
        all(&bytes, Holder::NicWrite, random, &mut receiving)
    }
}

/// Where receives are posted.
pub trait Recv {
    fn recv<H: Holding>(&mut self, into: H) -> Result<OpId, Rejected<H>>;
}

impl<Q: QueuePair> Recv for Endpoint<Q> {
    fn recv<H: Holding>(&mut self, into: H) -> Result<OpId, Rejected<H>> {
        Endpoint::recv(self, into)
    }
}

impl<S, C> Recv for SharedRecv<S, C>
where
    S: SharedRecvQueue,
    C: CompletionQueue,
{
    fn recv<H: Holding>(&mut self, into: H) -> Result<OpId, Rejected<H>> {
        SharedRecv::recv(self, into)
    }
}

/// Posts one receive.
struct Receiving<'a, P, T> {
    record: Option<Record>,
    table: T,
    post: &'a mut P,
}

impl<'t, P: Recv, T: Fn() -> MutexGuard<'t, Table>> Consumer for Receiving<'_, P, T> {
    fn take<H: Holding>(&mut self, holds: H, bytes: &[Bytes], mrs: &[&LocalMr]) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.words = words(bytes);
        record.to = Some(begin(bytes, mrs, None));
        let mut table = (self.table)();
        match self.post.recv(holds) {
            Ok(id) => posted(&mut table, id, record),
            Err(rejected) => {
                drop(table);
                refused(&rejected.error);
                record.cancel();
            }
        }
    }
}

impl<F: Victim> Group<F> {
    /// Posts a receive to the shared queue.
    pub fn recv(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        if self.recvs.outstanding() > random.below(20) {
            return None;
        }
        let bytes = plan(&world.pool, LONGEST, random)?;
        let mut record = Record::new("op shared RECV", self.owner, Some(Arc::clone(&self.pair)));
        record.inbox = Some(Arc::clone(&self.inbox));
        let mut receiving = Receiving {
            record: Some(record),
            table: || world.hub.table(),
            post: &mut self.recvs,
        };
        all(&bytes, Holder::NicWrite, random, &mut receiving)
    }
}
