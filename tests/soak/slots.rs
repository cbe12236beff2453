//! Slots of a pool: taken, sent from one to another, and dropped while an operation has them or not.

use std::time::Duration;
use std::time::Instant;

use rdma_mr::op::Begin;
use rdma_mr::{LocalMrReadAccess, LocalMrWriteAccess, MrOptions, PoolOptions};

use super::peer::{Peers, bytes, same};
use crate::torture::random::Random;
use crate::torture::report::{count, fail};
use crate::torture::{AtWork, Victim, World};

const LENGTH: usize = 2000;
const SIZE: PoolOptions = PoolOptions {
    slot_length: LENGTH,
    slots_per_registration: 8,
    max_registrations: 2,
};

pub fn work<F: Victim>(world: &World<F>, mut random: Random, at_work: &AtWork<'_>) {
    let fabric = &world.fabric;
    let mut peers = Peers::new(fabric);
    while at_work.goes_on() {
        let pool = match MrOptions::new().pool(fabric.pd(), SIZE) {
            Ok(pool) => pool,
            Err(error) => return fail(error),
        };
        let mut kept = Vec::new();
        for _ in 0..random.within(50..2000) {
            if !at_work.goes_on() {
                break;
            }
            let soon = Instant::now() + Duration::from_millis(20);
            let (Ok(mut from), Ok(to)) = (pool.take_until(soon), pool.take_until(soon)) else {
                count("slot not there");
                kept.clear();
                continue;
            };
            let sent = bytes(LENGTH, &mut random);
            from.as_mut_slice().copy_from_slice(&sent);
            let holds = (from.begin_read().unwrap(), to.begin_write().unwrap());
            if random.once_in(3) {
                // It goes home when the operation is over.
                drop(from);
            }
            if random.once_in(10) {
                drop(to);
                peers.message(fabric, holds.0, holds.1);
                count("slot dropped in flight");
                continue;
            }
            if peers.message(fabric, holds.0, holds.1) {
                same(&sent, &to.as_slice(), "a message in a slot");
                count("slot");
            }
            if random.once_in(4) && kept.len() < 10 {
                kept.push((sent, to));
            }
            if random.once_in(200)
                && let Err(error) = pool.rotate_keys()
            {
                fail(error);
            }
        }
        // What was kept has what it had, except for messages that did not arrive.
        for (_, slot) in &kept {
            if !slot.state().is_free() {
                fail("a slot is held that nobody uses");
            }
        }
        drop(kept);
        if pool.free() != pool.slots() {
            fail(format_args!(
                "{} of {} slots are free",
                pool.free(),
                pool.slots()
            ));
        }
        if let Err((_, error)) = pool.close() {
            fail(error);
        }
    }
}
