//! A real device: the first one, in the virtual machine soft-RoCE.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_mr::backend::verbs::{
    AsyncEvent, CompletionQueue, Context, ProtectionDomain, QueuePair, SharedRecvQueue, leaked,
};
use rdma_mr::work::{QpCaps, WcStatus};

use super::{Fabric, LONG};

pub struct Device {
    pub context: Context,
    pd: Arc<ProtectionDomain>,
    /// Its ends have different addresses, and the way between them is the network's.
    gids: Option<(u32, u32)>,
}

impl Device {
    /// The first one, between two addresses of it, by the indices of their GIDs.
    pub fn between(near: u32, far: u32) -> Self {
        Device {
            gids: Some((near, far)),
            ..Self::open()
        }
    }

    /// Of several the one with that name.
    pub fn named(name: &str) -> Self {
        Self::on(Context::open(Some(name)).unwrap())
    }

    fn on(context: Context) -> Self {
        let pd = context.alloc_pd().unwrap();
        let gids = None;
        Device { context, pd, gids }
    }
}

impl Fabric for Device {
    type Pd = ProtectionDomain;
    type Cq = Arc<CompletionQueue>;
    type Qp = QueuePair;
    type Srq = SharedRecvQueue;
    type Nic = Context;

    /// rxe does not.
    const FLUSHES_LATE_RECEIVES: bool = false;
    /// By the book LOC_PROT_ERR.
    const RECEIVE_WITHOUT_MEMORY: WcStatus = WcStatus::LocQpOpErr;

    fn open() -> Self {
        Self::on(Context::open(None).unwrap())
    }

    fn beside(&self) -> Self {
        Device {
            gids: self.gids,
            ..Self::on(self.context.clone())
        }
    }

    fn into_parts(self) -> (Context, Arc<ProtectionDomain>) {
        (self.context, self.pd)
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
        let Some((near, far)) = self.gids else {
            return QueuePair::connect_loopback(a, b, None).unwrap();
        };
        a.connect(&b.address(Some(far)).unwrap(), Some(near))
            .unwrap();
        b.connect(&a.address(Some(near)).unwrap(), Some(far))
            .unwrap();
    }

    fn leaked() -> u64 {
        leaked()
    }

    fn max_sge(&self) -> u32 {
        self.context.limits().max_sge
    }

    /// The kernel tells the context, which is asked here, and passes it on to the queue.
    fn await_overrun(&self, _cq: &Arc<CompletionQueue>) {
        let start = Instant::now();
        let told = || self.context.async_events().unwrap();
        while !told().contains(&AsyncEvent::CqOverrun) {
            assert!(start.elapsed() < LONG, "no overrun");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
