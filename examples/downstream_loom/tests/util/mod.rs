//! What models on rdma-mr need: copy it.
#![allow(dead_code, reason = "each file uses some of it")]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::thread;
use rdma_mr::backend::soft::{self, Nic};
use rdma_mr::op::Endpoint;
use rdma_mr::work::QpCaps;
use rdma_mr::{LocalMr, LocalMrWriteAccess};

/// Explores `model`, and says how much that was: a model that explores nothing shows nothing.
pub fn explore(least: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    // A work request of the NIC in software takes some hundred steps.
    builder.max_branches = 10_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    let executions = executions.load(Relaxed);
    println!("{executions} executions");
    assert!(executions >= least);
}

/// Calls `attempt` until it has a result, and lets the others go on in between.
pub fn insist<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        thread::yield_now();
    }
}

/// What is not dropped when the model fails: that would ask loom once more, in the middle of a panic.
#[derive(Clone)]
pub struct Kept<T>(Option<T>);

impl<T> Kept<T> {
    pub fn new(inner: T) -> Self {
        Kept(Some(inner))
    }

    pub fn into_inner(mut self) -> T {
        self.0.take().expect("there until the drop")
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("there until the drop")
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("there until the drop")
    }
}

/// A NIC that acts when it is told to, and two queue pairs on it that are connected.
pub struct World {
    pub nic: Kept<Nic>,
    pub pd: Kept<Arc<soft::ProtectionDomain>>,
    pub a: Kept<Endpoint<soft::QueuePair>>,
    pub b: Kept<Endpoint<soft::QueuePair>>,
}

impl World {
    pub fn new() -> Self {
        let nic = Nic::builder().stepped().reorder(0.0).build();
        let pd = nic.alloc_pd();
        // Small ones: each place in a queue is something that loom keeps an eye on.
        let caps = QpCaps {
            max_send_wr: 2,
            max_recv_wr: 2,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: 0,
        };
        let queue_pair = || {
            let cq = nic.create_cq(4).unwrap();
            pd.create_qp(&cq, &cq, caps).unwrap()
        };
        let (a, b) = (queue_pair(), queue_pair());
        soft::QueuePair::connect_pair(&a, &b).unwrap();
        World {
            nic: Kept::new(nic),
            pd: Kept::new(pd),
            a: Kept::new(Endpoint::new(a)),
            b: Kept::new(Endpoint::new(b)),
        }
    }

    /// A region with these bytes.
    pub fn region(&self, bytes: &[u8]) -> Kept<LocalMr> {
        let mut mr = Kept::new(LocalMr::alloc(&*self.pd, bytes.len()).unwrap());
        mr.as_mut_slice().copy_from_slice(bytes);
        mr
    }
}
