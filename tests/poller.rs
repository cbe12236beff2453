//! A poller whose wakers do what wakers may do: drop what stands at this very poller (R11, R18).
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use fabric::{Fabric, LONG, Soft};
use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{AsyncQueuePair, Begin, Endpoint, Poller};
use rdma_mr::registration::StableMemory;
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, leaks};

/// Drops an endpoint, or tries to attach one, when it is woken.
struct Dropper(Mutex<Option<Endpoint<QueuePair>>>);

impl Wake for Dropper {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

/// Fails instead of hanging.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(test);
    let end = std::time::Instant::now() + LONG;
    while !thread.is_finished() {
        assert!(std::time::Instant::now() < end, "it waits for itself");
        thread::yield_now();
    }
    thread.join().unwrap();
}

#[test]
fn r18_a_waker_that_drops_an_endpoint_of_this_poller_does_not_wait_for_itself() {
    in_time(|| {
        let soft = Soft::stepped();
        let poller = Poller::new(soft.cq(64));
        let (mut a, mut b) = soft.attached(&poller, QpCaps::default());
        let (mut other, _peer) = soft.attached(&poller, QpCaps::default());
        let (from, to, kept) = (soft.alloc(64), soft.alloc(64), soft.alloc(64));
        other.recv(kept.begin_write().unwrap()).unwrap();
        b.recv(to.begin_write().unwrap()).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();

        // Woken as the hold of `to` is released, in the middle of the poll.
        let waker = Waker::from(Arc::new(Dropper(Mutex::new(Some(other)))));
        let mut waits = Box::pin(to.as_slice_async());
        let polled = Pin::new(&mut waits).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let leaked = leaks().holds;
        soft.nic.run_until_idle();
        assert_eq!(poller.poll().unwrap(), 2);
        assert!(kept.state().is_free(), "its queue pair is gone");
        assert_eq!(leaks().holds, leaked);
        assert_eq!(soft.nic.stats().queue_pairs, 3);
        // And the poller goes on.
        b.recv(kept.begin_write().unwrap()).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();
        soft.nic.run_until_idle();
        assert_eq!(poller.poll().unwrap(), 2);
        assert!(kept.try_as_slice().is_some());
    });
}

struct Attacher {
    poller: Poller<rdma_mr::backend::soft::CompletionQueue>,
    qp: Mutex<Option<QueuePair>>,
    said: Mutex<Option<Error>>,
}

impl Wake for Attacher {
    fn wake(self: Arc<Self>) {
        if let Some(qp) = self.qp.lock().unwrap().take() {
            *self.said.lock().unwrap() = Endpoint::attach(qp, &self.poller)
                .err()
                .map(|rejected| rejected.error);
        }
    }
}

#[test]
fn r19_a_waker_that_attaches_to_this_poller_is_told_so() {
    in_time(|| {
        let soft = Soft::stepped();
        let poller = Poller::new(soft.cq(64));
        let (mut a, mut b) = soft.attached(&poller, QpCaps::default());
        let (from, to) = (soft.alloc(64), soft.alloc(64));
        b.recv(to.begin_write().unwrap()).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();
        let attacher = Arc::new(Attacher {
            poller: poller.clone(),
            qp: Mutex::new(Some(soft.qp(poller.cq(), poller.cq(), QpCaps::default()))),
            said: Mutex::default(),
        });
        let waker = Waker::from(Arc::clone(&attacher));
        let mut waits = Box::pin(to.as_slice_async());
        let polled = Pin::new(&mut waits).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        soft.nic.run_until_idle();
        assert_eq!(poller.poll().unwrap(), 2);
        let said = attacher.said.lock().unwrap().take();
        assert!(
            matches!(said, Some(Error::InvalidWorkRequest { reason }) if reason.contains("waker")),
            "{said:?}"
        );
    });
}

struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Memory that panics when it is freed.
struct Bomb(Box<[u8]>);

// SAFETY: MEM-1 to MEM-4 as for `Box<[u8]>`.
unsafe impl StableMemory for Bomb {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the memory's");
    }
}

/// The second of three completions frees memory that panics: all three are dealt with, and both futures
/// are woken.
#[test]
fn r18_memory_that_panics_as_it_is_freed_costs_nobody_a_wake_up() {
    in_time(|| {
        let soft = Soft::stepped();
        let poller = Poller::new(soft.cq(64));
        let (a, _b) = soft.attached(&poller, QpCaps::default());
        let (mut other, _peer) = soft.attached(&poller, QpCaps::default());
        let a = AsyncQueuePair::new(a);
        // SAFETY: REMOTE-1, REMOTE-2: nobody looks at the bytes.
        let target = unsafe { soft.open_to_peers(&[0; 8]) };
        let to = fabric::remote(&target);
        let (first, last) = (soft.alloc(8), soft.alloc(8));
        let bomb = LocalMr::register(soft.pd(), Bomb(Box::new([0; 8]))).unwrap();

        let wakes = [(); 2].map(|()| Arc::new(Counted(AtomicUsize::new(0))));
        let wakers = wakes.each_ref().map(|wakes| Waker::from(wakes.clone()));
        let mut futures = (pin!(a.write(&first, to)), pin!(a.write(&last, to)));
        assert!(
            futures
                .0
                .as_mut()
                .poll(&mut Context::from_waker(&wakers[0]))
                .is_pending()
        );
        soft.nic.run_until_idle();
        other.write(bomb.begin_read().unwrap(), to, None).unwrap();
        drop(bomb); // the hold keeps it
        soft.nic.run_until_idle();
        assert!(
            futures
                .1
                .as_mut()
                .poll(&mut Context::from_waker(&wakers[1]))
                .is_pending()
        );
        soft.nic.run_until_idle();

        let polls = catch_unwind(AssertUnwindSafe(|| poller.poll()));
        assert!(polls.is_err(), "the panic is not swallowed");
        for wakes in &wakes {
            assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(futures.0.poll(&mut cx).is_ready() && futures.1.poll(&mut cx).is_ready());
        assert!(first.state().is_free() && last.state().is_free());
        assert_eq!(other.outstanding(), (0, 0));
    });
}

#[test]
fn r11_what_a_queue_pair_left_in_the_queue_belongs_to_nobody() {
    let soft = Soft::stepped();
    let poller = Poller::new(soft.cq(64));
    let (mut a, mut b) = soft.attached(&poller, QpCaps::default());
    let (from, to) = (soft.alloc(64), soft.alloc(64));
    b.recv(to.begin_write().unwrap()).unwrap();
    a.send(from.begin_read().unwrap(), None).unwrap();
    soft.nic.run_until_idle();
    drop(a);
    assert!(from.state().is_free() && !to.state().is_free());
    // The completion of the send is there still: neither an error nor an operation.
    assert_eq!((poller.poll().unwrap(), poller.unknown()), (1, 0));
    assert!(to.state().is_free());
}
