//! Slots of a pool that are taken and given back in every way, also under operations, while it grows and its
//! keys change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdma_mr::gate::ReadBias;
use rdma_mr::op::{Begin, Hold};
use rdma_mr::{
    Error, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions, MrPool, PoolOptions,
    PooledMr,
};
use shuttle::future::block_on;
use shuttle::thread::yield_now;

use crate::run::{chance, explore};
use crate::transfers::{Work, threads};
use crate::world::{World, impatient, some_day};

const SLOTS: usize = 2;

/// A pool, and whose each slot is.
struct Slots {
    pool: MrPool,
    /// By their addresses, those that somebody has. Never locked over a turn.
    had: Mutex<HashSet<usize>>,
}

impl Slots {
    /// One, in one of the ways that there are; `None` if that did not get one.
    fn take(&self) -> Option<PooledMr> {
        let slot = match chance(6) {
            0 => self.pool.try_take(),
            1 => match self.pool.take_until(some_day()) {
                Err(Error::PoolEmpty { .. }) => None,
                slot => Some(slot.unwrap()),
            },
            2 => Some(self.pool.take_with(yield_now).unwrap()),
            3 => Some(block_on(self.pool.take_async()).unwrap()),
            4 => block_on(impatient(self.pool.take_async(), chance(5))).map(Result::unwrap),
            _ => Some(self.pool.take().unwrap()),
        }?;
        let new = self.had.lock().unwrap().insert(slot.addr());
        assert!(new, "two have it");
        Some(slot)
    }

    /// The slot is given up by what the caller does next.
    fn had(&self, addr: u64) {
        assert!(self.had.lock().unwrap().remove(&(addr as usize)));
    }

    fn use_up(&self, tag: u8) {
        let Some(mut slot) = self.take() else { return };
        for at in 0..8 {
            slot.as_mut_slice()[at] = tag;
            yield_now();
        }
        assert_eq!(*slot.as_slice(), [tag; 8]);
        match chance(3) {
            0 => {
                self.had(slot.addr() as u64);
                drop(slot);
            }
            // The operation ends last.
            1 => {
                let hold = slot.begin_write().unwrap();
                drop(slot);
                self.carry_out(hold, tag);
            }
            // The handle, or one of two operations.
            _ => {
                let holds = [slot.begin_read().unwrap(), slot.begin_read().unwrap()];
                let [one, two] = holds;
                drop(one);
                yield_now();
                drop(slot);
                self.carry_out(two, tag);
            }
        }
    }

    fn carry_out(&self, hold: Hold, tag: u8) {
        let at = hold.sge().addr as *const u8;
        for n in 0..8 {
            yield_now();
            // SAFETY: the hold keeps the memory, and nobody else has the slot.
            let byte = unsafe { at.add(n).read_volatile() };
            assert_eq!(byte, tag, "others were there");
        }
        self.had(hold.sge().addr);
        drop(hold);
    }
}

fn scenario() {
    let world = World::new();
    let size = PoolOptions {
        slot_length: 8,
        slots_per_registration: SLOTS,
        max_registrations: 1 + chance(2),
    };
    let slots = Arc::new(Slots {
        pool: biased().pool(&world.pd, size).unwrap(),
        had: Mutex::default(),
    });
    let mut work: Vec<Work> = Vec::new();
    for thread in 0..5 {
        let slots = Arc::clone(&slots);
        work.push((3, Box::new(move |n| slots.use_up((thread * 16 + n) as u8))));
    }
    let s = Arc::clone(&slots);
    work.push((
        2,
        Box::new(move |_| match chance(2) {
            0 => s.pool.rotate_keys().unwrap(),
            _ => match s.pool.grow() {
                Err(Error::PoolFull { .. }) => {}
                grown => grown.unwrap(),
            },
        }),
    ));
    threads(work);
    let Slots { pool, had } = Arc::into_inner(slots).unwrap();
    assert!(had.into_inner().unwrap().is_empty());
    // What somebody gave up waiting for may be on its way still.
    while pool.free() < pool.slots() {
        yield_now();
    }
    match chance(3) {
        0 => drop(pool),
        1 => pool.close().map_err(|(_, error)| error).unwrap(),
        _ => {
            // It goes before its slots, which come home on two threads.
            let all: Vec<PooledMr> = std::iter::from_fn(|| pool.try_take()).collect();
            let holds: Vec<Hold> = all.iter().map(|slot| slot.begin_read().unwrap()).collect();
            let other = shuttle::thread::spawn(move || drop(holds));
            let another = shuttle::thread::spawn(move || drop(pool));
            drop(all);
            other.join().unwrap();
            another.join().unwrap();
        }
    }
    world.end();
}

/// A slot is had by one, and its operations are over when the next one has it.
///
/// Shows: POOL-1, POOL-2.
#[test]
fn slots_come_and_go() {
    explore("slots_come_and_go", 1500, scenario);
}

/// Slots whose readers are published whenever they can be.
fn biased() -> MrOptions {
    MrOptions::new().read_bias(ReadBias {
        quiet: Duration::ZERO,
        ..ReadBias::default()
    })
}
