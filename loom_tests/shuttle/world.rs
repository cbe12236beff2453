//! What the scenarios run in: the NIC and whoever steps it, who polls, and ways to wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::op::{Begin, Done, Endpoint, Poller, PollerThread};
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, Leaks, LocalMr, Rejected, leaks};
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::thread::{self, JoinHandle, yield_now};

use crate::run::chance;

pub type End = Endpoint<QueuePair>;

/// Room for two work requests on each queue: posters have to wait for it, too.
pub const SMALL: QpCaps = QpCaps {
    max_send_wr: 2,
    max_recv_wr: 2,
    max_send_sge: 2,
    max_recv_sge: 2,
    max_inline: 0,
};

/// A thread that does something over and over until it is told to end.
pub struct Busy {
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Busy {
    /// `step` says whether there was something to do.
    pub fn new(step: impl Fn() -> bool + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let thread = thread::spawn(move || {
            while !told.load(SeqCst) {
                if !step() {
                    yield_now();
                }
            }
        });
        Busy { end, thread }
    }

    fn tell(&self) {
        self.end.store(true, SeqCst);
    }

    pub fn end(self) {
        self.tell();
        self.thread.join().unwrap();
    }
}

pub struct World {
    pub nic: Nic,
    pub pd: Arc<ProtectionDomain>,
    /// Who steps the NIC, if it has no thread of its own.
    stepper: Option<Busy>,
}

impl World {
    pub fn new() -> Self {
        let builder = Nic::builder().seed(chance(1 << 32) as u64);
        let nic = match chance(2) {
            0 => builder.stepped().build(),
            _ => builder.build(),
        };
        let stepper = nic.is_stepped().then(|| {
            let nic = nic.clone();
            Busy::new(move || nic.step())
        });
        let pd = nic.alloc_pd();
        World { nic, pd, stepper }
    }

    pub fn cq(&self) -> CompletionQueue {
        self.nic.create_cq(64).unwrap()
    }

    /// Two connected queue pairs that complete there.
    pub fn queue_pairs(&self, cq: &CompletionQueue) -> (QueuePair, QueuePair) {
        let (a, b) = (self.qp(cq), self.qp(cq));
        QueuePair::connect_pair(&a, &b).unwrap();
        (a, b)
    }

    pub fn qp(&self, cq: &CompletionQueue) -> QueuePair {
        self.pd.create_qp(cq, cq, SMALL).unwrap()
    }

    /// Two connected endpoints.
    pub fn ends(&self, poller: &Poller<CompletionQueue>) -> (End, End) {
        let (a, b) = self.queue_pairs(poller.cq());
        let [a, b] = [a, b].map(|qp| Endpoint::attach(qp, poller).unwrap());
        (a, b)
    }

    /// Nothing is left, and nothing was leaked. All that was made here has to be dropped.
    pub fn end(self) {
        if let Some(stepper) = self.stepper {
            stepper.end();
        }
        let stats = self.nic.stats();
        let left = [
            stats.registrations,
            stats.queue_pairs,
            stats.completion_queues,
        ];
        assert_eq!(left, [0; 3], "{stats:?}");
        assert_eq!(leaks(), Leaks::default());
    }
}

/// Who polls.
pub enum Polling {
    /// The crate's thread, which sleeps, and wakes by itself now and then.
    Napping(PollerThread),
    /// A thread that never sleeps.
    Awake(Busy),
    /// A thread that sleeps until there is an event; and what makes one at the end.
    Asleep(Busy, Box<((End, End), [LocalMr; 2])>),
}

impl Polling {
    /// Where all operations succeed.
    pub fn new(world: &World, poller: &Poller<CompletionQueue>) -> Self {
        let tell = |done: Done| assert!(done.status.is_success(), "{done:?}");
        Self::telling(world, poller, tell)
    }

    pub fn telling(world: &World, poller: &Poller<CompletionQueue>, tell: fn(Done)) -> Self {
        let own = poller.clone();
        match chance(3) {
            0 => Polling::Napping(poller.spawn("poller").unwrap()),
            1 => Polling::Awake(Busy::new(move || own.poll_with(tell).unwrap() > 0)),
            _ => {
                let mrs = [(); 2].map(|()| LocalMr::alloc(&world.pd, 8).unwrap());
                let busy = Busy::new(move || own.wait(None, tell).unwrap() > 0);
                Polling::Asleep(busy, Box::new((world.ends(poller), mrs)))
            }
        }
    }

    pub fn end(self) {
        match self {
            Polling::Napping(thread) => thread.stop().unwrap(),
            Polling::Awake(busy) => busy.end(),
            Polling::Asleep(busy, ends) => {
                let ((mut a, mut b), [from, into]) = *ends;
                busy.tell();
                b.recv(into.begin_write().unwrap()).unwrap();
                a.send(from.begin_read().unwrap(), None).unwrap();
                busy.end();
            }
        }
    }
}

/// Tries until there is room.
pub fn insist<H, T>(mut holds: H, mut post: impl FnMut(H) -> Result<T, Rejected<H>>) -> T {
    loop {
        match post(holds) {
            Ok(posted) => return posted,
            Err(Rejected { value, error }) => {
                assert!(matches!(error, Error::QueueFull { .. }), "{error:?}");
                holds = value;
            }
        }
        yield_now();
    }
}

/// Waits until nothing is outstanding there.
pub fn settle(ends: &[&End]) {
    while ends.iter().any(|end| end.outstanding() != (0, 0)) {
        yield_now();
    }
}

/// Later than all that was asked for before, by days: a model's clock gets there when nothing else is left.
pub fn some_day() -> Instant {
    Instant::now() + Duration::from_secs(3600 * 24 * (1 + chance(1000) as u64))
}

/// Polls it so often, lets others have turns in between, then drops it; `Some` if it was ready before.
pub async fn impatient<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)));
        if let Poll::Ready(output) = polled.await {
            return Some(output);
        }
        shuttle::future::yield_now().await;
    }
    None
}
