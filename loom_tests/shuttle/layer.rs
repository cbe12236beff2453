//! All of the layer at a time: messages and operations as futures over the same regions, slots of a pool, leases,
//! keys that change, one poller for all, and the end of it while the NIC is at work.

use std::sync::Arc;
use std::time::Duration;

use rdma_mr::op::{AsyncQueuePair, Begin, Poller};
use rdma_mr::work::{RemoteAddr, SendFlags, SendOp};
use rdma_mr::{Access, Error, Lend, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, PoolOptions};
use shuttle::future::block_on;
use shuttle::thread::yield_now;

use crate::run::{chance, explore};
use crate::transfers::{look, message, places, rotate, threads};
use crate::world::{Polling, World, insist, settle};

const HOUR: Duration = Duration::from_secs(3600);

fn scenario() {
    let world = World::new();
    let poller = Poller::new(world.cq());
    // What is posted by a key that has ended fails; so does what is flushed.
    let polling = Polling::telling(&world, &poller, |_| ());
    let [source, target] = places(&world);
    let [near, far] = places(&world);
    let size = PoolOptions {
        slot_length: 8,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = Arc::new(MrOptions::new().pool(&world.pd, size).unwrap());

    let mut ends = world.ends(&poller);
    let [s, t] = [&source, &target].map(Arc::clone);
    let messages = move |n| {
        message(&mut ends, &s, &t);
        if n == 2 {
            settle(&[&ends.0, &ends.1]);
        }
    };

    // WRITEs into bytes that were lent, as futures, each over a queue pair that lasts as long as it.
    let [n, f] = [&near, &far].map(Arc::clone);
    let (a, b) = world.ends(&poller);
    let mut qp = Some((AsyncQueuePair::new(a), b));
    let leases = move |turn: usize| {
        let Some((a, _b)) = &qp else { return };
        // Written here alone: the reference wants to tell one WRITE from another.
        n.write(500 + turn as u64);
        let (from, tag) = n.begin_read();
        f.lend(tag);
        let lease = f.mr.read().unwrap().lease(.., Access::REMOTE_WRITE, HOUR);
        let lease = lease.unwrap();
        f.granted(tag);
        let remote = RemoteAddr {
            addr: lease.token().addr(),
            rkey: lease.token().rkey(),
        };
        if chance(3) == 0 {
            // Too late for the peer.
            lease.revoke().unwrap();
        }
        let write = SendOp::Write { remote, imm: None };
        match block_on(a.post(from, write, SendFlags::SIGNALED)) {
            Ok(_) => f.has_arrived(tag),
            Err(Error::OperationFailed { .. }) => qp = None,
            Err(error) => panic!("{turn}: {error:?}"),
        }
        drop(lease);
    };

    // Slots that are dropped under the messages which they receive.
    let (mut a, mut b) = world.ends(&poller);
    let p = Arc::clone(&pool);
    let slots = move |n: usize| {
        let mut from = p.take_with(yield_now).unwrap();
        from.as_mut_slice().fill(n as u8);
        let into = p.take_with(yield_now).unwrap();
        insist(into.begin_write().unwrap(), |into| b.recv(into));
        insist(from.begin_read().unwrap(), |from| a.send(from, None));
        drop(from);
        if chance(2) == 0 {
            assert_eq!(*into.as_slice(), [n as u8; 8]);
        }
    };

    let all = [source, target, near, far];
    let read = {
        let all = all.clone();
        move |_| look(&all[chance(4)])
    };
    let write = {
        let all = all.clone();
        move |n: usize| all[[0, 1, 3][chance(3)]].write(100 + n as u64)
    };
    let change = {
        let (all, pool) = (all.clone(), Arc::clone(&pool));
        move |_| match chance(3) {
            0 => pool.rotate_keys().unwrap(),
            _ => rotate(&all[chance(4)]),
        }
    };
    threads(vec![
        (3, Box::new(messages)),
        (3, Box::new(leases)),
        (3, Box::new(slots)),
        (4, Box::new(read.clone())),
        (4, Box::new(read)),
        (3, Box::new(write)),
        (2, Box::new(change)),
    ]);
    for place in all {
        look(&place);
        let mr = place.into_mr();
        assert!(mr.state().is_free(), "{}", mr.state());
    }
    // The end of a queue pair has released its slots, at the latest.
    let pool = Arc::into_inner(pool).unwrap();
    assert_eq!(pool.free(), pool.slots());
    drop(pool);
    polling.end();
    assert_eq!(poller.unknown(), 0);
    drop(poller);
    world.end();
}

/// All of it at a time.
///
/// Shows: SLICE-1, LEASE-1, POOL-1, POLLER-1.
#[test]
fn the_whole_layer() {
    explore("the_whole_layer", 500, scenario);
}
