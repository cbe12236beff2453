//! What grows with the number of regions, and what does not: what is done to one of 1, 10³ and 10⁶ of them,
//! that are visited in any order, as ratios to the same visits of as many words on lines of their own (who
//! visits a million lines waits for memory, whatever it does there); the same to one region while the
//! others are alive; registering and leasing beside others; and splitting, a million parts at a time.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crossbeam_utils::CachePadded;
use parking_lot::RwLock;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rdma_mr::backend::soft::{Nic, ProtectionDomain};
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;
use shapes::turns::{self, Contestant, Run, alone, contestant};
use shapes::{Locked, load, swap_in, swap_out};

const THOUSAND: usize = 1_000;
const MILLION: usize = 1_000_000;

/// Of a slot.
const BYTES: usize = 64;

fn region_of(parts: usize) -> LocalMr {
    LocalMr::alloc(&Nic::new().alloc_pd(), parts * BYTES).unwrap()
}

/// So many parts of one registration.
fn regions<const N: usize>() -> Vec<LocalMr> {
    region_of(N).chunks_of(BYTES).unwrap().collect()
}

/// A word in a place of its own, as a region is.
type Word = Box<CachePadded<AtomicU64>>;

fn words<const N: usize>() -> Vec<Word> {
    (0..N).map(|_| Word::default()).collect()
}

fn locks<const N: usize>() -> Vec<Arc<RwLock<Locked>>> {
    (0..N).map(|_| Arc::default()).collect()
}

/// Visits all in an order that nothing guesses, over and over.
fn visit<T: 'static, R>(all: Vec<T>, look: impl Fn(&T) -> R + 'static) -> Run {
    let mut order: Vec<u32> = (0..all.len() as u32).collect();
    order.shuffle(&mut SmallRng::seed_from_u64(7));
    let mut at = 0;
    alone(move |_| {
        black_box(look(black_box(&all[order[at] as usize])));
        at = if at + 1 == order.len() { 0 } else { at + 1 };
    })
}

fn two_rmws(word: &Word) {
    word.fetch_add(1, Ordering::Acquire);
    word.fetch_sub(1, Ordering::Release);
}

fn guards<const N: usize>() -> Vec<Contestant> {
    vec![
        contestant("floor: two RMWs", visit(words::<N>(), two_rmws)).baseline(),
        contestant("as_slice", visit(regions::<N>(), |mr| drop(mr.as_slice()))),
        contestant(
            "rival: parking_lot read",
            visit(locks::<N>(), |lock| drop(lock.read())),
        ),
    ]
}

fn two_swaps(word: &Word) {
    swap_in(word);
    swap_out(word);
}

fn holds<const N: usize>() -> Vec<Contestant> {
    vec![
        contestant(
            "floor: two compare_exchange",
            visit(words::<N>(), two_swaps),
        )
        .baseline(),
        contestant(
            "begin_write + drop",
            visit(regions::<N>(), |mr| drop(mr.begin_write().unwrap())),
        ),
        contestant(
            "rival: parking_lot write",
            visit(locks::<N>(), |lock| drop(lock.write())),
        ),
    ]
}

/// Of parts the keys lie in one place, of regions that were registered each by itself in as many.
fn keys<const N: usize>() -> Vec<Contestant> {
    vec![
        contestant("floor: a load", visit(words::<N>(), |word| load(word))).baseline(),
        contestant("lkey", visit(regions::<N>(), |mr| mr.lkey())),
        contestant(
            "rival: lkey under parking_lot read",
            visit(locks::<N>(), |lock| lock.read().lkey),
        ),
    ]
}

fn refusals<const N: usize>() -> Vec<Contestant> {
    let held = |mr: LocalMr| {
        std::mem::forget(mr.begin_write().unwrap());
        mr
    };
    let regions = regions::<N>().into_iter().map(held).collect();
    let locks = locks::<N>();
    locks.iter().for_each(|lock| std::mem::forget(lock.write()));
    vec![
        contestant("floor: a load", visit(words::<N>(), |word| load(word))).baseline(),
        contestant(
            "try_as_slice",
            visit(regions, |mr: &LocalMr| mr.try_as_slice().is_none()),
        ),
        contestant(
            "rival: parking_lot try_read",
            visit(locks, |lock| lock.try_read().is_none()),
        ),
    ]
}

/// One of a million, always the same.
fn hot() -> Vec<Contestant> {
    let beside = |others: Vec<LocalMr>, once: fn(&LocalMr)| {
        alone(move |_| once(black_box(&others[others.len() / 2])))
    };
    let read: fn(&LocalMr) = |mr| drop(mr.as_slice());
    let hold: fn(&LocalMr) = |mr| drop(mr.begin_write().unwrap());
    vec![
        contestant("as_slice, alone", beside(regions::<1>(), read)).baseline(),
        contestant("as_slice, of 10^6", beside(regions::<MILLION>(), read)).promised(1.25),
        contestant("begin_write, alone", beside(regions::<1>(), hold)),
        contestant("begin_write, of 10^6", beside(regions::<MILLION>(), hold)),
    ]
}

