//! What the suites of operations run on: one trait, for the NIC in software and for a real device, so
//! that both answer to the same tests.
#![allow(dead_code, unused_imports, reason = "each suite uses a part of it")]

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_mr::op::{AsyncQueuePair, Done, Endpoint, Poller};
use rdma_mr::registration::Registrar;
use rdma_mr::work::{
    CompletionEvents, CompletionQueue, QpCaps, QueuePair, RemoteAddr, SharedRecvQueue, WcStatus,
    WorkCompletion,
};
use rdma_mr::{Access, Leaks, LocalMr, LocalMrWriteAccess, MrAccess, MrOptions, leaks};

#[cfg(feature = "soft")]
mod soft;
#[cfg(feature = "verbs")]
mod verbs;

#[cfg(feature = "soft")]
pub use soft::Soft;
#[cfg(feature = "verbs")]
pub use verbs::Device;

/// The functions of a suite as tests with these attributes, on that fabric.
#[allow(unused_macros, reason = "each suite uses a part of it")]
macro_rules! tests {
    ($suite:ident $attributes:tt $fabric:expr => $($test:ident)*) => {
        $($crate::fabric::tests! { @ $suite $attributes $fabric, $test })*
    };
    (@ $suite:ident [$($attributes:tt)*] $fabric:expr, $test:ident) => {
        #[test]
        $($attributes)*
        fn $test() {
            $suite::$test(&$fabric);
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use tests;

/// Longer than anything takes, unless it hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// A device with one protection domain.
pub trait Fabric: Sized + Send + Sync + 'static {
    type Pd: Registrar;
    type Cq: CompletionQueue + CompletionEvents + Clone + Send + Sync + 'static;
    type Qp: QueuePair<Cq = Self::Cq> + Send + Sync + Unpin + 'static;
    type Srq: SharedRecvQueue + Send;
    /// A handle of the device.
    type Nic: Send;

    /// Whether a receive that is posted in ERR gets a completion (rule R16 is about those where it
    /// does not).
    const FLUSHES_LATE_RECEIVES: bool;
    /// How a receive ends whose memory is registered no more when its message comes.
    const RECEIVE_WITHOUT_MEMORY: WcStatus;

    fn open() -> Self;
    /// Another protection domain of the same device.
    fn beside(&self) -> Self;
    /// Handles, to be dropped one by one.
    fn into_parts(self) -> (Self::Nic, Arc<Self::Pd>);
    fn pd(&self) -> &Arc<Self::Pd>;
    /// A completion queue with an event channel.
    fn cq(&self, capacity: u32) -> Self::Cq;
    fn qp(&self, sends: &Self::Cq, recvs: &Self::Cq, caps: QpCaps) -> Self::Qp;
    fn srq(&self, capacity: u32, max_sge: u32) -> Self::Srq;
    fn qp_on(&self, cq: &Self::Cq, srq: &Self::Srq, caps: QpCaps) -> Self::Qp;
    fn connect(&self, a: &Self::Qp, b: &Self::Qp);
    /// Scatter/gather elements that a work request takes at most.
    fn max_sge(&self) -> u32;
    /// Waits until this queue has lost a completion and its polls are about to say so.
    fn await_overrun(&self, cq: &Self::Cq);
    /// Objects that the backend had to leak, so far.
    fn leaked() -> u64 {
        0
    }
    /// Lets it do all that it can, if it acts only when told to.
    fn act(&self) {}

    /// How many registrations there are: each keeps its protection domain.
    fn registered(&self) -> usize {
        Arc::strong_count(self.pd()) - 1
    }

    /// Zeroed bytes that the peers have no right to.
    fn alloc(&self, length: usize) -> LocalMr {
        LocalMr::alloc(self.pd(), length).unwrap()
    }

    /// These bytes, which the peers have no right to.
    fn region(&self, bytes: &[u8]) -> LocalMr {
        let mut mr = self.alloc(bytes.len());
        mr.as_mut_slice().copy_from_slice(bytes);
        mr
    }

    /// Bytes that peers may read, write and use atomics on.
    ///
    /// # Safety
    /// REMOTE-1, REMOTE-2: who looks at them knows that no peer writes meanwhile.
    unsafe fn open_to_peers(&self, bytes: &[u8]) -> LocalMr {
        // SAFETY: REMOTE-1, REMOTE-2: as required of the caller.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let mut mr = options
            .access(Access::all())
            .alloc(self.pd(), bytes.len())
            .unwrap();
        mr.as_mut_slice().copy_from_slice(bytes);
        mr
    }

    /// Two connected endpoints with a completion queue each, polled by themselves.
    fn pair(&self, caps: QpCaps) -> (Endpoint<Self::Qp>, Endpoint<Self::Qp>) {
        let (a, b) = self.queue_pairs(&self.cq(1024), &self.cq(1024), caps);
        (Endpoint::new(a), Endpoint::new(b))
    }

    /// Two connected endpoints that complete at one queue.
    fn attached(
        &self,
        poller: &Poller<Self::Cq>,
        caps: QpCaps,
    ) -> (Endpoint<Self::Qp>, Endpoint<Self::Qp>) {
        let (a, b) = self.queue_pairs(poller.cq(), poller.cq(), caps);
        let attach = |qp| Endpoint::attach(qp, poller).map_err(|rejected| rejected.error);
        (attach(a).unwrap(), attach(b).unwrap())
    }

    /// As [`attached`](Self::attached), for futures.
    fn asynchronous(
        &self,
        poller: &Poller<Self::Cq>,
        caps: QpCaps,
    ) -> (AsyncQueuePair<Self::Qp>, AsyncQueuePair<Self::Qp>) {
        let (a, b) = self.attached(poller, caps);
        (AsyncQueuePair::new(a), AsyncQueuePair::new(b))
    }

    fn queue_pairs(&self, a: &Self::Cq, b: &Self::Cq, caps: QpCaps) -> (Self::Qp, Self::Qp) {
        let (a, b) = (self.qp(a, a, caps), self.qp(b, b, caps));
        self.connect(&a, &b);
        (a, b)
    }
}

/// A fabric of which nothing is left when a case is over: nothing is registered, and nothing was leaked.
pub struct Checked<F: Fabric>(F);

impl<F: Fabric> Checked<F> {
    pub fn new(fabric: F) -> Self {
        Checked(fabric)
    }

    pub fn open() -> Self {
        Self::new(F::open())
    }
}

impl<F: Fabric> Deref for Checked<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.0
    }
}

