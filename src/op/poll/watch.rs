//! A watch over operations that take too long: for an operator, who is to learn of a completion that was lost, or
//! of a peer that does not answer, by the `wr_id` and the region that is held for it.
//!
//! Posts and completions pay nothing: once in a while somebody takes the turn to poll and looks which
//! operation is the oldest of each queue. If it is the same as long as the limit, it is told of.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::poller::Poller;
use crate::op::number::OpId;
use crate::op::queue::completer::Completer;
use crate::op::queue::look::Held;
use crate::sync::now;
use crate::trace;
use crate::work::CompletionQueue;

/// How long an operation may be the oldest of its queue before it is reported. `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Of a send queue.
    pub sends: Option<Duration>,
    /// Of a receive queue. A receive waits by nature, for as long as the peer sends nothing.
    pub recvs: Option<Duration>,
}

impl Limits {
    /// For send queues alone.
    #[must_use]
    pub const fn sends(limit: Duration) -> Self {
        Limits {
            sends: Some(limit),
            recvs: None,
        }
    }

    /// For receive queues, too.
    #[must_use]
    pub const fn and_recvs(self, limit: Duration) -> Self {
        Limits {
            recvs: Some(limit),
            ..self
        }
    }

    fn of(self, recv: bool) -> Option<Duration> {
        if recv { self.recvs } else { self.sends }
    }
}

/// An operation that has been outstanding for longer than its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overdue {
    /// Which one: its `wr_id`, and whether it is a receive.
    pub id: OpId,
    /// The queue pair's number.
    pub qp_num: u32,
    /// How long it has been seen as the oldest of its queue: it is outstanding for that long, or for longer.
    pub age: Duration,
    /// How many are outstanding on that queue, this one included.
    pub outstanding: usize,
    /// The regions that it holds; nothing if it was posted inline.
    pub held: Vec<Held>,
}

impl Overdue {
    /// Of that queue the oldest.
    fn new(queue: &Completer, id: OpId, qp_num: u32, age: Duration) -> Self {
        let oldest = queue.look(1).pop().filter(|oldest| oldest.id == id);
        Overdue {
            id,
            qp_num,
            age,
            outstanding: queue.outstanding(),
            held: oldest.map_or_else(Vec::new, |oldest| oldest.held),
        }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overdue {
            id,
            qp_num,
            age,
            outstanding,
            held,
        } = self;
        let kind = if id.is_recv() { "receive" } else { "send" };
        write!(
            f,
            "{kind} {:#x} of queue pair {qp_num:#x} is outstanding for {age:?}, with {} behind it: {held:?}",
            id.wr_id(),
            outstanding.saturating_sub(1),
        )
    }
}

/// A watch over the queues of one poller. Made by [`Poller::watch`]; it does something when it is told to
/// [`look`](Self::look), or in a thread that [polls](Poller::spawn_watched).
///
/// Watched is the oldest operation of each queue: what is behind it on a send queue ends with it or after it. A
/// receive that ends before an older one does not make that one younger. The age is from when an operation was first
/// seen as the oldest, so it is too small by the time between two looks at most, and by the time during which it
/// was not the oldest. Receives of a [`SharedRecv`](crate::op::SharedRecv) have no order, and are not watched.
///
/// ```
/// use std::time::Duration;
/// use rdma_mr::backend::soft::{Nic, QueuePair};
/// use rdma_mr::op::{Begin, Endpoint, Limits};
/// use rdma_mr::work::QpCaps;
/// use rdma_mr::{LocalMr, MrAccess};
///
/// # let nic = Nic::builder().stepped().build(); // which does nothing by itself
/// # let pd = nic.alloc_pd();
/// # let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
/// # let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
/// # let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
/// # QueuePair::connect_pair(&a, &b)?;
/// # let mut endpoint = Endpoint::new(a);
/// # let mr = LocalMr::alloc(&pd, 64)?;
/// let mut watch = endpoint.send_poller().watch(Limits::sends(Duration::from_millis(1)));
/// let id = endpoint.send(mr.begin_read()?, None)?; // to a peer that never answers
/// watch.look(|_| unreachable!("it is seen for the first time"));
/// std::thread::sleep(Duration::from_millis(2));
/// watch.look(|overdue| {
///     assert_eq!((overdue.id, overdue.held[0].addr), (id, mr.addr()));
///     println!("{overdue}");
/// });
/// watch.look(|_| unreachable!("it was reported"));
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct Watch<C: CompletionQueue> {
    poller: Poller<C>,
    limits: Limits,
    /// By the queue pair's number and whether it is the receive queue.
    seen: HashMap<(u32, bool), Seen>,
}

/// The oldest operation of a queue.
struct Seen {
    id: OpId,
    since: Instant,
    told: bool,
    /// In which look it was seen last.
    look: Instant,
}

impl Seen {
    fn new(id: OpId, look: Instant) -> Self {
        Seen {
            id,
            since: look,
            told: false,
            look,
        }
    }

    /// In this look it is that one. Its age, if it is to be told of now.
    fn again(&mut self, id: OpId, look: Instant, limit: Duration) -> Option<Duration> {
        if self.id != id {
            *self = Seen::new(id, look);
        }
        self.look = look;
        let age = look.duration_since(self.since);
        let is_due = age >= limit && !self.told;
        self.told |= is_due;
        is_due.then_some(age)
    }
}

impl<C: CompletionQueue> Poller<C> {
    /// A watch over what completes here; see [`Watch`].
    #[must_use]
    pub fn watch(&self, limits: Limits) -> Watch<C> {
        Watch {
            poller: self.clone(),
            limits,
            seen: HashMap::new(),
        }
    }
}

impl<C: CompletionQueue> Watch<C> {
    /// Looks, and reports what is overdue, once each: also as an event of the feature `tracing`. Waits for the
    /// turn to poll, at most for another thread's poll; O(queues). Does nothing if called by a waker from inside of
    /// this poller's poll.
    pub fn look(&mut self, mut report: impl FnMut(Overdue)) {
        let Some(turn) = self.poller.turns().take() else {
            return;
        };
        let look = now();
        let mut overdue = Vec::new();
        for (qp_num, queue) in turn.queues() {
            let recv = queue.ring().numbers().is_recv();
            let (Some(limit), Some(id)) = (self.limits.of(recv), queue.oldest()) else {
                continue;
            };
            let new = Seen::new(id, look);
            let seen = self.seen.entry((qp_num, recv)).or_insert(new);
            if let Some(age) = seen.again(id, look, limit) {
                overdue.push(Overdue::new(queue, id, qp_num, age));
            }
        }
        drop(turn);
        self.seen.retain(|_, seen| seen.look == look);
        for one in overdue {
            trace::overdue(one.id.wr_id(), one.qp_num, one.age, &one.held);
            report(one);
        }
    }

    /// How often to look: four times in the shorter limit, at least each millisecond; `None` if there is no limit.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        let Limits { sends, recvs } = self.limits;
        let shorter = sends.into_iter().chain(recvs).min()?;
        Some((shorter / 4).max(Duration::from_millis(1)))
    }
}

impl<C: CompletionQueue> fmt::Debug for Watch<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("limits", &self.limits)
            .field("poller", &self.poller)
            .finish_non_exhaustive()
    }
}
