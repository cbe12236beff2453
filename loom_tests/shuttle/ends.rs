//! Queue pairs and regions that come to their end while the NIC is at work, and errors on the way.

use std::sync::Arc;

use rdma_mr::backend::soft::{Fault, When};
use rdma_mr::op::{Begin, Poller};
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, Error, LocalMr, LocalMrReadAccess, MrAccess, MrOptions, Rejected};
use shuttle::thread::{self, yield_now};

use crate::run::{chance, explore};
use crate::world::{End, Polling, World, some_day};

/// The end of an endpoint with work outstanding, in one of the ways that there are.
fn end(mut endpoint: End) {
    match chance(6) {
        0 => drop(endpoint),
        1 => endpoint.close().map_err(|(_, error)| error).unwrap(),
        2 => assert_eq!(endpoint.drain().until(some_day()).leaked, 0),
        3 => assert_eq!(endpoint.drain().with(|| chance(20) > 0).leaked, 0),
        4 => {
            // Somebody else polls, too.
            let _ = endpoint.poll(|_| ());
            drop(endpoint.drain());
        }
        _ => assert_eq!(endpoint.drain().finish().leaked, 0),
    }
}

/// Posts what it can; the peer may be gone. What is not posted is given back.
fn post<H>(mr: &LocalMr, posted: Result<H, Rejected<rdma_mr::op::Hold>>) {
    if let Err(Rejected { value, error }) = posted {
        let why = matches!(
            error,
            Error::QueueFull { .. } | Error::QueuePairState { .. }
        );
        assert!(why, "{error:?}");
        drop(value);
    }
    let _ = mr.state();
}

fn scenario() {
    let world = World::new();
    if chance(3) == 0 {
        let fault = Fault::Completion(WcStatus::RemOpErr);
        world.nic.inject(fault, When::Nth(1 + chance(3) as u64));
    }
    let poller = Poller::new(world.cq());
    let polling = Polling::telling(&world, &poller, |_| ());
    let source = MrOptions::new()
        .access(Access::LOCAL_WRITE | Access::REMOTE_READ)
        .register(&world.pd, vec![7; 64])
        .unwrap();
    let source = Arc::new(source);
    let target = Arc::new(LocalMr::register(&world.pd, vec![7; 64]).unwrap());
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (mut a, mut b) = world.ends(&poller);
        let (from, into) = (Arc::clone(&source), Arc::clone(&target));
        let remote = rdma_mr::work::RemoteAddr {
            addr: source.addr() as u64,
            rkey: source.rkey(),
        };
        threads.push(thread::spawn(move || {
            post(&from, a.send(from.begin_read().unwrap(), None));
            if let Ok(hold) = into.begin_write_until(some_day()) {
                post(&into, a.read(hold, remote));
            }
            for _ in 0..chance(12) {
                yield_now();
            }
            end(a);
        }));
        let into = Arc::clone(&target);
        threads.push(thread::spawn(move || {
            if let Ok(hold) = into.begin_write_until(some_day()) {
                post(&into, b.recv(hold));
            }
            drop(into);
            for _ in 0..chance(12) {
                yield_now();
            }
            end(b);
        }));
    }
    let reader = Arc::clone(&target);
    threads.push(thread::spawn(move || {
        for _ in 0..3 {
            // Whatever became of the operations: it is the same from everywhere.
            if let Ok(bytes) = reader.as_slice_until(some_day()) {
                assert_eq!(*bytes, [7; 64]);
            }
        }
    }));
    // The handles may go first.
    drop((source, target));
    for thread in threads {
        thread.join().unwrap();
    }
    polling.end();
    drop(poller);
    world.end();
}

/// What was outstanding is accounted for, whoever ends first.
///
/// Shows: COMPLETE-2, QP-4, REGION-5.
#[test]
fn all_may_end_in_the_midst() {
    explore("all_may_end_in_the_midst", 1500, scenario);
}
