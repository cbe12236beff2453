//! One of each, made afresh, and taken down one by one; and what must be true after each step.

use std::io::ErrorKind;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdma_mr::op::{Begin, Endpoint, Hold};
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, Error, Leaks, Lease, Lend, LocalMr, LocalMrReadAccess, MrAccess, leaks};

use crate::fabric::Fabric;
use crate::ledger::{Bytes, Ledger};
use crate::peers::{CAPS, CQ, Peers};
use crate::watched::Watched;

/// What is taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// What is left of a region after the split.
    Region,
    /// What was split from it.
    Part,
    /// A hold on one of them; see [`Life`].
    Hold,
    /// A lease of some bytes of one of them.
    Lease,
    /// The handle of the protection domain.
    Pd,
    /// An endpoint with a send outstanding, and the hold if that was posted.
    Qp,
    /// The handle of its completion queue.
    Cq,
    /// The handle of the device.
    Nic,
}

use Object::{Cq, Nic, Part, Pd, Qp, Region};

/// What else is to be taken down goes here and into `World::drop`, `close` and `lives`.
pub const OBJECTS: [Object; 8] = [Region, Part, Object::Hold, Object::Lease, Pd, Qp, Cq, Nic];

/// What became of the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is one.
    Begun,
    /// It is a number, as it would be posted.
    Number,
    /// The endpoint has it, for a receive. Its turn is when the message comes; if the queue pair goes
    /// before, so does it.
    Posted,
}

/// What the hold and the lease are on: both on the same one then read, else they write.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    life: Life,
    held: usize,
    lent: usize,
}

const fn way(life: Life, held: usize, lent: usize) -> Way {
    Way { life, held, lent }
}

pub const WAYS: [Way; 6] = [
    way(Life::Begun, 0, 1),
    way(Life::Number, 1, 0),
    way(Life::Posted, 0, 1),
    way(Life::Posted, 1, 0),
    way(Life::Begun, 1, 1),
    way(Life::Number, 0, 0),
];

/// A hold in one of its lives.
enum Held {
    Hold(Hold),
    Number(u64),
    Posted,
}

/// Of the region and of its part.
const LENGTH: usize = 64;

pub struct World<F: Fabric> {
    way: Way,
    /// The region and its part.
    mrs: [Option<LocalMr>; 2],
    hold: Option<Held>,
    lease: Option<Lease>,
    pd: Option<Arc<Watched<F::Pd>>>,
    qp: Option<Endpoint<F::Qp>>,
    cq: Option<F::Cq>,
    nic: Option<F::Nic>,
    peers: Option<Peers<F>>,
    /// Whether the peer tries its old key at once, and not when all is gone.
    hasty: bool,
    /// A key that is good no more, to be tried.
    stale: Option<rdma_mr::MrToken>,
    ledger: Arc<Ledger>,
    domain: Weak<F::Pd>,
}

impl<F: Fabric> World<F> {
    pub fn new(fabric: F, way: Way, hasty: bool) -> Self {
        let mine = fabric.beside();
        let cq = mine.cq(CQ);
        let mut qp = Endpoint::new(mine.qp(&cq, &cq, CAPS));
        let lender = {
            let cq = mine.cq(CQ);
            mine.qp(&cq, &cq, CAPS)
        };
        let peers = Peers::new(fabric, lender, qp.qp());

        let (nic, pd) = mine.into_parts();
        let domain = Arc::downgrade(&pd);
        let ledger = Arc::new(Ledger::default());
        let book = ledger.clone();
        let pd = Watched::new(pd, move |event| book.enter(event));
        let register = |length| {
            let bytes = Bytes::new(&ledger, length, !hasty);
            LocalMr::register(&pd, bytes).unwrap()
        };

        // Nobody receives it: it is outstanding as long as the queue pair is there.
        let sent = register(LENGTH);
        qp.send(sent.begin_read().unwrap(), None).unwrap();
        drop(sent);

        let mut region = register(2 * LENGTH);
        let part = match way.lent {
            0 => region.split_off(LENGTH),
            _ => region.split_to(LENGTH),
        };
        let mrs = [region, part.unwrap()];
        let (held, lent) = (&mrs[way.held], &mrs[way.lent]);
        let (hold, access) = if way.held == way.lent {
            (held.begin_read(), Access::REMOTE_READ)
        } else {
            (held.begin_write(), Access::REMOTE_WRITE)
        };
        let hold = match (hold.unwrap(), way.life) {
            (hold, Life::Begun) => Held::Hold(hold),
            (hold, Life::Number) => Held::Number(hold.into_wr_id()),
            (hold, Life::Posted) => {
                qp.recv(hold).unwrap();
                Held::Posted
            }
        };
        let lease = lent.lease(16..48, access, Duration::from_secs(3600));
        World {
            way,
            mrs: mrs.map(Some),
            hold: Some(hold),
            lease: Some(lease.unwrap()),
            pd: Some(pd),
            qp: Some(qp),
            cq: Some(cq),
            nic: Some(nic),
            peers: Some(peers),
            hasty,
            stale: None,
            ledger,
            domain,
        }
    }

    /// Drops it.
    pub fn drop(&mut self, object: Object) {
        match object {
            Region | Part => drop(self.mrs[object as usize].take()),
            Object::Hold => self.drop_hold(),
            Object::Lease => {
                let lease = self.lease.take();
                self.stale = lease.as_ref().map(Lease::token);
                drop(lease);
            }
            Pd => drop(self.pd.take()),
            Qp => drop(self.qp.take()),
            Cq => drop(self.cq.take()),
            Nic => drop(self.nic.take()),
        }
    }

