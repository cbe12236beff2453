//! What the threads share that torture one device, and the account at the end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rdma_mr::op::{Begin, Hold, Poller};
use rdma_mr::work::RemoteAddr;
use rdma_mr::{Leaks, LocalMr, LocalMrReadAccess};

use super::hub::Hub;
use super::random::Random;
use super::record::{Counter, Record, Remote};
use super::region::Pool;
use super::report::{count, fail, lock, mismatch};
use super::shared::Boards;
use super::{Role, Victim};
use crate::fabric::remote;

/// Where the integer is that all add to.
const COUNTER: u64 = 8;

pub struct World<F: Victim> {
    pub role: Role,
    pub pool: Pool<F::Pd>,
    /// On a device that refuses nothing.
    pub boards: Option<Boards>,
    pub counter: Arc<Counter>,
    /// Held by the first until the end: the peers may write it.
    integers: (Hold, LocalMr),
    /// For endpoints that share it.
    pub poller: Poller<F::Cq>,
    pub hub: Arc<Hub>,
    /// For futures.
    pub tasks: Poller<F::Cq>,
    /// Where operations are that were leaked.
    leaked: Mutex<Vec<Arc<Hub>>>,
    /// Registrations of the peer's holds that were never given back.
    kept: Mutex<BTreeSet<u64>>,
    pub hubs: Mutex<Vec<Weak<Hub>>>,
    pub fabric: F,
}

impl<F: Victim> World<F> {
    pub fn new(role: Role, fabric: F, random: &mut Random) -> Self {
        // SAFETY: REMOTE-1, REMOTE-2: it is looked at when all queue pairs are gone.
        let integers = unsafe { fabric.open_to_peers(&[0; 64]) };
        World {
            role,
            pool: Pool::new(fabric.pd(), random),
            boards: (role == Role::Plain).then(|| Boards::new(fabric.pd())),
            counter: Arc::default(),
            integers: (integers.begin_write().unwrap(), integers),
            poller: Poller::new(fabric.cq(8192)),
            hub: Arc::default(),
            tasks: Poller::new(fabric.cq(8192)),
            leaked: Mutex::default(),
            kept: Mutex::default(),
            hubs: Mutex::default(),
            fabric,
        }
    }

    pub fn counter_addr(&self) -> RemoteAddr {
        let RemoteAddr { addr, rkey } = remote(&self.integers.1);
        let addr = addr + COUNTER;
        RemoteAddr { addr, rkey }
    }

    /// Operations of this hub have been leaked.
    pub fn leaks(&self, hub: &Arc<Hub>) {
        let mut leaked = lock(&self.leaked);
        if !leaked.iter().any(|known| Arc::ptr_eq(known, hub)) {
            leaked.push(Arc::clone(hub));
        }
    }

    /// The peers may go on to use these for ever.
    pub fn keep(&self, holds: Vec<Remote>) {
        for Remote { memory, hold } in holds {
            count("end kept a hold for ever");
            lock(&self.kept).insert(memory);
            std::mem::forget(hold);
        }
    }

    /// For people, when nothing moves.
    pub fn describe(&self) {
        println!("{:?}, shared:\n{}", self.role, self.hub.describe());
        for hub in lock(&self.hubs).iter().filter_map(Weak::upgrade) {
            println!("one of its own:\n{}", hub.describe());
        }
        for region in self.pool.all() {
            if let Some(handle) = region.handle() {
                println!("{:?}", handle.mr());
            }
        }
    }

    /// Checks what is left of one device, and gives the holds that were leaked, and the registrations
    /// that are there without one.
    fn account(self) -> (u64, Vec<u64>) {
        self.fabric.calm();
        let mut held = self.kept.into_inner().unwrap();
        let mut holds = 0;
        let leaked = self.leaked.into_inner().unwrap();
        let any_leaked = !leaked.is_empty();
        if any_leaked && self.role == Role::Plain {
            fail("something was leaked on a device that refuses nothing");
        }
        for hub in leaked.into_iter().chain([Arc::clone(&self.hub)]) {
            let mut table = hub.table();
            if !table.open.is_empty() {
                drop(table);
                fail(format_args!("not ended:\n{}", hub.describe()));
                continue;
            }
            // The shared one may be in the list.
            for (_, record) in table.leaked.drain() {
                holds += record.words;
                held.extend(memories(&record));
            }
        }
        for region in self.pool.all() {
            let Some(handle) = region.handle() else {
                continue;
            };
            let state = handle.mr().state();
            if !state.is_free() && !held.contains(&region.book.memory) {
                fail(format_args!("held at the end: {:?}", handle.mr()));
            }
            drop(handle);
            if !held.contains(&region.book.memory) {
                region.must_have_one_registration();
            }
            region.look("at the end");
        }
        self.pool.clear();
        drop(self.boards);
        let live = self.pool.ledger.live();
        let lost = held.iter().filter(|memory| !live.contains_key(memory));
        if lost.count() > 0 {
            fail("memory was freed that is held");
        }
        let unheld: Vec<u64> = live
            .iter()
            .filter(|(memory, _)| !held.contains(memory))
            .map(|(_, entry)| entry.length)
            .collect();

        let (hold, integers) = self.integers;
        // The integer alone: somebody may add to it still, if a queue pair was leaked.
        let at = integers.as_ptr_unchecked().wrapping_add(COUNTER as usize);
        // SAFETY: PTR-1: by atomics only; aligned, and inside of the region.
        let counter = unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) };
        self.counter.check(counter.load(Ordering::SeqCst));
        if any_leaked {
            std::mem::forget(hold);
        } else {
            drop(hold);
            let bytes = integers.as_slice();
            let beside = bytes.iter().enumerate().filter(|(at, _)| at / 8 != 1);
            if beside.clone().any(|(_, byte)| *byte != 0) {
                mismatch("bytes beside the counter have changed");
            }
        }
        drop(integers);
        // Those that were retired and could not be ended may be there, or not.
        let most: usize = live.values().map(|entry| entry.registrations).sum();
        let integers = usize::from(any_leaked);
        let expected = live.len() + integers..=most + integers;
        let registered = self.fabric.registrations();
        if registered.is_some_and(|registered| !expected.contains(&registered)) {
            fail(format_args!(
                "{registered:?} registrations, not {expected:?}"
            ));
        }
        println!(
            "{:?}: {holds} holds leaked, {} registrations held by them or kept, {} refused to end",
            self.role,
            held.len(),
            unheld.len()
        );
        (holds, unheld)
    }
}

/// The registrations that the operation holds.
fn memories(record: &Record) -> impl Iterator<Item = u64> {
    let regions = record.to.iter().flat_map(|to| to.regions());
    let from = record.from.iter().filter(|_| record.words > 0);
    regions.chain(from).map(|region| region.book.memory)
}

/// Compares what was leaked since with what the devices say.
pub fn account<F: Victim>(worlds: Vec<World<F>>, before: Leaks) {
    let (mut holds, mut unheld) = (0, Vec::new());
    for world in worlds {
        let (leaked, registrations) = world.account();
        holds += leaked;
        unheld.extend(registrations);
    }
    let now = rdma_mr::leaks();
    let reported = now.holds - before.holds;
    if reported != holds {
        fail(format_args!(
            "{reported} leaked holds are reported, there are {holds}"
        ));
    }
    let reported = (
        now.registrations - before.registrations,
        now.bytes - before.bytes,
    );
    let there = (unheld.len() as u64, unheld.iter().sum::<u64>());
    if reported != there {
        fail(format_args!(
            "leaked registrations and bytes: {reported:?} are reported, there are {there:?}"
        ));
    }
}
