//! Models of regions that share a registration: it ends once, after all that they did, with the last of them,
//! whichever that is. Registrations are those of `common/keys.rs`.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;

use crate::common::exhaust;
use crate::common::keys::{Keys, Pd, parking};
use loom::thread;
use rdma_mr::LocalMr;
use rdma_mr::op::Begin;

/// Two parts, one of which is used by another thread, and ends there: the one that lies where the registration
/// does. `end` is the end of the other one.
fn two_parts(name: &str, end: fn(LocalMr)) {
    exhaust(name, 3, 50, move || {
        let keys = Keys::new();
        let pd = Arc::new(Pd(Arc::clone(&keys)));
        let mut mr = parking().register(&pd, vec![0; 8]).unwrap();
        let part = mr.split_off(4).unwrap();
        let other = {
            let keys = Arc::clone(&keys);
            thread::spawn(move || use_and_drop(&keys, part))
        };
        let hold = mr.begin_read().unwrap();
        keys.use_key(&hold);
        drop(hold);
        end(mr);
        other.join().unwrap();
        assert!(keys.has_ended(0));
    });
}

fn use_and_drop(keys: &Keys, part: LocalMr) {
    let hold = part.begin_read().unwrap();
    drop(part);
    keys.use_key(&hold);
}

/// Shows: REGN-2, LOCKED-2, ROLL-4.
#[test]
fn the_last_part_ends_the_registration() {
    two_parts("the_last_part_ends_the_registration", drop);
}

/// It is refused as long as the other one is there.
/// Shows: REGN-1, REGN-2.
#[test]
fn who_closes_the_last_part_is_alone() {
    two_parts("who_closes_the_last_part_is_alone", |mr| {
        drop(mr.close());
    });
}
