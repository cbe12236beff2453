//! Two connected queue pairs, what is under way between them, and the polling of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdma_mr::Error;
use rdma_mr::op::{Endpoint, Poller, SharedRecv};
use rdma_mr::work::QpCaps;

use super::hub::Hub;
use super::observed::Observed;
use super::random::Random;
use super::record::{Inbox, Pair};
use super::report::{count, fail};
use super::{Role, Victim, World};

pub const CAPS: QpCaps = QpCaps {
    max_send_wr: 16,
    max_recv_wr: 16,
    max_send_sge: 3,
    max_recv_sge: 3,
    max_inline: 64,
};

/// Whose completions are polled by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Each end by itself.
    Own,
    /// Each end by itself, sends and receives from two queues.
    Split,
    /// With those of others, by whoever comes.
    Shared,
    /// As `Shared`; one end takes receives from a shared queue.
    SharedRecv,
    /// Each end by itself, from queues that are too small.
    Narrow,
}

/// A number for who posts.
pub fn owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub struct End<F: Victim> {
    pub endpoint: Endpoint<Observed<F::Qp>>,
    pub hub: Arc<Hub>,
    pub owner: u64,
    pub destroyed: Arc<AtomicBool>,
    /// Nobody else polls for it.
    pub alone: bool,
}

impl<F: Victim> End<F> {
    fn alone(endpoint: Endpoint<Observed<F::Qp>>, destroyed: Arc<AtomicBool>) -> Self {
        End {
            endpoint,
            hub: Arc::default(),
            owner: owner(),
            destroyed,
            alone: true,
        }
    }

    fn attached(world: &World<F>, qp: Observed<F::Qp>, destroyed: Arc<AtomicBool>) -> Self {
        let endpoint = Endpoint::attach(qp, &world.poller);
        End {
            endpoint: endpoint.map_err(|rejected| rejected.error).unwrap(),
            hub: Arc::clone(&world.hub),
            owner: owner(),
            destroyed,
            alone: false,
        }
    }
}

/// A shared receive queue.
pub struct Group<F: Victim> {
    pub recvs: SharedRecv<F::Srq, F::Cq>,
    pub owner: u64,
    pub pair: Arc<Pair>,
    pub inbox: Arc<Inbox>,
}

impl<F: Victim> Group<F> {
    pub fn new(world: &World<F>) -> Self {
        let mut recvs = SharedRecv::new(world.fabric.srq(16, 3));
        recvs.attach(&world.poller).unwrap();
        Group {
            recvs,
            owner: owner(),
            pair: Arc::new(Pair::new(world.role, false)),
            inbox: Arc::new(Inbox {
                by_imm: true,
                shared: true,
                ..Inbox::default()
            }),
        }
    }

    /// Its queue pairs are gone, those that could be destroyed.
    pub fn end(self, world: &World<F>) {
        let destroyed = match self.recvs.close() {
            Ok(()) => true,
            Err((recvs, _)) => {
                count("fault shared queue not destroyed");
                drop(recvs);
                false
            }
        };
        count("end shared queue");
        world.hub.end(self.owner, destroyed);
    }
}

pub struct Lane<F: Victim> {
    pub ends: [End<F>; 2],
    pub pair: Arc<Pair>,
    /// Messages on their way to each end.
    pub inboxes: [Arc<Inbox>; 2],
    /// How many receives of each end have a message.
    pub sent: [u64; 2],
    pub style: Style,
    /// Steps until it is ended.
    pub left: usize,
}

impl<F: Victim> Lane<F> {
    pub fn new(world: &World<F>, style: Style, group: &Group<F>, random: &mut Random) -> Self {
        let fabric = &world.fabric;
        let capacity = if style == Style::Narrow { 3 } else { 256 };
        let cq = || fabric.cq(capacity);
        let shared = || world.poller.cq().clone();
        let [a, b] = match style {
            Style::Own | Style::Narrow => [cq(), cq()].map(|cq| fabric.qp(&cq, &cq, CAPS)),
            Style::Split => [(); 2].map(|()| fabric.qp(&cq(), &cq(), CAPS)),
            Style::Shared => [shared(), shared()].map(|cq| fabric.qp(&cq, &cq, CAPS)),
            Style::SharedRecv => [
                fabric.qp(&shared(), &shared(), CAPS),
                fabric.qp_on(&shared(), group.recvs.srq(), CAPS),
            ],
        };
        fabric.connect(&a, &b);
        let ends = [a, b].map(|qp| {
            let (qp, destroyed) = Observed::new(qp);
            match style {
                Style::Own | Style::Split | Style::Narrow => {
                    End::alone(Endpoint::new(qp), destroyed)
                }
                Style::Shared | Style::SharedRecv => End::attached(world, qp, destroyed),
            }
        });
        let inbox = |at: usize| match (style, at) {
            (Style::SharedRecv, 1) => Arc::clone(&group.inbox),
            _ => Arc::default(),
        };
        count(match style {
            Style::Own => "pair own pollers",
            Style::Split => "pair two queues each",
            Style::Shared => "pair shared poller",
            Style::SharedRecv => "pair shared receive queue",
            Style::Narrow => "pair small completion queues",
        });
        Lane {
            ends,
            pair: Arc::new(Pair::new(world.role, style == Style::Narrow)),
            inboxes: [inbox(0), inbox(1)],
            sent: [0, 0],
            style,
            // Some see the rings go round many times.
            left: match random.once_in(2) {
                true => random.within(30..600),
                false => random.within(2000..20_000),
            },
        }
    }

    pub fn has_failed(&self) -> bool {
        self.pair.failed.load(Ordering::SeqCst)
    }

    /// Takes what is there of both.
    pub fn poll(&mut self, world: &World<F>) {
        for end in &mut self.ends {
            let hub = &end.hub;
            let polled = end.endpoint.poll(|done| hub.done(done));
            check(polled, world.role, self.style, &self.pair);
            if self.style == Style::Narrow {
                // A device tells of an overrun by an event.
                let wait = |poller: &Poller<F::Cq>| {
                    poller.wait(Some(Duration::ZERO), |done| hub.done(done))
                };
                let polled = wait(end.endpoint.send_poller());
                check(polled, world.role, self.style, &self.pair);
            }
        }
    }
}

/// What a poll may say.
fn check(polled: Result<usize, Error>, role: Role, style: Style, pair: &Pair) {
    match polled {
        Ok(_) => {}
        Err(Error::UnknownCompletion { .. }) if role == Role::Lossy => {
            count("told twice, released nothing");
        }
        Err(Error::Provider { .. }) if style == Style::Narrow => {
            if !pair.failed.swap(true, Ordering::SeqCst) {
                count("failure completion queue overrun");
            }
        }
        Err(error) => fail(format_args!("a poll says: {error}")),
    }
}

/// As [`Lane::poll`], for the poller of all.
pub fn poll_shared<F: Victim>(world: &World<F>, wait: Option<Duration>) {
    let done = |done| world.hub.done(done);
    let polled = match wait {
        Some(_) => world.poller.wait(wait, done),
        None => world.poller.poll_with(done),
    };
    check(polled, world.role, Style::Shared, &Pair::default());
}
