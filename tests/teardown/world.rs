//! One of each, made afresh, and taken down one by one; and what must be true after each step.

use std::sync::{Arc, Weak};

use rdma_mr::op::{Begin, Endpoint, Hold};
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, Error, Leaks, Lease, LocalMr, MrToken, leaks};

use crate::fabric::Fabric;
use crate::ledger::{Bytes, Ledger};
use crate::peers::{CAPS, CQ, Peers};
use crate::place::{Expected, LENGTH, Place};
use crate::watched::Watched;

/// What is taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// What is left of a region after the split; or a pool.
    Region,
    /// What was split from it; or a slot of the pool.
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

/// Of what the hold and the lease are. Both on the same one read, else they write.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pool: bool,
    life: Life,
    held: usize,
    lent: usize,
}

impl Way {
    const fn region(life: Life, held: usize, lent: usize) -> Self {
        Way {
            pool: false,
            life,
            held,
            lent,
        }
    }

    const fn pool(life: Life, held: usize) -> Self {
        Way {
            pool: true,
            life,
            held,
            lent: 1,
        }
    }

    fn writes(self) -> bool {
        self.held != self.lent
    }
}

pub const WAYS: [Way; 9] = [
    Way::region(Life::Begun, 0, 1),
    Way::region(Life::Number, 1, 0),
    Way::region(Life::Posted, 0, 1),
    Way::region(Life::Posted, 1, 0),
    Way::region(Life::Begun, 1, 1),
    Way::region(Life::Number, 0, 0),
    Way::pool(Life::Begun, 0),
    Way::pool(Life::Posted, 0),
    Way::pool(Life::Number, 1),
];

/// A hold in one of its lives.
enum Held {
    Hold(Hold),
    Number(u64),
    Posted,
}

pub struct World<F: Fabric> {
    way: Way,
    /// The region and its part, or the pool and its slot.
    places: [Option<Place>; 2],
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
    stale: Option<MrToken>,
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
        let bytes = |length| Bytes::new(&ledger, length, !hasty);

        // Nobody receives it: it is outstanding as long as the queue pair is there.
        let sent = LocalMr::register(&pd, bytes(LENGTH)).unwrap();
        qp.send(sent.begin_read().unwrap(), None).unwrap();
        drop(sent);

        let places = match way.pool {
            true => Place::pool_and_slot(&pd),
            false => Place::region_and_part(&pd, bytes(2 * LENGTH), way.lent == 0),
        };
        let hold = match (places[way.held].begin(way.writes()), way.life) {
            (hold, Life::Begun) => Held::Hold(hold),
            (hold, Life::Number) => Held::Number(hold.into_wr_id()),
            (hold, Life::Posted) => {
                qp.recv(hold).unwrap();
                Held::Posted
            }
        };
        let lease = places[way.lent].lease(match way.writes() {
            true => Access::REMOTE_WRITE,
            false => Access::REMOTE_READ,
        });
        World {
            way,
            places: places.map(Some),
            hold: Some(hold),
            lease: Some(lease),
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
            Region | Part => drop(self.places[object as usize].take()),
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
            Region | Part => return self.close_place(object as usize),
            Object::Lease => self.revoke(),
            Qp => {
                let closed = self.qp.take().map(Endpoint::close);
                assert!(matches!(closed, Some(Ok(()))));
            }
            _ => self.drop(object),
        }
        true
    }

    fn close_place(&mut self, at: usize) -> bool {
        let place = self.places[at].take().unwrap();
        let expected = self.expected(at);
        if matches!(place, Place::Slot(_)) {
            return true; // dropped
        }
        let may_close = expected.may_close();
        if may_close {
            self.ledger.refuse_once();
        }
        let Err((place, error)) = place.close() else {
            panic!("it had to be refused");
        };
        assert!(place.had_to_refuse(expected, &error), "{error:?}");
        place.check(expected);
        if may_close {
            drop(place.begin(true)); // good for all that it was
            place.close().map_err(|(_, error)| error).unwrap();
        } else {
            self.places[at] = Some(place);
        }
        may_close
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
        self.places[at].is_some() || self.is_held(at)
    }

    fn expected(&self, at: usize) -> Expected {
        let held = self.is_held(at);
        Expected {
            held,
            written: held && self.way.writes(),
            other: self.lives(1 - at),
        }
    }

    /// What is there is usable, what is gone has come to its end, and nothing has that should not.
    pub fn check(&mut self) {
        let memory = self.lives(0) || self.lives(1);
        let alive = [memory, self.qp.is_some(), self.lease.is_some()].map(usize::from);
        assert_eq!(self.ledger.registered(), alive.iter().sum::<usize>());
        // A pool has memory of its own.
        let alive = alive[1] + if self.way.pool { 0 } else { alive[0] };
        assert_eq!(self.ledger.in_use(), alive);
        for (at, place) in self.places.iter().enumerate() {
            if let Some(place) = place {
                place.check(self.expected(at));
            }
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