    fn drop_hold(&mut self) {
        match self.hold.take() {
            Some(Held::Hold(hold)) => drop(hold),
            // SAFETY: WRID-1, WRID-2: that is what it is, and it is taken; WRID-3: it was not posted.
            Some(Held::Number(wr_id)) => drop(unsafe { Hold::from_wr_id(wr_id) }),
            Some(Held::Posted) => {
                if let (Some(qp), Some(peers)) = (&mut self.qp, &mut self.peers) {
                    peers.send(qp);
                }
            }
            None => {}
        }
    }

    /// Closes it as those do who want to be told: `false` if it was refused, as it had to be, and is
    /// as it was.
    pub fn close(&mut self, object: Object) -> bool {
        match object {
            Region | Part => return self.close_mr(object as usize),
            Object::Lease => self.revoke(),
            Qp => {
                let closed = self.qp.take().map(Endpoint::close);
                assert!(matches!(closed, Some(Ok(()))));
            }
            _ => self.drop(object),
        }
        true
    }

    fn close_mr(&mut self, at: usize) -> bool {
        let mr = self.mrs[at].take().unwrap();
        let may = !self.is_held(at) && !self.lives(1 - at);
        if may {
            self.ledger.refuse_once();
        }
        let (mr, error) = mr.close().expect_err("refused");
        let error = (error.kind(), error.into_inner().unwrap());
        let why = match (&error.0, error.1.downcast_ref::<Error>()) {
            (ErrorKind::WouldBlock, Some(Error::Held { state })) => {
                assert_eq!(*state, mr.state());
                self.is_held(at)
            }
            (ErrorKind::ResourceBusy, Some(Error::PartsAlive { others: 1 })) => {
                !self.is_held(at) && self.lives(1 - at)
            }
            (ErrorKind::ResourceBusy, Some(Error::Deregister(_))) => may,
            _ => false,
        };
        assert!(why, "{error:?}");
        // It is as it was.
        assert_eq!(mr.length(), LENGTH);
        let written = self.is_held(at) && self.way.held != self.way.lent;
        assert_eq!(mr.try_as_slice().is_none(), written);
        if may {
            drop(mr.begin_write().unwrap());
            let memory = mr.close().map_err(|(_, error)| error).unwrap();
            let bytes = memory.downcast::<Bytes>();
            assert!(bytes.is_ok(), "what was handed in comes back");
        } else {
            self.mrs[at] = Some(mr);
        }
        may
    }

    fn revoke(&mut self) {
        let lease = self.lease.as_ref().unwrap();
        self.ledger.refuse_once();
        let refused = lease.revoke();
        assert!(matches!(refused, Err(Error::Deregister(_))), "{refused:?}");
        assert!(!lease.is_revoked());
        self.check(); // it is in force
        let lease = self.lease.as_ref().unwrap();
        lease.revoke().unwrap();
        lease.revoke().unwrap();
        assert!(lease.is_revoked());
        self.drop(Object::Lease);
    }

    /// Whether the hold is out: one that was posted goes with the queue pair.
    fn has_hold(&self) -> bool {
        match self.hold {
            Some(Held::Posted) => self.qp.is_some(),
            Some(_) => true,
            None => false,
        }
    }

    fn is_held(&self, at: usize) -> bool {
        let (held, lent) = (self.way.held == at, self.way.lent == at);
        held && self.has_hold() || lent && self.lease.is_some()
    }

    /// Whether it is kept by its handle or by what holds it.
    fn lives(&self, at: usize) -> bool {
        self.mrs[at].is_some() || self.is_held(at)
    }

    /// What is there is usable, what is gone has come to its end, and nothing has that should not.
    pub fn check(&mut self) {
        let memory = self.lives(0) || self.lives(1);
        let alive = [memory, self.qp.is_some(), self.lease.is_some()].map(usize::from);
        assert_eq!(self.ledger.registered(), alive.iter().sum::<usize>());
        assert_eq!(self.ledger.freed(), 2 - alive[0] - alive[1]);
        for (at, mr) in self.mrs.iter().enumerate() {
            let Some(mr) = mr else { continue };
            assert_eq!(mr.state().is_free(), !self.is_held(at), "{}", mr.state());
        }
        if let Some(qp) = &self.qp {
            let posted = usize::from(matches!(self.hold, Some(Held::Posted)));
            assert_eq!(qp.outstanding(), (1, posted));
        }
        let Some(peers) = &mut self.peers else { return };
        if let Some(lease) = &self.lease {
            let used = peers.use_lease(lease.token());
            assert_eq!(used, WcStatus::Success);
        }
        if self.hasty {
            self.try_stale();
        }
    }

    /// The peer tries the key that is good no more; it has nothing more to do then.
    fn try_stale(&mut self) {
        if let (Some(peers), Some(token)) = (&mut self.peers, self.stale.take()) {
            assert_eq!(peers.use_lease(token), WcStatus::RemAccessErr);
        }
        if self.lease.is_none() && self.qp.is_none() {
            self.peers = None;
        }
    }

    /// All of it is gone.
    pub fn finish(mut self) {
        self.try_stale();
        assert!(self.peers.is_none());
        self.ledger.check();
        assert_eq!(self.domain.strong_count(), 0, "the domain is kept");
        assert_eq!((leaks(), F::leaked()), (Leaks::default(), 0));
    }
}
