//! The NIC in software. Its queues have no lower layer than the traits.

use std::sync::Arc;

use rdma_mr::backend::soft::{Nic, ProtectionDomain, QueuePair};
use rdma_mr::work::{QpCaps, Sge};

use crate::Failure;
use crate::wire::{Bare, Queues, Wire};

pub struct Soft {
    nic: Nic,
    pd: Arc<ProtectionDomain>,
}

impl Soft {
    pub fn open() -> Self {
        let nic = Nic::new();
        let pd = nic.alloc_pd();
        Soft { nic, pd }
    }
}

impl Bare for Soft {
    type Qp = QueuePair;

    #[inline]
    unsafe fn post_send(qp: &QueuePair, wr_id: u64, sge: Sge, inline: bool) -> Result<(), Failure> {
        // SAFETY: POST-1, POST-3: as required of the caller.
        unsafe { Queues::post_send(qp, wr_id, sge, inline) }
    }

    #[inline]
    unsafe fn post_recv(qp: &QueuePair, wr_id: u64, sge: Sge) -> Result<(), Failure> {
        // SAFETY: POST-2, POST-3: as required of the caller.
        unsafe { Queues::post_recv(qp, wr_id, sge) }
    }

    #[inline]
    fn poll(qp: &QueuePair, each: impl FnMut(u64)) -> Result<(), Failure> {
        Queues::poll(qp, each)
    }
}

impl Wire for Soft {
    type Pd = ProtectionDomain;

    fn name(&self) -> String {
        "the NIC in software".into()
    }

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn pair(&self, caps: QpCaps) -> Result<[QueuePair; 2], Failure> {
        let end = || {
            let cq = self.nic.create_cq(16)?;
            self.pd.create_qp(&cq, &cq, caps)
        };
        let pair = [end()?, end()?];
        QueuePair::connect_pair(&pair[0], &pair[1])?;
        Ok(pair)
    }
}
