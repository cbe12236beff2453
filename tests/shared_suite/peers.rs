//! Peers that change integers while this side looks at them.

use std::thread;

use rdma_mr::op::Begin;
use rdma_mr::registration::AtomicCap;
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, LocalMrWriteAccess, SharedMrAccess};

use super::*;
use crate::fabric::remote;

/// `n` in both halves.
fn twice(n: u64) -> u64 {
    n << 32 | n
}

pub fn r3_integers_of_a_peer_arrive_whole<F: Fabric>(fabric: &F) {
    const ROUNDS: u64 = 300;
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let mr = shared(fabric, 32);
    let target = remote(&mr.get(8..16).unwrap());
    let (mr, mut from) = (&mr, fabric.alloc(8));
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for n in 1..=ROUNDS {
                let bytes = twice(n).to_ne_bytes();
                from.as_mut_slice().copy_from_slice(&bytes);
                a.write(from.begin_read().unwrap(), target, None).unwrap();
                succeed(&mut a, 1);
            }
        });
        let (mut last, mut copy) = (0, [0; 16]);
        while last < ROUNDS {
            let seen = mr.load::<u64>(8).unwrap();
            let n = seen >> 32;
            assert_eq!(seen, twice(n), "torn");
            assert!(n >= last, "{n} after {last}");
            // Nor does a copy that is not aligned tear it.
            mr.read_into(5, &mut copy[5..]).unwrap();
            let copied = u64::from_ne_bytes(copy[8..].try_into().unwrap());
            assert_eq!(copied, twice(copied >> 32), "torn");
            assert!(last < ROUNDS || !writer.is_finished());
            last = n;
        }
        writer.join().unwrap();
    });
    assert_eq!((mr.load::<u64>(0), mr.load::<u64>(16)).0.unwrap(), 0);
}

/// Adds 1 to the integer there `rounds` times by FETCH_ADD.
fn add_by_nic<F: Fabric>(fabric: &F, mr: &SharedMr, rounds: u64) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (before, target) = (fabric.alloc(8), remote(mr));
    for _ in 0..rounds {
        a.fetch_add(before.begin_write().unwrap(), target, 1)
            .unwrap();
        succeed(&mut a, 1);
    }
}

pub fn r3_atomics_of_both_sides<F: Fabric>(fabric: &F) {
    const ROUNDS: u64 = 3000;
    let mr = &shared(fabric, 8);
    let cap = mr.atomic_cap();
    if cap != AtomicCap::Global {
        let refused =
            |result| matches!(result, Err(Error::AtomicsNotGlobal { cap: c }) if c == cap);
        assert!(refused(mr.fetch_add(0, 1)) && refused(mr.compare_swap(0, 0, 1)));
        assert_eq!(mr.load::<u64>(0).unwrap(), 0);
        // Each side by itself is another matter.
        add_by_nic(fabric, mr, ROUNDS);
        assert_eq!(mr.cpu_fetch_add(0, 1).unwrap(), ROUNDS);
        let seen = mr.cpu_compare_swap(0, ROUNDS + 1, 0).unwrap();
        assert_eq!((seen, mr.load::<u64>(0).unwrap()), (ROUNDS + 1, 0));
        return;
    }
    let done = thread::scope(|scope| {
        let nics: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| add_by_nic(fabric, mr, ROUNDS)))
            .collect();
        // Until the peers are done, in both ways.
        let mut added = 0;
        while !nics.iter().all(|nic| nic.is_finished()) {
            for _ in 0..100 {
                mr.fetch_add(0, 1).unwrap();
            }
            let seen = mr.load::<u64>(0).unwrap();
            let swapped = mr.compare_swap(0, seen, seen + 1).unwrap() == seen;
            added += 100 + u64::from(swapped);
        }
        added
    });
    assert_eq!(mr.load::<u64>(0).unwrap(), 2 * ROUNDS + done);
    assert!(done > 0);
    assert_eq!(mr.compare_swap(0, 1, 0).unwrap(), 2 * ROUNDS + done);
}
