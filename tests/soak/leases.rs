//! Bytes lent to peers: written and read by them, revoked, or taken back when their time has passed.

use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::lease::reap;
use rdma_mr::op::Begin;
use rdma_mr::work::RemoteAddr;
use rdma_mr::{Access, Lend, LocalMr, LocalMrReadAccess};

use super::peer::{Peers, bytes, same};
use crate::torture::random::Random;
use crate::torture::report::{count, fail, loses_answers_of};
use crate::torture::{AtWork, Victim, World};

const LENGTH: usize = 3000;
const HOUR: Duration = Duration::from_secs(3600);

pub fn work<F: Victim>(world: &World<F>, mut random: Random, at_work: &AtWork<'_>) {
    let mut peers = Peers::new(&world.fabric);
    while at_work.goes_on() {
        let before = bytes(LENGTH, &mut random);
        let lent = world.fabric.region(&before);
        for _ in 0..random.within(1..20) {
            match random.below(40) {
                0 => expired(&world.fabric, &mut peers, &lent, &mut random),
                1..8 => read(&world.fabric, &mut peers, &lent, &mut random),
                _ => written(&world.fabric, &mut peers, &lent, &mut random),
            }
        }
        end(lent);
    }
}

/// Nobody has it: all that was lent has come back.
fn end(lent: LocalMr) {
    if !lent.state().is_free() {
        fail(format_args!("held after its leases: {lent:?}"));
    }
    if let Err((_, error)) = lent.close() {
        fail(format_args!("a region is not closed: {error}"));
    }
}

fn range(random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(LENGTH);
    start..random.within(start + 1..LENGTH + 1)
}

/// Exactly these bytes change, and the region waits for the end.
fn written<F: Victim>(fabric: &F, peers: &mut Peers<F>, lent: &LocalMr, random: &mut Random) {
    let (range, mut expected) = (range(random), lent.as_slice().to_vec());
    let new = bytes(range.len(), random);
    let from = fabric.region(&new);
    let lease = match lent.lease(range.clone(), Access::REMOTE_WRITE, HOUR) {
        Ok(lease) => lease,
        Err(error) => return fail(error),
    };
    if lent.try_as_slice().is_some() {
        fail("bytes that are lent for writing can be read");
    }
    let target = RemoteAddr {
        addr: lease.token().addr(),
        rkey: lease.token().rkey(),
    };
    let arrived = peers.write(fabric, from.begin_read().unwrap(), target);
    if let Err(error) = lease.revoke() {
        fail(error);
    }
    let now = lent.as_slice();
    if arrived {
        expected[range].copy_from_slice(&new);
        count("lease written");
    } else {
        // Unspecified (R12), but not beside it.
        expected[range.clone()].copy_from_slice(&now[range]);
        count("lease cut short");
    }
    same(&expected, &now, "bytes that were lent");
}

fn read<F: Victim>(fabric: &F, peers: &mut Peers<F>, lent: &LocalMr, random: &mut Random) {
    let range = range(random);
    let to = fabric.alloc(range.len());
    let lease = match lent.lease(range.clone(), Access::REMOTE_READ, HOUR) {
        Ok(lease) => lease,
        Err(error) => return fail(error),
    };
    let from = RemoteAddr {
        addr: lease.token().addr(),
        rkey: lease.token().rkey(),
    };
    if peers.read(fabric, to.begin_write().unwrap(), from) {
        if !loses_answers_of(range.len()) {
            let lent = lent.as_slice();
            same(&lent[range], &to.as_slice(), "bytes read by a lease");
        }
        count("lease read");
    }
}

/// Its time passes while the peer has the token, which is good for nothing then.
fn expired<F: Victim>(fabric: &F, peers: &mut Peers<F>, lent: &LocalMr, random: &mut Random) {
    let (range, expected) = (range(random), lent.as_slice().to_vec());
    let from = fabric.region(&bytes(range.len(), random));
    let ttl = Duration::from_micros(random.below(1000) as u64);
    let lease = match lent.lease(range, Access::REMOTE_WRITE, ttl) {
        Ok(lease) => lease,
        Err(error) => return fail(error),
    };
    let token = lease.token();
    if random.once_in(2) {
        // The list of all leases has it.
        drop(lease);
    } else {
        thread::sleep(lease.expires().saturating_duration_since(Instant::now()));
        reap();
        if !lease.is_revoked() {
            fail("a lease is there after its time");
        }
    }
    let target = RemoteAddr {
        addr: token.addr(),
        rkey: token.rkey(),
    };
    if peers.write(fabric, from.begin_read().unwrap(), target) {
        fail("a WRITE by a lease that is over succeeds");
    }
    same(&expected, &lent.as_slice(), "bytes of a lease that is over");
    count("lease expired");
}
