//! What the tests of the rules share: two connected endpoints, regions, and ways to see that
//! somebody waits.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unused_imports, reason = "each test file uses a part of it")]

use std::fmt;
use std::future::Future;
use std::io::{Error as IoError, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Instant;

use rdma_mr::backend::soft::{Nic, ProtectionDomain, QueuePair};
use rdma_mr::gate::Snapshot;
use rdma_mr::op::{Begin, Done, Endpoint};
use rdma_mr::work::{QpCaps, QueuePair as _, RemoteAddr, WcStatus};
use rdma_mr::{Access, Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions};

#[path = "../soft_util/mod.rs"]
mod soft_util;
pub use soft_util::{LONG, eventually, pattern};

/// An endpoint on the NIC in software.
pub type End = Endpoint<QueuePair>;

/// Two connected endpoints on one NIC, with one protection domain.
pub struct Pair {
    // Dropped in this order: first the queue pairs, then what they use.
    pub a: End,
    pub b: End,
    pub pd: Arc<ProtectionDomain>,
    pub nic: Nic,
}

impl Pair {
    /// On a NIC that acts only when the test says so.
    pub fn stepped() -> Self {
        Self::on(&Nic::builder().stepped().build(), QpCaps::default())
    }

    /// On a NIC with a thread.
    pub fn threaded() -> Self {
        Self::on(&Nic::new(), QpCaps::default())
    }

    /// As [`Pair::stepped`], with queues for two work requests and 16 inline bytes.
    pub fn small() -> Self {
        let caps = QpCaps {
            max_send_wr: 2,
            max_recv_wr: 2,
            max_inline: 16,
            ..QpCaps::default()
        };
        Self::on(&Nic::builder().stepped().build(), caps)
    }

    pub fn on(nic: &Nic, caps: QpCaps) -> Self {
        Self::in_domain(nic, &nic.alloc_pd(), caps)
    }

    pub fn in_domain(nic: &Nic, pd: &Arc<ProtectionDomain>, caps: QpCaps) -> Self {
        let end = || {
            let cq = nic.create_cq(256).unwrap();
            let qp = pd.create_qp(&cq, &cq, caps).unwrap();
            Endpoint::new(qp)
        };
        let (a, b) = (end(), end());
        QueuePair::connect_pair(a.qp(), b.qp()).unwrap();
        let (pd, nic) = (pd.clone(), nic.clone());
        Pair { a, b, pd, nic }
    }

    /// A region of zeroed bytes.
    pub fn alloc(&self, length: usize) -> LocalMr {
        LocalMr::alloc(&self.pd, length).unwrap()
    }

    /// A region with these bytes.
    pub fn region(&self, bytes: &[u8]) -> LocalMr {
        LocalMr::register(&self.pd, bytes.to_vec()).unwrap()
    }

    /// A region with these bytes that peers may READ.
    pub fn readable(&self, bytes: &[u8]) -> LocalMr {
        MrOptions::new()
            .access(Access::LOCAL_WRITE | Access::REMOTE_READ)
            .register(&self.pd, bytes.to_vec())
            .unwrap()
    }

    /// An integer that peers may change at any time.
    ///
    /// # Safety
    /// REMOTE-1, REMOTE-2.
    pub unsafe fn shared_word(&self, value: u64) -> LocalMr {
        // SAFETY: REMOTE-1, REMOTE-2: as required of the caller.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let mut mr = options.access(Access::all()).alloc(&self.pd, 8).unwrap();
        mr.as_mut_slice().copy_from_slice(&value.to_ne_bytes());
        mr
    }

    /// A receive of `b` into `to` and a SEND of `a` from `from`, as far as the post.
    pub fn start_message(&mut self, from: &impl Begin, to: &impl Begin) {
        self.b.recv(to.begin_write().unwrap()).unwrap();
        self.a.send(from.begin_read().unwrap(), None).unwrap();
    }

    /// A READ of `a` from `from` into `to`, as far as the post.
    pub fn start_read(&mut self, from: &LocalMr, to: &impl Begin) {
        self.a
            .read(to.begin_write().unwrap(), remote(from))
            .unwrap();
    }

    /// Steps the NIC until it is idle and polls both ends; gives what was over, `a`'s first.
    pub fn settle(&mut self) -> Vec<Done> {
        self.nic.run_until_idle();
        self.poll()
    }

    /// Polls both ends; gives what was over, `a`'s first.
    pub fn poll(&mut self) -> Vec<Done> {
        let mut all = Vec::new();
        self.a.poll(|done| all.push(done)).unwrap();
        self.b.poll(|done| all.push(done)).unwrap();
        all
    }

    /// Settles, and all that was over succeeded: that many operations.
    pub fn finish(&mut self, count: usize) {
        let all = self.settle();
        assert_eq!(all.len(), count, "{all:?}");
        assert!(all.iter().all(|done| done.status == WcStatus::Success));
    }

    /// Nothing is registered any more.
    pub fn assert_nothing_registered(&self) {
        assert_eq!(self.nic.stats().registrations, 0);
    }
}

/// The first byte of a region, as a peer names it.
pub fn remote(mr: &impl MrAccess) -> RemoteAddr {
    RemoteAddr {
        addr: mr.addr() as u64,
        rkey: mr.rkey(),
    }
}

/// Waits until that thread is parked at the region, as `parked` sees it; it must not get in.
pub fn assert_parks<T>(thread: &JoinHandle<T>, mr: &LocalMr, parked: fn(&Snapshot) -> bool) {
    eventually("it waits, or is through", || {
        parked(&mr.state()) || thread.is_finished()
    });
    assert!(!thread.is_finished(), "it did not wait: {}", mr.state());
}

/// Whoever finds the region held marks it at once to be woken, without spinning first.
pub fn assert_does_not_spin(mr: &LocalMr) {
    let hold = mr.begin_write().unwrap();
    let refused = mr.as_slice_until(past());
    assert!(matches!(refused, Err(Error::Deadline { state }) if state.waiting_shared));
    drop(hold);
    assert!(!mr.state().waiting_shared);
}

/// A future that is polled by hand, with a waker that counts.
pub struct Driven<F> {
    future: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<F: Future> Driven<F> {
    pub fn new(future: F) -> Self {
        Driven {
            future: Box::pin(future),
            wakes: Arc::new(Wakes(AtomicUsize::new(0))),
        }
    }

    pub fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.wakes.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Polled once, and not ready.
    pub fn pending(future: F) -> Self {
        let mut driven = Self::new(future);
        assert!(driven.poll().is_pending());
        driven
    }

    pub fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }

    /// It has been woken, and is ready at the next poll, or at the one after it (a future stands
    /// back once).
    pub fn ready(mut self) -> F::Output {
        assert!(self.wakes() > 0, "not woken");
        for _ in 0..2 {
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
        }
        panic!("woken, and still not ready");
    }
}

/// The kind that a failed call would have as an `io::Error`.
pub fn kind<T: fmt::Debug, E: Into<IoError>>(result: Result<T, E>) -> ErrorKind {
    result.unwrap_err().into().kind()
}

/// That a value of the type may be sent to, and shared with, other threads.
pub fn send_and_sync<T: Send + Sync>() {}

/// An instant that has passed.
pub fn past() -> Instant {
    Instant::now()
}

/// An instant that only a hang reaches.
pub fn far() -> Instant {
    Instant::now() + LONG
}
