//! What is outstanding on the queue pair: it is connected to itself, so that all is carried out in the order of the posts.

use std::collections::VecDeque;

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{Endpoint, Hold, Holding, Holds};
use rdma_mr::work::{QpCaps, SendFlags, SendOp};

/// A hold, and its name in the reference.
pub struct Named {
    pub name: usize,
    pub hold: Holder,
}

/// Of one region, or of two.
pub enum Holder {
    One(Hold),
    Two(Holds<2>),
}

/// What an operation does when its turn comes.
#[derive(Clone, Debug)]
pub enum What {
    /// The hold's bytes to the peer's memory.
    Write {
        at: usize,
    },
    /// And the other way.
    Read {
        at: usize,
        length: usize,
    },
    Send,
    /// A peer writes or reads by a lease, from or to the front of its memory.
    Peer {
        lease: usize,
        start: usize,
        length: usize,
        writes: bool,
    },
}

/// A work request that was posted.
#[derive(Clone, Debug)]
pub struct Posted {
    pub what: What,
    /// What holds the region for it; `None` if that is a lease.
    pub name: Option<usize>,
    pub length: usize,
}

/// The queues, in the order of the posts.
#[derive(Default)]
pub struct Wire {
    pub sends: VecDeque<Posted>,
    pub recvs: VecDeque<Posted>,
    /// How many at the front of each are over, and not polled.
    pub over: [usize; 2],
}

pub const CAPS: QpCaps = QpCaps {
    max_send_wr: 8,
    max_recv_wr: 8,
    max_send_sge: 2,
    max_recv_sge: 2,
    max_inline: 0,
};

impl Wire {
    /// The next one that the NIC carries out, if it can.
    pub fn next(&self) -> Option<&Posted> {
        let next = self.sends.get(self.over[0])?;
        let waits = matches!(next.what, What::Send) && self.recvs.len() == self.over[1];
        (!waits).then_some(next)
    }

    /// Whether a message of that length meets a receive that is long enough, or none; a receive likewise.
    pub fn fits(&self, length: usize, recv: bool) -> bool {
        let sends = self.sends.iter().skip(self.over[0]);
        let mut sends = sends.filter(|posted| matches!(posted.what, What::Send));
        let mut recvs = self.recvs.iter().skip(self.over[1]);
        let (sent, received) = (sends.clone().count(), recvs.clone().count());
        match recv {
            true => sends.nth(received).is_none_or(|send| send.length <= length),
            false => recvs.nth(sent).is_none_or(|recv| length <= recv.length),
        }
    }

    /// Whether a peer's operation by that lease is to be carried out still.
    pub fn uses(&self, of: usize) -> bool {
        let mut left = self.sends.iter().skip(self.over[0]);
        left.any(|posted| matches!(posted.what, What::Peer { lease, .. } if lease == of))
    }

    /// Takes what is over, and gives the names of the holds.
    pub fn take(&mut self) -> Vec<Option<usize>> {
        let [sends, recvs] = std::mem::take(&mut self.over);
        let over = self.sends.drain(..sends).chain(self.recvs.drain(..recvs));
        over.map(|posted| posted.name).collect()
    }
}

/// Posts with this hold, or gives it back.
pub fn post(
    endpoint: &mut Endpoint<QueuePair>,
    holder: Holder,
    op: Option<SendOp>,
) -> Result<(), Holder> {
    fn with<H: Holding>(
        endpoint: &mut Endpoint<QueuePair>,
        hold: H,
        op: Option<SendOp>,
    ) -> Result<(), H> {
        let posted = match op {
            Some(op) => endpoint.post(hold, op, SendFlags::SIGNALED),
            None => endpoint.recv(hold),
        };
        posted.map(drop).map_err(|rejected| rejected.value)
    }
    match holder {
        Holder::One(hold) => with(endpoint, hold, op).map_err(Holder::One),
        Holder::Two(holds) => with(endpoint, holds, op).map_err(Holder::Two),
    }
}

/// The bytes at that address, of a region, whoever holds it: the NIC acts in steps only, so that it is not at work.
pub fn bytes_at(addr: usize, length: usize) -> Vec<u8> {
    let start = std::ptr::with_exposed_provenance::<u8>(addr);
    // SAFETY: the region keeps the memory allocated; nobody writes at this moment.
    (0..length)
        .map(|at| unsafe { start.add(at).read_volatile() })
        .collect()
}
