//! Keys that change under load, on any fabric: two threads of operations, two that read keys, and one
//! that rotates.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, QueuePair};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess};

use crate::fabric::Fabric;

/// Rotates that often. No operation fails, and no pair of keys is seen that was never in force.
pub fn run<F: Fabric>(fabric: &F, rotations: usize) {
    let mr = fabric.region(&[7; 64]);
    let stop = AtomicBool::new(false);
    let going = || !stop.load(Ordering::Relaxed);
    let seen = Mutex::new(HashSet::new());
    let mut in_force = HashSet::from([mr.get_inner().keys()]);
    std::thread::scope(|scope| {
        let (mr, going, seen) = (&mr, &going, &seen);
        for write in [false, true] {
            let (mut a, mut b) = fabric.pair(QpCaps::default());
            let mut other = fabric.alloc(64);
            scope.spawn(move || {
                let mut rounds = 0;
                while going() {
                    // The bytes go round: into the other region, or back from there.
                    other.as_mut_slice().fill(7);
                    let (from, to) = if write { (&other, mr) } else { (mr, &other) };
                    message(&mut a, &mut b, from, to);
                    rounds += 1;
                }
                assert!(rounds > 0);
            });
            scope.spawn(move || {
                let mut mine = HashSet::new();
                while going() {
                    let inner = mr.read_inner();
                    mine.insert((inner.lkey(), inner.rkey()));
                    mine.insert(mr.get_inner().keys());
                    assert_eq!((inner.addr(), inner.length()), (mr.addr(), 64));
                }
                seen.lock().unwrap().extend(mine);
            });
        }
        for rotation in 0..rotations {
            mr.rotate_keys().unwrap();
            in_force.insert(mr.get_inner().keys());
            if rotation % 16 == 0 {
                mr.retire().unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_subset(&in_force), "keys of two registrations");
    assert!(seen.len() > 1, "nobody saw them change");
    mr.retire().unwrap();
    assert_eq!(mr.registrations(), 1);
    assert_eq!(*mr.as_slice(), [7; 64]);
}

/// One message, waited for at both ends.
fn message<Q: QueuePair>(a: &mut Endpoint<Q>, b: &mut Endpoint<Q>, from: &LocalMr, to: &LocalMr) {
    let mut over = 0;
    b.recv(to.begin_write().unwrap()).unwrap();
    a.send(from.begin_read().unwrap(), None).unwrap();
    while over < 2 {
        for end in [&mut *a, &mut *b] {
            end.poll(|done| {
                assert!(done.status.is_success(), "{done:?}");
                over += 1;
            })
            .unwrap();
        }
    }
}
