//! A peer that does not keep to what it was granted.

use std::time::Duration;

use rdma_mr::op::Begin;
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};
use rdma_mr::{
    Access, Error, Lease, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess,
};

use crate::fabric::Fabric as _;
use crate::ground::at;
use crate::kind::Kind;
use crate::world::{End, Moved, World};

const PAGE: usize = 4096;

pub struct Rogue {
    kind: Kind,
    /// The queue pairs of both sides.
    ends: (End, End),
    /// What it writes from; longer than what it may write to.
    from: LocalMr,
    /// The page in the midst is lent.
    mr: LocalMr,
    lease: Lease,
    tries: usize,
    refused: usize,
    /// Posted when the lease was over, not yet polled: the NIC may have been done with them.
    late: usize,
}

impl Rogue {
    pub fn new(world: &mut World, kind: Kind) -> Self {
        let (mut from, mr) = (world.alloc(2 * PAGE), world.alloc(3 * PAGE));
        from.as_mut_slice().fill(1);
        let hour = Duration::from_secs(3600);
        let lend = || mr.try_lease(PAGE..2 * PAGE, Access::REMOTE_WRITE, hour);
        let lease = world.insist(|_| lend());
        Rogue {
            kind,
            ends: world.fabric.pair(QpCaps::default()),
            from,
            mr,
            lease,
            tries: 0,
            refused: 0,
            late: 0,
        }
    }

    /// Where it writes next, and how much.
    fn aim(&self) -> (RemoteAddr, usize) {
        let token = self.lease.token();
        if self.kind == Kind::NeverStops {
            return (at(token, 0), PAGE);
        }
        let with_key = |rkey| RemoteAddr {
            rkey,
            ..at(token, 0)
        };
        match self.tries % 6 {
            0 => (at(token, -8), 16),
            1 => (at(token, PAGE as i64 - 8), 16),
            2 => (at(token, 0), PAGE + 1),
            3 => (with_key(token.rkey() ^ 2), 8),
            4 => (with_key(self.mr.rkey()), 8),
            _ => (at(token, -(PAGE as i64)), 2 * PAGE),
        }
    }

    /// Writes, if nothing is outstanding, and sees what came of it.
    pub fn turn(&mut self, world: &mut World) -> Moved {
        let (end, _) = &mut self.ends;
        let mut ended = Vec::new();
        let polled = end.poll(|done| ended.push(done.status));
        let broken = match &polled {
            Err(Error::UnknownCompletion { .. }) | Ok(_) => false,
            Err(_) => true,
        };
        if let Err(error) = &polled {
            world.tell_error(error);
        }
        for status in &ended {
            if status.is_success() {
                assert_eq!(self.kind, Kind::NeverStops, "it has no right to that");
                if self.lease.is_revoked() {
                    self.late = self.late.checked_sub(1).expect("posted after the end");
                }
            }
            self.refused += usize::from(*status == WcStatus::RemAccessErr);
            if !status.is_success() {
                world.found.tell(format!("peer: `{status:?}`"));
            }
        }
        if broken || ended.iter().any(|status| !status.is_success()) {
            self.connect(world);
        }
        if self.ends.0.outstanding().0 == 0 {
            let (at, length) = self.aim();
            let hold = self.from.get(..length).unwrap().begin_read().unwrap();
            self.ends.0.write(hold, at, None).unwrap();
            self.tries += 1;
        }
        match ended.is_empty() && !broken {
            true => Moved::Nothing,
            false => Moved::Something,
        }
    }

    /// It comes back, whatever happens.
    fn connect(&mut self, world: &World) {
        self.ends = world.fabric.pair(QpCaps::default());
    }

    /// Takes the bytes back. It goes on until it is refused, and what it was not granted is as it was.
    pub fn end(mut self, world: &mut World) {
        if !self.lease.is_revoked() {
            let lease = &self.lease;
            world.insist(|_| lease.revoke());
        }
        self.late = self.ends.0.outstanding().0;
        let bytes = self.mr.try_as_slice().expect("revoked").to_vec();
        let refused = self.refused;
        let mut goes = 0;
        while self.refused == refused {
            goes += 1;
            assert!(goes < 10, "it is never refused");
            world.wait(|world| match self.turn(world) {
                _ if self.refused > refused => Moved::Done,
                moved => moved,
            });
            // It waits for what never comes.
            if self.refused == refused {
                self.connect(world);
            }
        }
        let after = self.mr.try_as_slice().expect("nobody holds it");
        assert!(*after == *bytes, "written after the lease was over");
        let (head, rest) = after.split_at(PAGE);
        let beside = head.iter().chain(&rest[PAGE..]);
        assert!(beside.copied().all(|byte| byte == 0), "beside the lease");
        if self.kind == Kind::Outside {
            assert!(rest.iter().all(|byte| *byte == 0), "inside, but refused");
        }
    }
}
