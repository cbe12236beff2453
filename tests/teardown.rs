//! Teardown in every order, on the NIC in software.
//!
//! `RDMA_MR_THIN=n` takes each `n`-th order only, where time is dear; `RDMA_MR_WAYS=1` takes each order in
//! each way, not one of them.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "teardown/ledger.rs"]
mod ledger;
#[path = "teardown/peers.rs"]
mod peers;
#[path = "teardown/place.rs"]
mod place;
#[path = "torture/random.rs"]
mod random;
#[path = "teardown/suite.rs"]
mod suite;
mod watched;
#[path = "teardown/world.rs"]
mod world;

use std::collections::HashSet;

use fabric::Soft;
use random::{Random, from_env};
use suite::{orders, take_down};
use world::{OBJECTS, WAYS};

suite::tests! { [] Soft }

/// Takes down one of each in every order; `closed` says which are closed.
fn in_every_order(closed: impl Fn(&mut Random) -> u64) -> usize {
    let (mut worlds, mut refused) = (0, 0);
    let all = from_env("RDMA_MR_WAYS").is_some_and(|all: u8| all != 0);
    let orders = orders().enumerate();
    for (nth, order) in orders.step_by(from_env("RDMA_MR_THIN").unwrap_or(1)) {
        let mut random = Random(nth as u64);
        let one = random.below(WAYS.len());
        for (at, way) in WAYS.into_iter().enumerate() {
            if all || at == one {
                let (closed, hasty) = (closed(&mut random), random.once_in(2));
                refused += take_down(Soft::stepped(), order, way, closed, hasty);
                worlds += 1;
            }
        }
    }
    println!("{worlds} worlds, {refused} refusals");
    refused
}

#[test]
fn r14_dropped_in_every_order() {
    assert_eq!(in_every_order(|_| 0), 0);
}

#[test]
fn r14_some_closed_in_every_order() {
    assert_ne!(in_every_order(Random::next), 0);
}

#[test]
fn the_orders_are_all_of_them() {
    let all: HashSet<_> = orders()
        .map(|order| order.map(|object| object as u8))
        .collect();
    assert_eq!(all.len(), (1..=OBJECTS.len()).product());
}
