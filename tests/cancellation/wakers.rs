//! Wakers that do more than to wake.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Instant;

use rdma_mr::LocalMr;
use rdma_mr::op::{AsyncQueuePair, Done, Poller};
use rdma_mr::work::QpCaps;

use super::subject::{Count, Cut, Subject};
use super::world::{Kind, World, pattern};
use crate::fabric::{Fabric, LONG, remote};

type Written = Subject<'static, rdma_mr::Result<Done>>;

/// A waker that does something, once.
struct Does(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Does {
    fn waker(what: impl FnOnce() + Send + 'static) -> Waker {
        Waker::from(Arc::new(Does(Mutex::new(Some(Box::new(what))))))
    }
}

impl Wake for Does {
    fn wake(self: Arc<Self>) {
        let what = self.0.lock().unwrap().take();
        if let Some(what) = what {
            what();
        }
    }
}

/// WRITEs of a queue pair that nobody but their futures keeps.
struct Writes<F: Fabric> {
    poller: Poller<F::Cq>,
    a: Option<Arc<AsyncQueuePair<F::Qp>>>,
    _b: AsyncQueuePair<F::Qp>,
    regions: Vec<Arc<LocalMr>>,
    futures: Vec<Arc<Mutex<Option<Written>>>>,
    _to: LocalMr,
}

impl<F: Fabric> Writes<F> {
    fn new(fabric: &F, count: u8) -> Self {
        let poller = Poller::new(fabric.cq(64));
        let (a, b) = fabric.asynchronous(&poller, QpCaps::default());
        let a = Arc::new(a);
        // SAFETY: REMOTE-1, REMOTE-2: nobody looks at the bytes.
        let to = unsafe { fabric.open_to_peers(&[0; 8]) };
        let regions: Vec<_> = (0..count)
            .map(|seed| Arc::new(fabric.region(&pattern(seed, 8))))
            .collect();
        let futures = regions.iter().map(|mr| {
            let (a, mr, to) = (a.clone(), mr.clone(), remote(&to));
            let write = Subject::new(async move { a.write(&*mr, to).await });
            Arc::new(Mutex::new(Some(write)))
        });
        Writes {
            futures: futures.collect(),
            poller,
            a: Some(a),
            _b: b,
            regions,
            _to: to,
        }
    }

    fn poll(&self, at: usize, waker: &Waker) -> Poll<rdma_mr::Result<Done>> {
        self.futures[at]
            .lock()
            .unwrap()
            .as_mut()
            .unwrap()
            .poll(waker)
    }

    fn finish(&self, fabric: &F) {
        let start = Instant::now();
        while self.regions.iter().any(|mr| !mr.state().is_free()) {
            fabric.act();
            self.poller.poll().unwrap();
            assert!(start.elapsed() < LONG);
        }
    }
}

/// Woken by its completion, a future is ready within the very call of its waker.
pub fn r18_a_waker_may_poll_when_the_operation_is_over<F: Fabric>(fabric: &F) {
    let writes = Writes::new(fabric, 1);
    let (future, told) = (writes.futures[0].clone(), Arc::new(Mutex::new(None)));
    let tell = told.clone();
    let waker = Does::waker(move || {
        let polled = future.lock().unwrap().as_mut().unwrap().poll(Waker::noop());
        *tell.lock().unwrap() = Some(matches!(polled, Poll::Ready(Ok(_))));
    });
    assert!(writes.poll(0, &waker).is_pending());
    writes.finish(fabric);
    assert_eq!(*told.lock().unwrap(), Some(true));
}

/// The waker of one drops all, itself too, some of which are told in the same poll; and then the queue
/// pair, if that is the last that keeps it.
pub fn r9_a_waker_may_drop_futures_and_the_queue_pair<F: Fabric>(fabric: &F) {
    for first in 0..3 {
        let mut writes = Writes::new(fabric, 3);
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let (futures, a, keep) = (writes.futures.clone(), writes.a.take(), dropped.clone());
        let waker = Does::waker(move || {
            for future in futures {
                let mut future = future.lock().unwrap().take().unwrap();
                future.cut(Cut::Drop);
                keep.lock().unwrap().push(future);
            }
            drop(a);
        });
        for at in 0..3 {
            let waker = if at == first { &waker } else { Waker::noop() };
            assert!(writes.poll(at, waker).is_pending());
        }
        drop(waker);
        writes.finish(fabric);
        let dropped = dropped.lock().unwrap();
        assert_eq!(dropped.len(), 3);
        dropped.iter().for_each(Subject::assert_untouched);
    }
}

/// Who gives the turn back wakes those who wait for it: if a waker panics there, the future that has
/// just posted is unwound, and its operation goes on.
pub fn r9_a_future_unwound_after_the_post_is_told_no_more<F: Fabric>(fabric: &F) {
    let world = World::new(fabric);
    let mine = world.regions(Kind::Write);
    world.door.shut();
    let (a, to) = (world.a.clone(), remote(&world.there));
    let from = Arc::new(fabric.region(&[1; 8]));
    let mr = from.clone();
    let posts = thread::spawn(move || {
        let mut future = Subject::new(async move { a.write(&*mr, to).await });
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(Waker::noop()).is_pending()));
        future.cut(Cut::Drop);
        (future, polled.is_err())
    });
    world.door.wait_inside();
    let mut waits = world.operation(Kind::Write, &mine);
    let waker = Does::waker(|| std::panic::resume_unwind(Box::new("a waker's")));
    assert!(waits.poll(&waker).is_pending());
    world.door.open();
    let (future, unwound) = posts.join().unwrap();
    assert!(unwound && world.a.outstanding() == (1, 0));
    assert_eq!(from.state().nic_reads, 1);
    world.finish();
    future.assert_untouched();
    assert!(from.state().is_free());
    // The list that it waits in has been left in the middle; it is not used any more.
    waits.cut(Cut::Forget);
}

/// Polled after it was ready, a future panics or pends; it does no harm.
pub fn r19_a_future_polled_after_completion_does_no_harm<F: Fabric>(fabric: &F) {
    let writes = Writes::new(fabric, 1);
    let (count, waker) = Count::new();
    assert!(writes.poll(0, &waker).is_pending());
    writes.finish(fabric);
    assert_eq!(count.get(), 1);
    assert!(matches!(writes.poll(0, &waker), Poll::Ready(Ok(_))));
    let again = AssertUnwindSafe(|| {
        let mut future = writes.futures[0].lock().unwrap().take().unwrap();
        future.poll(&waker).is_ready()
    });
    assert!(catch_unwind(again).is_err());
    assert!(writes.regions[0].state().is_free());
}