fn register(pd: &Arc<ProtectionDomain>) -> LocalMr {
    LocalMr::register(pd, vec![0; BYTES]).unwrap()
}

/// Beside so many registrations on the same NIC.
fn registering(others: usize) -> Run {
    let pd = Nic::new().alloc_pd();
    let others: Vec<LocalMr> = (0..others).map(|_| register(&pd)).collect();
    alone(move |_| {
        black_box(&others);
        drop(black_box(register(&pd)));
    })
}

fn registrations() -> Vec<Contestant> {
    vec![
        contestant("register + drop, alone", registering(0)).baseline(),
        contestant("beside 10^3", registering(THOUSAND)).promised(1.5),
        contestant("beside 10^5", registering(100 * THOUSAND)).promised(1.5),
    ]
}

/// Beside so many leases of the process.
fn leasing(others: usize) -> Run {
    let pd = Nic::new().alloc_pd();
    let regions: Vec<LocalMr> = (0..=others).map(|_| register(&pd)).collect();
    let lease = |mr: &LocalMr| {
        let hour = Duration::from_secs(3600);
        mr.lease(.., Access::REMOTE_READ, hour).unwrap()
    };
    Box::new(move |count| {
        let (one, others) = regions.split_first().unwrap();
        let others: Vec<Lease> = others.iter().map(lease).collect();
        let start = Instant::now();
        (0..count).for_each(|_| drop(black_box(lease(one))));
        let took = start.elapsed();
        drop(others);
        took
    })
}

/// The list of leases is ordered by when they expire.
fn leases() -> Vec<Contestant> {
    vec![
        contestant("lease + revoke, alone", leasing(0)).baseline(),
        contestant("beside 10^3", leasing(THOUSAND)).promised(2.0),
        contestant("beside 10^4", leasing(10 * THOUSAND)).promised(3.0),
    ]
}

/// How long that many took to make, and to drop.
type Shape = fn(usize) -> [Duration; 2];

/// Makes so many, and drops them; says how long either took.
fn there_and_back<T>(
    count: usize,
    parts: impl FnOnce() -> Box<dyn Iterator<Item = T>>,
) -> [Duration; 2] {
    let parts = parts();
    let mut all = Vec::with_capacity(count);
    let start = Instant::now();
    all.extend(parts.take(count));
    let made = start.elapsed();
    assert_eq!(all.len(), count);
    let start = Instant::now();
    drop(all);
    [made, start.elapsed()]
}

fn chunks(count: usize) -> [Duration; 2] {
    let mr = region_of(count);
    there_and_back(count, || Box::new(mr.chunks_of(BYTES).unwrap()))
}

/// What [`bytes`] has for that: parts of one allocation that share a count. They have no gates.
fn split_to(count: usize) -> [Duration; 2] {
    let mut bytes = BytesMut::zeroed(count * BYTES);
    there_and_back(count, || {
        Box::new(std::iter::repeat_with(move || bytes.split_to(BYTES)))
    })
}

fn boxes(count: usize) -> [Duration; 2] {
    let line = || Box::new(CachePadded::new(AtomicU64::new(0)));
    there_and_back(count, || Box::new(std::iter::repeat_with(line)))
}

fn both(shape: Shape) -> Run {
    Box::new(move |count| shape(count as usize).iter().sum())
}

fn splitting() -> Vec<Contestant> {
    vec![
        contestant("floor: a box of two lines", both(boxes)).baseline(),
        contestant("chunks_of, and drop", both(chunks)),
        contestant("rival: BytesMut::split_to, and drop", both(split_to)),
    ]
}

/// In seconds, to be read, and not to be relied on.
fn million() {
    println!("a million, in seconds\n     made  dropped");
    let shapes: [(&str, Shape); 3] = [
        ("chunks_of", chunks),
        ("BytesMut::split_to", split_to),
        ("boxes of two lines", boxes),
    ];
    for (name, shape) in shapes {
        let [made, dropped] = shape(MILLION).map(|took| took.as_secs_f64());
        println!("{made:>9.3} {dropped:>8.3}  {name}");
    }
}

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--test") {
        million();
    }
    turns::main(&[
        ("read guard, 1 region", guards::<1>),
        ("read guard, 10^3 regions", guards::<THOUSAND>),
        ("read guard, 10^6 regions", guards::<MILLION>),
        ("hold, 1 region", holds::<1>),
        ("hold, 10^3 regions", holds::<THOUSAND>),
        ("hold, 10^6 regions", holds::<MILLION>),
        ("lkey, 1 region", keys::<1>),
        ("lkey, 10^3 regions", keys::<THOUSAND>),
        ("lkey, 10^6 regions", keys::<MILLION>),
        ("refusal, 1 region", refusals::<1>),
        ("refusal, 10^3 regions", refusals::<THOUSAND>),
        ("refusal, 10^6 regions", refusals::<MILLION>),
        ("one region, hot", hot),
        ("registrations", registrations),
        ("leases", leases),
        ("splitting", splitting),
    ])
}