impl<F: Fabric> Drop for Checked<F> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.registered(), 0, "all is freed");
            assert_eq!(leaks(), Leaks::default());
        }
    }
}

/// Where a peer finds that region.
pub fn remote(mr: &impl MrAccess) -> RemoteAddr {
    RemoteAddr {
        addr: mr.addr() as u64,
        rkey: mr.rkey(),
    }
}

/// Polls until `count` operations of this endpoint are over.
#[track_caller]
pub fn finish<Q: QueuePair>(endpoint: &mut Endpoint<Q>, count: usize) -> Vec<Done> {
    let mut all = Vec::new();
    let start = Instant::now();
    while all.len() < count {
        endpoint.poll(|done| all.push(done)).unwrap();
        assert!(start.elapsed() < LONG, "{} of {count}", all.len());
        std::thread::yield_now();
    }
    all
}

/// Polls until that many completions have come.
#[track_caller]
pub fn completions<C: CompletionQueue>(cq: &C, count: usize) -> Vec<WorkCompletion> {
    let mut all = Vec::new();
    let start = Instant::now();
    while all.len() < count {
        let mut one = [WorkCompletion::EMPTY];
        if cq.poll(&mut one).unwrap() == 1 {
            all.extend(one);
            continue;
        }
        assert!(start.elapsed() < LONG, "{} of {count}", all.len());
        std::thread::yield_now();
    }
    all
}
