//! A real device: the first one, in the virtual machine soft-RoCE.

use std::sync::Arc;

use rdma_mr::backend::verbs::{
    CompletionQueue, Context, ProtectionDomain, QueuePair, SharedRecvQueue,
};
use rdma_mr::work::QpCaps;

use super::Fabric;

pub struct Device {
    pub context: Context,
    pd: Arc<ProtectionDomain>,
}

impl Fabric for Device {
    type Pd = ProtectionDomain;
    type Cq = Arc<CompletionQueue>;
    type Qp = QueuePair;
    type Srq = SharedRecvQueue;

    /// rxe does not.
    const FLUSHES_LATE_RECEIVES: bool = false;

    fn open() -> Self {
        let context = Context::open(None).unwrap();
        let pd = context.alloc_pd().unwrap();
        Device { context, pd }
    }

    fn pd(&self) -> &Arc<ProtectionDomain> {
        &self.pd
    }

    fn cq(&self, capacity: u32) -> Arc<CompletionQueue> {
        self.context.create_cq_with_channel(capacity).unwrap()
    }

    fn qp(
        &self,
        sends: &Arc<CompletionQueue>,
        recvs: &Arc<CompletionQueue>,
        caps: QpCaps,
    ) -> QueuePair {
        self.pd.create_qp(sends, recvs, caps).unwrap()
    }

    fn srq(&self, capacity: u32, max_sge: u32) -> SharedRecvQueue {
        self.pd.create_srq(capacity, max_sge).unwrap()
    }

    fn qp_on(&self, cq: &Arc<CompletionQueue>, srq: &SharedRecvQueue, caps: QpCaps) -> QueuePair {
        self.pd.create_qp_with_srq(cq, cq, srq, caps).unwrap()
    }

    fn connect(&self, a: &QueuePair, b: &QueuePair) {
        QueuePair::connect_loopback(a, b, None).unwrap();
    }
}
