//! Threads that read, write, post and poll at random for two seconds, on a NIC with a thread of its
//! own: whoever has bytes finds them whole (R1), whatever was dropped meanwhile (R9, R11).
#![cfg(all(feature = "soft", not(loom)))]

#[path = "torture/random.rs"]
mod random;
mod util;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use random::Random;
use rdma_mr::backend::soft::Nic;
use rdma_mr::gate::{self, ReadBias};
use rdma_mr::op::{Begin, Hold, OpId};
use rdma_mr::work::{QpCaps, RemoteAddr, SendFlags, SendOp, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};
use util::*;

/// More than one packet, so that a torn message would be seen as such.
const LENGTH: usize = 5000;
const TIME: Duration = Duration::from_secs(2);
const SHARED: usize = 6;

/// The byte that all of them are.
#[track_caller]
fn stamp(bytes: &[u8]) -> u8 {
    let first = bytes[0];
    let odd = bytes.iter().position(|byte| *byte != first);
    assert_eq!(
        odd,
        None,
        "torn: {first} before, {}",
        bytes[odd.unwrap_or(0)]
    );
    first
}

/// Regions that everybody uses. The lock is there for `&mut`, not for the NIC: holds outlive it.
type Shared = Arc<Vec<RwLock<LocalMr>>>;

fn reads(shared: &Shared, mut random: Random, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        let mr = shared[random.below(SHARED)].read().unwrap();
        match random.below(4) {
            0 => drop(mr.try_as_slice().map(|bytes| stamp(&bytes))),
            1 => drop(stamp(&mr.as_slice())),
            2 => drop(stamp(&futures_lite::future::block_on(mr.as_slice_async()))),
            _ => {
                let soon = Instant::now() + Duration::from_micros(50);
                let (one, two) = (mr.get(..LENGTH / 2).unwrap(), mr.get(LENGTH / 2..).unwrap());
                if let (Ok(one), Ok(two)) = (one.as_slice_until(soon), two.as_slice_until(soon)) {
                    assert_eq!(stamp(&one), stamp(&two));
                }
            }
        }
        count += 1;
    }
    count
}

fn writes(shared: &Shared, mut random: Random, end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        {
            let mut mr = shared[random.below(SHARED)].write().unwrap();
            let byte = random.below(256) as u8;
            let mut bytes = match random.below(3) {
                0 => mr.as_mut_slice(),
                1 => futures_lite::future::block_on(mr.as_mut_slice_async()),
                _ => match mr.try_as_mut_slice() {
                    Some(bytes) => bytes,
                    None => continue,
                },
            };
            stamp(&bytes);
            let (front, back) = bytes.split_at_mut(LENGTH / 2);
            front.fill(byte);
            thread::yield_now();
            back.fill(byte);
        }
        count += 1;
        thread::yield_now();
    }
    count
}

/// One thread with two endpoints that post to each other, and regions of its own beside the shared.
struct Poster {
    pair: Pair,
    shared: Shared,
    random: Random,
    /// Its own targets that are free, and those in flight with the stamp that they will have.
    free: Vec<LocalMr>,
    due: HashMap<OpId, (LocalMr, u8)>,
    /// Messages under way.
    sent: u64,
    /// For READs: nobody writes it.
    constant: (RemoteAddr, u8),
    over: u64,
}

impl Poster {
    /// A shared region as the source of a message, with its stamp; nobody writes it from here on.
    fn source(&mut self) -> Option<(Hold, u8)> {
        let mr = self.shared[self.random.below(SHARED)].try_read().ok()?;
        let bytes = mr.try_as_slice()?;
        let hold = mr.try_begin_read().ok()?;
        Some((hold, stamp(&bytes)))
    }

    fn message(&mut self) -> Option<()> {
        let (from, byte) = self.source()?;
        // Not waiting: the one that waits for this thread may be a writer with the lock.
        match self.random.below(3) {
            0 => {
                let mr = self.shared[self.random.below(SHARED)].try_read().ok()?;
                self.pair.b.recv(mr.try_begin_write().ok()?).ok()?;
            }
            1 => {
                // The handle is gone before the message comes.
                let mr = self.pair.alloc(LENGTH);
                self.pair.b.recv(mr.begin_write().unwrap()).ok()?;
            }
            _ => {
                let mr = self.free.pop()?;
                match self.pair.b.recv(mr.try_begin_write().unwrap()) {
                    Ok(id) => drop(self.due.insert(id, (mr, byte))),
                    Err(rejected) => {
                        drop(rejected);
                        self.free.push(mr);
                        return None;
                    }
                }
            }
        }
        self.sent += 1;
        let flags = match self.random.below(3) {
            0 => SendFlags::empty(),
            _ => SendFlags::SIGNALED,
        };
        self.send(from, flags);
        Some(())
    }

