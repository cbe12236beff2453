//! The orderly end of a queue pair with work outstanding (rules R11, R16).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event_listener::EventListener;

use super::Endpoint;
use crate::error::Error;
use crate::op::queue::done::Done;
use crate::sync::{now, park};
use crate::trace;
use crate::work::QueuePair;

/// How long to sleep between two polls while nobody tells of completions.
const NAP: Duration = Duration::from_micros(100);

/// A queue pair on its way out: it has been told to fail, and its completions, flushed or not, are
/// waited for. It is destroyed in any case, at the latest when this is dropped, and only then is what
/// had no completion released; a device that does not flush all (R16) costs nothing but the wait.
///
/// The wait has the usual forms: [`advance`](Self::advance) never waits, [`until`](Self::until) blocks,
/// [`with`](Self::with) calls you in between, and as a future it resolves when nothing is outstanding,
/// woken by whoever polls. [`finish`](Self::finish) ends it at once.
///
/// ```
/// # use rdma_mr::backend::soft::{Nic, QueuePair};
/// # use rdma_mr::op::{Begin, Endpoint};
/// # use rdma_mr::work::QpCaps;
/// # use rdma_mr::LocalMr;
/// use std::time::{Duration, Instant};
/// # let nic = Nic::new();
/// # let pd = nic.alloc_pd();
/// # let cq = nic.create_cq(64)?;
/// # let qp = pd.create_qp(&cq, &cq, QpCaps::default())?;
/// # qp.connect(work_num(&qp))?;
/// # fn work_num(qp: &QueuePair) -> u32 { rdma_mr::work::QueuePair::qp_num(qp) }
/// let mut endpoint = Endpoint::new(qp);
/// let mr = LocalMr::alloc(&pd, 64)?;
/// endpoint.recv(mr.begin_write()?)?;
/// let drained = endpoint.drain().until(Instant::now() + Duration::from_secs(1));
/// assert_eq!((drained.completed, drained.leaked), (1, 0)); // flushed
/// assert!(mr.state().is_free());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use = "dropping it destroys the queue pair at once"]
pub struct Drain<Q: QueuePair> {
    endpoint: Endpoint<Q>,
    outstanding: usize,
    error: Option<Error>,
    listeners: Option<[EventListener; 2]>,
}

/// Where every operation went that was outstanding when the drain began.
#[derive(Debug)]
#[non_exhaustive]
pub struct Drained {
    /// Ended by their completions; most of them flushed.
    pub completed: usize,
    /// Had no completion, and were released when the queue pair had been destroyed.
    pub released: usize,
    /// The queue pair could not be destroyed: their regions stay held, counted in
    /// [`leaks`](crate::leaks()).
    pub leaked: usize,
    /// The first error on the way: of the move to ERR, of a poll, of the destruction.
    pub error: Option<Error>,
}

impl<Q: QueuePair> Endpoint<Q> {
    /// Begins the end: moves the queue pair to ERR, so that what is outstanding is flushed. Then wait
    /// for it, as long as you like: see [`Drain`].
    pub fn drain(self) -> Drain<Q> {
        // First: somebody else may poll for what is flushed at once.
        let (sends, recvs) = self.outstanding();
        let error = self.qp().modify_to_error().err();
        Drain {
            outstanding: sends + recvs,
            endpoint: self,
            error,
            listeners: None,
        }
    }
}

impl<Q: QueuePair> Drain<Q> {
    /// How many operations are outstanding still.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let (sends, recvs) = self.endpoint.outstanding();
        sends + recvs
    }

    /// Polls once, tells `done` of what has ended, and says whether there is nothing left to wait for:
    /// nothing is outstanding, or the completion queue has failed. Never waits.
    pub fn advance(&mut self, done: impl FnMut(Done)) -> bool {
        match self.endpoint.poll(done) {
            Ok(_) | Err(Error::UnknownCompletion { .. }) => {}
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self.outstanding() == 0 || self.has_failed()
    }

    fn has_failed(&self) -> bool {
        self.endpoint.send_poller().is_broken() || self.endpoint.recv_poller().is_broken()
    }

    /// Waits until nothing is outstanding, at most until `deadline`, then [finishes](Self::finish).
    /// Blocks; polls itself, and notices what others poll.
    pub fn until(mut self, deadline: Instant) -> Drained {
        while !self.advance(|_| ()) && now() < deadline {
            let [sends, _recvs] = self.listen();
            if self.advance(|_| ()) {
                break;
            }
            park(sends, Some(deadline.min(now() + NAP)));
        }
        self.finish()
    }

    /// Waits until nothing is outstanding, or until `progress` returns `false`, which is called between
    /// two polls; then [finishes](Self::finish).
    pub fn with(mut self, mut progress: impl FnMut() -> bool) -> Drained {
        while !self.advance(|_| ()) && progress() {}
        self.finish()
    }

    /// Destroys the queue pair now, and accounts for all that was outstanding. May block in the kernel.
    pub fn finish(mut self) -> Drained {
        self.settle()
    }

    fn settle(&mut self) -> Drained {
        let qp_num = self.endpoint.qp_num();
        let ended = match self.endpoint.end() {
            Ok(ended) => ended,
            Err(source) => {
                let call = "destroying the queue pair";
                self.error.get_or_insert(Error::Provider { call, source });
                self.endpoint.abandon()
            }
        };
        // Taken: polled after completion, a drain accounts for nothing twice.
        let completed = std::mem::take(&mut self.outstanding) - (ended.released + ended.leaked);
        if let Some(qp_num) = qp_num {
            trace::drained(qp_num, completed, ended.released, ended.leaked);
        }
        Drained {
            completed,
            released: ended.released,
            leaked: ended.leaked,
            error: self.error.take(),
        }
    }

    fn listen(&self) -> [EventListener; 2] {
        [self.endpoint.send_poller(), self.endpoint.recv_poller()].map(|poller| poller.listen())
    }
}

/// Resolves when nothing is outstanding or the completion queue has failed. Somebody has to poll
/// meanwhile, a [`PollerThread`](crate::op::PollerThread) for example. There is no time limit: dropping the
/// future destroys the queue pair.
impl<Q: QueuePair + Unpin> Future for Drain<Q> {
    type Output = Drained;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Drained> {
        loop {
            if self.advance(|_| ()) {
                return Poll::Ready(self.settle());
            }
            let listeners = self.listeners.take();
            let mut listeners = match listeners {
                Some(listeners) => listeners,
                None => {
                    self.listeners = Some(self.listen());
                    // Once more, now that nothing is missed.
                    continue;
                }
            };
            let told = listeners
                .iter_mut()
                .any(|listener| Pin::new(listener).poll(cx).is_ready());
            if !told {
                self.listeners = Some(listeners);
                return Poll::Pending;
            }
        }
    }
}

impl<Q: QueuePair> fmt::Debug for Drain<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Drain").field(&self.endpoint).finish()
    }
}
