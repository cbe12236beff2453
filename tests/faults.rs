//! Each fault that the NIC in software can be asked for, alone and in pairs, under messages, WRITEs and
//! READs of a pool's slots and of leases: bytes are intact, holds accounted for, the user is told, and it
//! ends. What was found stands in docs/faults.md, and has to be what is found:
//! `RDMA_MR_FAULTS=write cargo test --release --test faults` writes it.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "faults/ground.rs"]
mod ground;
#[path = "faults/kind.rs"]
mod kind;
#[path = "faults/link.rs"]
mod link;
#[path = "torture/random.rs"]
mod random;
#[path = "faults/rogue.rs"]
mod rogue;
mod soft_util;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/world.rs"]
mod world;

use std::time::Duration;

use fabric::Soft;
use ground::{Ground, SLOT, since, unwrap};
use kind::Kind;
use link::Link;
use rdma_mr::backend::soft::Nic;
use rdma_mr::{MrOptions, MrPool, PoolOptions, leaks};
use rogue::Rogue;
use table::Row;
use world::World;

/// Of each fault or pair. In every second one regions, leases and pools are dropped, not closed.
const SEEDS: u64 = 6;
const LINKS: usize = 3;
const POSTS: usize = 10;

const SIZE: PoolOptions = PoolOptions {
    slot_length: SLOT,
    slots_per_registration: 8,
    max_registrations: 16,
};

/// What came of one seed.
struct Outcome {
    world: World,
    struck: u64,
    leaked: (u64, u64),
}

fn case(kinds: &[Kind], seed: u64, stepped: bool) -> Outcome {
    let mut nic = Nic::builder().seed(seed).reorder(0.3);
    if stepped {
        nic = nic.stepped();
    }
    let nic = nic.build();
    let mut world = World::new(Soft::on(nic.clone()), seed);
    for kind in kinds {
        kind.arm(&nic, &mut world.random);
    }
    let before = leaks();
    let dropped = seed % 2 == 1;
    let pool = world.insist(|fabric| MrOptions::new().pool(fabric::Fabric::pd(fabric), SIZE));
    let mut ground = Ground::new(&mut world);
    let peers = kinds.iter().filter(|kind| kind.is_a_peers());
    let mut peers: Vec<Rogue> = peers.map(|kind| Rogue::new(&mut world, *kind)).collect();
    let (mut number, mut kept, mut over) = (0, 0, Vec::new());
    for _ in 0..LINKS {
        let lease = ground.lend(&mut world);
        let mut link = Link::new(&world, &pool);
        for _ in 0..POSTS {
            if link.is_broken() {
                break;
            }
            link.post(&mut world, lease.token(), number);
            number += 1;
            let steps = world.random.below(3);
            world.act(steps);
            for peer in &mut peers {
                peer.turn(&mut world);
            }
            if world.random.once_in(2) {
                link.poll(&mut world, &ground.cells);
            }
        }
        let ended = link.finish(&mut world, &mut ground.cells);
        // Their slots are used again from here on.
        std::mem::replace(&mut over, ended)
            .iter()
            .for_each(link::Op::check);
        if dropped {
            drop(lease);
        } else {
            world.insist(|_| lease.revoke());
        }
        if since(before).1 == kept {
            ground.check();
        } else {
            // The provider refused: the peers keep it, and it stays held and registered.
            kept += 1;
            assert_eq!(since(before).1, kept);
            ground = Ground::new(&mut world);
        }
    }
    over.iter().for_each(link::Op::check);
    drop(over);
    for peer in peers {
        peer.end(&mut world);
    }
    ground.end(&mut world, dropped);
    end(&mut world, pool, dropped);
    let leaked = since(before);
    if leaked != (0, 0) {
        world.found.tell("`leaks()`");
    }
    let registered = nic.stats().registrations as u64;
    assert_eq!(registered, leaked.0 + kept, "all is freed, or counted");
    Outcome {
        struck: nic.stats().faults,
        world,
        leaked,
    }
}

fn end(world: &mut World, pool: MrPool, dropped: bool) {
    assert_eq!(pool.free(), pool.slots(), "all slots have come back");
    if dropped {
        return;
    }
    let mut pool = Some(pool);
    world.insist(|_| match pool.take().expect("it came back").close() {
        Ok(()) => Ok(()),
        Err((back, error)) => {
            pool = Some(back);
            Err(unwrap(error))
        }
    });
}

/// All seeds of these faults, as a row.
fn row(kinds: &[Kind], seeds: u64, stepped: bool) -> Row {
    let mut row = Row::new(kinds.iter().map(|kind| kind.name()));
    let mut struck = 0;
    for seed in 1..=seeds {
        let case = || case(kinds, seed, stepped);
        let outcome = std::panic::catch_unwind(case);
        let outcome = outcome.unwrap_or_else(|_| panic!("{kinds:?}, seed {seed}"));
        struck = struck.max(outcome.struck);
        row.add(outcome.world.found, outcome.leaked);
    }
    let own = kinds.iter().filter(|kind| !kind.is_a_peers()).count();
    // What threads do is not the same in every run.
    assert!(
        !stepped || struck == own as u64,
        "{kinds:?}: {struck} happened"
    );
    row
}

fn all() -> Vec<Vec<Kind>> {
    let alone = Kind::ALL.iter().map(|kind| vec![*kind]);
    let pairs = Kind::ALL.iter().enumerate().flat_map(|(at, one)| {
        let others = Kind::ALL[at + 1..].iter();
        others.map(|other| vec![*one, *other])
    });
    [vec![]].into_iter().chain(alone).chain(pairs).collect()
}

#[test]
fn faults_alone_and_in_pairs() {
    let writes = std::env::var("RDMA_MR_FAULTS").is_ok_and(|value| value == "write");
    let mut rows = Vec::new();
    for kinds in all() {
        let mut stepped = row(&kinds, SEEDS, true);
        let threaded = row(&kinds, if writes { SEEDS } else { 1 }, false);
        stepped.time = threaded.time;
        rows.push(stepped);
    }
    assert!(rows.iter().all(|row| row.time < Duration::from_secs(10)));
    match writes {
        true => table::write("soft", &rows),
        false => table::compare("soft", &rows),
    }
}
