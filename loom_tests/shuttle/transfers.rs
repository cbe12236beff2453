//! Messages between regions that are read and written meanwhile, and whose keys change.

use std::sync::Arc;

use rdma_mr::LocalMr;
use rdma_mr::op::Poller;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle, yield_now};

use crate::place::{Place, WORDS};
use crate::run::{chance, explore};
use crate::world::{End, Polling, World, insist, settle};

/// Two regions of one registration: keys change for both.
pub fn places(world: &World) -> [Arc<Place>; 2] {
    let length = WORDS * 8;
    let mut source = LocalMr::alloc(&world.pd, 2 * length).unwrap();
    let target = source.split_off(length).unwrap();
    [source, target].map(Place::new)
}

/// A message from one to the other.
pub fn message((a, b): &mut (End, End), source: &Place, target: &Place) {
    let (from, tag) = source.begin_read();
    let into = target.begin_write(tag);
    insist(into, |into| b.recv(into));
    insist(from, |from| a.send(from, None));
}

/// Keys change, and the old ones are ended, in one of the ways that there are.
pub fn rotate(place: &Place) {
    let mr = place.mr.read().unwrap();
    mr.rotate_keys().unwrap();
    match chance(4) {
        0 => mr.retire().unwrap(),
        1 => mr.retire_with(yield_now).unwrap(),
        2 => block_on(mr.retire_async()).unwrap(),
        _ => drop(mr.try_retire()),
    }
}

/// What a thread does, how often, and with the number of the turn.
pub type Work = (usize, Box<dyn FnMut(usize) + Send>);

/// Runs each on a thread of its own.
pub fn threads(work: Vec<Work>) {
    let threads: Vec<JoinHandle<()>> = work
        .into_iter()
        .map(|(times, mut work)| thread::spawn(move || (0..times).for_each(&mut work)))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

pub fn look(place: &Place) {
    let _ = place.read();
}

fn scenario() {
    let world = World::new();
    let poller = Poller::new(world.cq());
    let polling = Polling::new(&world, &poller);
    let [source, target] = places(&world);
    let mut ends = world.ends(&poller);
    let of = |place: &Arc<Place>| Arc::clone(place);
    let (s, t) = (of(&source), of(&target));
    let post = move |n| {
        message(&mut ends, &s, &t);
        if n == 2 {
            settle(&[&ends.0, &ends.1]);
        }
    };
    let s = of(&source);
    let write = move |n| s.write(100 + n as u64);
    let t = of(&target);
    let overwrite = move |n| t.write(200 + n as u64);
    let (s, t) = (of(&source), of(&target));
    let read = move |n| look(if n % 2 == 0 { &s } else { &t });
    let t = of(&target);
    let read_more = move |_| look(&t);
    let (s, t) = (of(&source), of(&target));
    let change = move |n| rotate(if n % 2 == 0 { &s } else { &t });
    threads(vec![
        (3, Box::new(post)),
        (3, Box::new(write)),
        (2, Box::new(overwrite)),
        (4, Box::new(read)),
        (3, Box::new(read_more)),
        (2, Box::new(change)),
    ]);
    target.read();
    source.read();
    polling.end();
    for mr in [source, target].map(Place::into_mr) {
        assert!(mr.state().is_free(), "{}", mr.state());
        mr.retire().unwrap();
        assert_eq!(mr.registrations(), 1);
    }
    drop(poller);
    world.end();
}

/// Guards, holds, keys: whoever has the bytes finds what the last one left, whatever goes on around it.
///
/// Shows: SLICE-1, SLICEMUT-1, POST-1, POST-2.
#[test]
fn regions_are_read_whole() {
    explore("regions_are_read_whole", 1500, scenario);
}
