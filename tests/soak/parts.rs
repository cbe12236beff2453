//! Regions that are split and joined again, written by the CPU through guards and cursors that wait, and by
//! the NIC.

use std::io::{Read, Write};

use rdma_mr::op::Begin;
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess};

use super::peer::{Peers, bytes, same};
use crate::torture::random::Random;
use crate::torture::report::{count, fail};
use crate::torture::{AtWork, Victim, World};

const LENGTH: usize = 4096;

pub fn work<F: Victim>(world: &World<F>, mut random: Random, at_work: &AtWork<'_>) {
    let mut peers = Peers::new(&world.fabric);
    while at_work.goes_on() {
        let mut expected = bytes(LENGTH, &mut random);
        let mut whole = world.fabric.region(&expected);
        for _ in 0..random.within(1..30) {
            let at = random.within(1..LENGTH);
            let split = match random.once_in(2) {
                true => whole.split_off(at),
                false => whole
                    .split_to(at)
                    .map(|front| std::mem::replace(&mut whole, front)),
            };
            let mut back = match split {
                Ok(back) => back,
                Err(error) => return fail(error),
            };
            let (front, behind) = expected.split_at_mut(at);
            change(world, &mut peers, &mut whole, front, &mut random);
            change(world, &mut peers, &mut back, behind, &mut random);
            if let Err(rejected) = whole.unsplit(back) {
                return fail(rejected.error);
            }
            same(&expected, &whole.as_slice(), "parts joined");
            count("part");
        }
        match whole.close() {
            Ok(memory) => drop(memory),
            Err((_, error)) => fail(error),
        }
    }
}

/// New bytes, by the CPU or by the NIC while the CPU waits.
fn change<F: Victim>(
    world: &World<F>,
    peers: &mut Peers<F>,
    part: &mut LocalMr,
    expected: &mut [u8],
    random: &mut Random,
) {
    let new = bytes(expected.len(), random);
    match random.below(3) {
        0 => part.as_mut_slice().copy_from_slice(&new),
        1 => {
            let written = part.as_mut_slice_cursor().write_all(&new);
            let mut read = vec![0; part.length()];
            let was_read = part.as_slice_cursor().read_exact(&mut read);
            if written.is_err() || was_read.is_err() {
                fail("a cursor ends early");
            }
            same(&new, &read, "through cursors");
        }
        _ => {
            let from = world.fabric.region(&new);
            let holds = (from.begin_read().unwrap(), part.begin_write().unwrap());
            if !peers.message(&world.fabric, holds.0, holds.1) {
                // Unspecified (R12).
                part.as_mut_slice().copy_from_slice(&new);
            }
        }
    }
    expected.copy_from_slice(&new);
}
