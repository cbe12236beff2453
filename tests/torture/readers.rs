//! Who looks at the bytes meanwhile, and writes them by the CPU.

use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::LocalMrReadAccess;

use super::holds::poll_some;
use super::random::Random;
use super::report::{count, mismatch};
use super::work::AtWork;
use super::{Victim, World, forget};

pub fn run<F: Victim>(world: &World<F>, mut random: Random, at_work: &AtWork<'_>) {
    while at_work.goes_on() {
        look(world, &mut random);
        if let (Some(boards), true) = (&world.boards, random.once_in(4)) {
            boards.look(&mut random);
        }
        if random.once_in(50) {
            world.pool.rotate(world.role, &mut random);
        }
        if random.once_in(8) {
            thread::sleep(Duration::from_micros(random.below(300) as u64));
        }
    }
}

fn look<F: Victim>(world: &World<F>, random: &mut Random) -> Option<()> {
    let region = world.pool.any(random)?;
    if random.once_in(6) {
        region.overwrite(random)?;
        count("reader wrote");
        return Some(());
    }
    let handle = region.handle()?;
    let mr = handle.mr();
    let soon = Instant::now() + Duration::from_micros(random.below(400) as u64);
    let guard = match random.below(4) {
        0 => mr.as_slice_until(soon).ok()?,
        1 => {
            let mut future = Box::pin(mr.as_slice_async());
            let guard = poll_some(future.as_mut(), 1 + random.below(5));
            if guard.is_none() && random.once_in(2) {
                forget(future);
            }
            guard?
        }
        _ => mr.try_as_slice()?,
    };
    region.book.look(&guard, "to a reader");
    count("reader looked");
    if random.once_in(4) {
        let before = guard.to_vec();
        thread::sleep(Duration::from_micros(random.below(300) as u64));
        if *before != *guard {
            mismatch("bytes have changed under a guard (R1)");
        }
        count("reader looked twice");
    }
    Some(())
}
