//! The other side: a peer that uses its lease for as long as its key is good and tries once more after
//! that, and the one that the endpoint is connected to.

use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};
use rdma_mr::{Access, LocalMr, MrToken};

use crate::fabric::{Fabric, finish};

/// Of all queues.
pub const CAPS: QpCaps = QpCaps {
    max_send_wr: 4,
    max_recv_wr: 4,
    max_send_sge: 1,
    max_recv_sge: 1,
    max_inline: 0,
};
pub const CQ: u32 = 16;

pub struct Peers<F: Fabric> {
    // Dropped in this order.
    borrower: Endpoint<F::Qp>,
    _lender: F::Qp,
    mate: Endpoint<F::Qp>,
    bytes: LocalMr,
    fabric: F,
}

impl<F: Fabric> Peers<F> {
    /// With protection domains of their own on that fabric; `lender`, in the domain of the regions, is
    /// what the borrower comes in by.
    pub fn new(fabric: F, lender: F::Qp, end: &F::Qp) -> Self {
        let qp = || {
            let cq = fabric.cq(CQ);
            fabric.qp(&cq, &cq, CAPS)
        };
        let (borrower, mate) = (qp(), qp());
        fabric.connect(&borrower, &lender);
        fabric.connect(&mate, end);
        Peers {
            borrower: Endpoint::new(borrower),
            _lender: lender,
            mate: Endpoint::new(mate),
            bytes: fabric.region(&[2; 64]),
            fabric,
        }
    }

    /// How the use of that lease ends.
    pub fn use_lease(&mut self, token: MrToken) -> WcStatus {
        let at = RemoteAddr {
            addr: token.addr(),
            rkey: token.rkey(),
        };
        let bytes = self.bytes.get(..token.length() as usize).unwrap();
        if token.access() == Access::REMOTE_READ {
            let into = bytes.begin_write().unwrap();
            self.borrower.read(into, at).unwrap();
        } else {
            let from = bytes.begin_read().unwrap();
            self.borrower.write(from, at, None).unwrap();
        }
        self.fabric.act();
        finish(&mut self.borrower, 1)[0].status
    }

    /// The mate sends something, which comes.
    pub fn send(&mut self, end: &mut Endpoint<F::Qp>) {
        let from = self.bytes.get(..8).unwrap().begin_read().unwrap();
        self.mate.send(from, None).unwrap();
        self.fabric.act();
        assert_eq!(finish(end, 1)[0].status, WcStatus::Success);
        assert_eq!(finish(&mut self.mate, 1)[0].status, WcStatus::Success);
    }
}