    /// Every receive has its message: what does not go now goes later.
    fn send(&mut self, mut from: Hold, mut flags: SendFlags) {
        loop {
            match self.pair.a.post(from, SendOp::Send { imm: None }, flags) {
                Ok(_) => return,
                Err(rejected) => {
                    from = rejected.value;
                    flags = SendFlags::SIGNALED;
                }
            }
            self.poll();
        }
    }

    fn read(&mut self) -> Option<()> {
        let mr = self.free.pop()?;
        let hold = mr.try_begin_write().unwrap();
        match self.pair.a.read(hold, self.constant.0) {
            Ok(id) => drop(self.due.insert(id, (mr, self.constant.1))),
            Err(rejected) => {
                drop(rejected);
                self.free.push(mr);
            }
        }
        Some(())
    }

    fn poll(&mut self) {
        let Poster {
            pair,
            free,
            due,
            sent,
            over,
            ..
        } = self;
        let mut done = |done: rdma_mr::op::Done| {
            assert_eq!(done.status, WcStatus::Success);
            *over += 1;
            if done.id.is_recv() {
                assert_eq!(done.byte_len as usize, LENGTH);
                *sent = sent.checked_sub(1).expect("a message for each receive");
            }
            if let Some((mr, byte)) = due.remove(&done.id) {
                let bytes = mr.try_as_slice().expect("released");
                assert_eq!(stamp(&bytes), byte);
                drop(bytes);
                free.push(mr);
            }
        };
        pair.a.poll(&mut done).unwrap();
        pair.b.poll(&mut done).unwrap();
    }

    fn run(mut self, end: Instant) -> u64 {
        while Instant::now() < end {
            for _ in 0..self.random.below(6) {
                let _ = match self.random.below(4) {
                    0 => self.read(),
                    _ => self.message(),
                };
            }
            self.poll();
        }
        // The last completion releases the unsignalled ones before it.
        let last = self.pair.alloc(LENGTH);
        let target = self.pair.alloc(LENGTH);
        let limit = Instant::now() + LONG;
        while self.pair.b.recv(target.try_begin_write().unwrap()).is_err() {
            self.poll();
        }
        self.sent += 1;
        self.send(last.begin_read().unwrap(), SendFlags::SIGNALED);
        while (self.pair.a.outstanding(), self.pair.b.outstanding()) != ((0, 0), (0, 0)) {
            self.poll();
            assert!(
                Instant::now() < limit,
                "{:?} {:?}",
                self.pair.a,
                self.pair.b
            );
        }
        assert!(self.due.is_empty() && self.sent == 0);
        self.over
    }
}

#[test]
fn r1_r9_r11_everybody_finds_whole_bytes() {
    let nic = Nic::builder().seed(11).reorder(0.5).build();
    let caps = QpCaps {
        max_send_wr: 16,
        max_recv_wr: 16,
        ..QpCaps::default()
    };
    let pd = nic.alloc_pd();
    let mut pairs = [(); 3]
        .map(|()| Pair::in_domain(&nic, &pd, caps))
        .into_iter();
    let alloc = || LocalMr::alloc(&pd, LENGTH).unwrap();
    // Every other one has readers beside the word, as often as can be.
    let biased = |barrier| {
        let quiet = Duration::ZERO;
        let options = MrOptions::new().read_bias(ReadBias { quiet, barrier });
        options.alloc(&pd, LENGTH).unwrap()
    };
    let nth = |n| match n % 4 {
        1 => biased(gate::Barrier::Fence),
        3 => biased(gate::Barrier::Membarrier),
        _ => alloc(),
    };
    let shared: Shared = Arc::new((0..SHARED).map(|n| RwLock::new(nth(n))).collect());
    let constant = pairs.as_slice()[0].readable(&[77; LENGTH]);
    let end = Instant::now() + TIME;
    let counts: [AtomicU64; 3] = Default::default();
    let add = |to: usize, count: u64| {
        counts[to].fetch_add(count, Ordering::Relaxed);
    };
    let posters = [0, 1, 2].map(|i| Poster {
        pair: pairs.next().unwrap(),
        shared: shared.clone(),
        random: Random(100 + i),
        free: (0..4).map(|_| alloc()).collect(),
        due: HashMap::new(),
        sent: 0,
        constant: (remote(&constant), 77),
        over: 0,
    });
    thread::scope(|scope| {
        let add = &add;
        for poster in posters {
            scope.spawn(move || add(0, poster.run(end)));
        }
        for seed in 0..2 {
            let shared = &shared;
            scope.spawn(move || add(1, reads(shared, Random(200 + seed), end)));
            scope.spawn(move || add(2, writes(shared, Random(300 + seed), end)));
        }
    });
    for mr in &*shared {
        let mr = mr.read().unwrap();
        assert!(mr.state().is_free(), "{}", mr.state());
        stamp(&mr.as_slice());
    }
    drop((shared, constant));
    assert_eq!(nic.stats().registrations, 0);
    assert!(
        counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) > 10),
        "{counts:?}"
    );
}
