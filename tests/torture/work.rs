//! The threads that post, and those that poll for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rdma_mr::work::QueuePair;

use super::lane::{Group, Lane, Style, poll_shared};
use super::random::Random;
use super::report::{count, fail, lock};
use super::{Role, Victim, World, peers, raw, tasks};

const LANES: usize = 5;

/// Polls the shared queue and the one of the futures, until `stop`.
pub fn poll<F: Victim>(world: &World<F>, stop: &AtomicBool) {
    let polling = world.tasks.spawn("futures").unwrap();
    while !stop.load(Ordering::SeqCst) {
        poll_shared(world, Some(Duration::from_millis(2)));
    }
    if let Err(error) = polling.stop() {
        fail(error);
    }
}

/// Who works still, and what is asked of them.
#[derive(Default)]
pub struct Working {
    count: AtomicUsize,
    stop: AtomicBool,
    describe: AtomicBool,
}

impl Working {
    pub fn start(&self) -> AtWork<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        AtWork(self)
    }

    pub fn is_anybody(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Asks for a description of queue pairs.
    pub fn describe(&self) {
        self.describe.store(true, Ordering::SeqCst);
    }
}

/// One who works, until it is dropped.
pub struct AtWork<'a>(&'a Working);

impl AtWork<'_> {
    pub fn goes_on(&self) -> bool {
        !self.0.stop.load(Ordering::SeqCst)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            fail("a thread has panicked");
        }
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Worker<'w, F: Victim> {
    world: &'w World<F>,
    lanes: Vec<Lane<F>>,
    group: Group<F>,
    random: Random,
}

/// Posts at random until it is time, then ends all that it has made.
pub fn work<F: Victim>(world: &World<F>, random: Random, at_work: &AtWork<'_>) {
    let mut worker = Worker {
        world,
        lanes: Vec::new(),
        group: Group::new(world),
        random,
    };
    while at_work.goes_on() {
        worker.step();
        if at_work.0.describe.load(Ordering::SeqCst) {
            let ends = worker.lanes.iter().flat_map(|lane| &lane.ends);
            ends.for_each(|end| println!("{:?}", end.endpoint));
            println!("{:?}", worker.group.recvs);
            thread::sleep(Duration::from_secs(1));
        }
    }
    let Worker {
        lanes,
        group,
        mut random,
        ..
    } = worker;
    for lane in lanes {
        lane.end(world, &mut random);
    }
    group.end(world);
}

impl<F: Victim> Worker<'_, F> {
    fn step(&mut self) {
        if self.lanes.len() < LANES {
            self.add();
        }
        match self.random.below(1000) {
            0 if self.random.once_in(4) => self.renew_group(),
            1 => self.world.fabric.trouble(self.world.role, &mut self.random),
            4..8 => self.world.pool.replace(&mut self.random),
            13..25 => self.world.pool.rotate(self.world.role, &mut self.random),
            8..13 if self.world.role == Role::Plain => match self.random.below(4) {
                0 => raw::by_wr_id(self.world, &mut self.random),
                1 => raw::by_rings(self.world, &mut self.random),
                2 => peers::round(self.world, &mut self.random),
                _ => tasks::round(self.world, &mut self.random),
            },
            _ => self.use_lane(),
        }
    }

    fn use_lane(&mut self) {
        let at = self.random.below(self.lanes.len());
        let (world, random) = (self.world, &mut self.random);
        let lane = &mut self.lanes[at];
        let what = match lane.style {
            // For the completions to pile up.
            Style::Narrow => random.below(85),
            _ => random.below(100),
        };
        // Nothing came of it if somebody has the regions.
        let _ = match what {
            0..28 => lane.recv(world, random),
            28..32 => lane.recv_list(world, random),
            32..62 => lane.send(world, random),
            62..68 => lane.send_list(world, random),
            68..71 if lane.style == Style::SharedRecv => self.group.recv(world, random),
            71 if random.once_in(25) => {
                count("failure queue pair to ERR");
                let end = &lane.ends[random.below(2)];
                let _ = end.endpoint.qp().modify_to_error();
                lane.left = lane.left.min(random.below(30));
                Some(())
            }
            74 if random.once_in(3) => lane.fill(world, random),
            72 | 73 => {
                poll_shared(world, None);
                Some(())
            }
            84 if random.once_in(4) => {
                thread::sleep(Duration::from_micros(random.below(200) as u64));
                Some(())
            }
            _ => {
                lane.poll(world);
                Some(())
            }
        };
        if lane.has_failed() {
            // What is posted from here on may never complete (R16).
            lane.left = lane.left.min(random.below(20));
        }
        if lane.left == 0 {
            self.lanes.swap_remove(at).end(world, random);
        } else {
            lane.left -= 1;
        }
    }

    fn add(&mut self) {
        let style = self.random.pick(&[
            Style::Own,
            Style::Own,
            Style::Split,
            Style::Shared,
            Style::Shared,
            Style::SharedRecv,
            Style::SharedRecv,
            Style::Narrow,
        ]);
        let lane = Lane::new(self.world, style, &self.group, &mut self.random);
        let mut hubs = lock(&self.world.hubs);
        hubs.retain(|hub| hub.strong_count() > 0);
        let alone = lane.ends.iter().filter(|end| end.alone);
        hubs.extend(alone.map(|end| Arc::downgrade(&end.hub)));
        drop(hubs);
        self.lanes.push(lane);
    }

    /// Ends the shared receive queue, after those that take from it.
    fn renew_group(&mut self) {
        let shares = |lane: &Lane<F>| lane.style == Style::SharedRecv;
        while let Some(at) = self.lanes.iter().position(shares) {
            let lane = self.lanes.swap_remove(at);
            lane.end(self.world, &mut self.random);
        }
        let old = std::mem::replace(&mut self.group, Group::new(self.world));
        old.end(self.world);
    }
}
