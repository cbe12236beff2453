//! Readers beside the word, and a NIC that writes now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::gate::{Barrier, ReadBias};
use rdma_mr::op::Begin;
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};

use super::peer::{Peers, same};
use crate::torture::random::Random;
use crate::torture::report::{count, fail, mismatch, progress};
use crate::torture::{AtWork, Victim, World};

const LENGTH: usize = 1024;
const READERS: usize = 2;

pub fn work<F: Victim>(world: &World<F>, mut random: Random, at_work: &AtWork<'_>) {
    let mut peers = Peers::new(&world.fabric);
    while at_work.goes_on() {
        let barrier = random.pick(&[Barrier::Fence, Barrier::Membarrier]);
        let quiet = Duration::from_micros(random.below(2000) as u64);
        let options = MrOptions::new().read_bias(ReadBias { quiet, barrier });
        match options.alloc(world.fabric.pd(), LENGTH) {
            Ok(table) => round(world, &mut peers, table, &mut random, at_work),
            Err(error) => return fail(error),
        }
    }
}

/// Some writes of nothing but one byte, while others look.
fn round<F: Victim>(
    world: &World<F>,
    peers: &mut Peers<F>,
    mut table: LocalMr,
    random: &mut Random,
    at_work: &AtWork<'_>,
) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..READERS {
            let mut random = Random(random.next());
            let (stop, table) = (&stop, &table);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    look(table, &mut random);
                }
            });
        }
        let end = Instant::now() + Duration::from_millis(500);
        let mut source = world.fabric.alloc(LENGTH);
        while at_work.goes_on() && Instant::now() < end {
            source.as_mut_slice().fill(random.next() as u8);
            let holds = (source.begin_read().unwrap(), table.begin_write().unwrap());
            if !peers.message(&world.fabric, holds.0, holds.1) {
                // Anything may be there: nobody is to look.
                break;
            }
            same(&source.as_slice(), &table.as_slice(), "a biased region");
            thread::sleep(Duration::from_micros(random.below(4000) as u64));
        }
        stop.store(true, Ordering::SeqCst);
    });
    table.as_mut_slice().fill(0);
    if !table.state().is_free() {
        fail(format_args!("held by nobody: {table:?}"));
    }
    if let Err((_, error)) = table.close() {
        fail(error);
    }
}

fn look(table: &LocalMr, random: &mut Random) {
    let guard = table.as_slice();
    let first = guard[0];
    if guard.iter().any(|byte| *byte != first) {
        mismatch("a biased reader sees two writes");
    }
    if random.once_in(50) {
        thread::sleep(Duration::from_micros(random.below(50) as u64));
        if guard[LENGTH - 1] != first {
            mismatch("bytes have changed under a biased reader");
        }
    }
    drop(guard);
    count("biased");
    progress();
    if random.once_in(4) {
        thread::sleep(Duration::from_micros(random.below(300) as u64));
    }
}
