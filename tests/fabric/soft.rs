//! The NIC in software.

use std::sync::Arc;

use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair, SharedRecvQueue};
use rdma_mr::work::{CompletionEvents, QpCaps, WcStatus};

use super::{Fabric, LONG};

pub struct Soft {
    pub nic: Nic,
    pd: Arc<ProtectionDomain>,
}

impl Soft {
    pub fn on(nic: Nic) -> Self {
        let pd = nic.alloc_pd();
        Soft { nic, pd }
    }

    /// On a NIC that acts only when the test says so.
    pub fn stepped() -> Self {
        Self::on(Nic::builder().stepped().build())
    }
}

impl Fabric for Soft {
    type Pd = ProtectionDomain;
    type Cq = CompletionQueue;
    type Qp = QueuePair;
    type Srq = SharedRecvQueue;
    type Nic = Nic;

    const FLUSHES_LATE_RECEIVES: bool = true;
    const RECEIVE_WITHOUT_MEMORY: WcStatus = WcStatus::LocProtErr;

    fn open() -> Self {
        Self::on(Nic::new())
    }

    fn beside(&self) -> Self {
        Self::on(self.nic.clone())
    }

    fn into_parts(self) -> (Nic, Arc<ProtectionDomain>) {
        (self.nic, self.pd)
    }

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn cq(&self, capacity: u32) -> CompletionQueue {
        // Miri has no descriptors that don't block.
        if cfg!(miri) {
            return self.nic.create_cq(capacity).unwrap();
        }
        self.nic.create_cq_with_channel(capacity).unwrap()
    }

    fn qp(&self, sends: &CompletionQueue, recvs: &CompletionQueue, caps: QpCaps) -> QueuePair {
        self.pd.create_qp(sends, recvs, caps).unwrap()
    }

    fn srq(&self, capacity: u32, max_sge: u32) -> SharedRecvQueue {
        self.pd.create_srq(capacity, max_sge).unwrap()
    }

    fn qp_on(&self, cq: &CompletionQueue, srq: &SharedRecvQueue, caps: QpCaps) -> QueuePair {
        self.pd.create_qp_with_srq(cq, cq, srq, caps).unwrap()
    }

    fn connect(&self, a: &QueuePair, b: &QueuePair) {
        QueuePair::connect_pair(a, b).unwrap();
    }

    fn act(&self) {
        self.nic.run_until_idle();
    }

    fn max_sge(&self) -> u32 {
        16
    }

    /// It makes an event, although nobody has asked for one.
    fn await_overrun(&self, cq: &CompletionQueue) {
        assert!(cq.wait_event(Some(LONG)).unwrap(), "no overrun");
    }
}
