//! Regions on a real device: operations between two queue pairs of this process, through guards and
//! holds. `cargo xtask vm test` runs them on soft-RoCE.
#![cfg(feature = "verbs")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_mr::backend::verbs::{Context, ProtectionDomain, QueuePair};
use rdma_mr::op::Done;
use rdma_mr::prelude::*;
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{Error, MrOptions, MrToken, leaks};

type End = Endpoint<QueuePair>;

const LIMIT: Duration = Duration::from_secs(20);
const ALL: Access = Access::all();

fn pd() -> Arc<ProtectionDomain> {
    Context::open(None).unwrap().alloc_pd().unwrap()
}

fn pair(pd: &Arc<ProtectionDomain>) -> (End, End) {
    let make = || {
        let cq = pd.context().create_cq(512).unwrap();
        pd.create_qp(&cq, &cq, QpCaps::default()).unwrap()
    };
    let (a, b) = (make(), make());
    QueuePair::connect_loopback(&a, &b, None).unwrap();
    (Endpoint::new(a), Endpoint::new(b))
}

fn filled(pd: &Arc<ProtectionDomain>, access: Access, byte: u8) -> LocalMr {
    // SAFETY: REMOTE-1, REMOTE-2: each test posts the operations on these bytes itself, and looks at
    // them only after their completions.
    let options = unsafe { MrOptions::new().access(access).grant_remote_write() };
    let mut mr = options.alloc(pd, 4096).unwrap();
    mr.as_mut_slice().fill(byte);
    mr
}

fn token(mr: &impl LocalMrReadAccess) -> MrToken {
    mr.token_with_timeout(LIMIT).unwrap()
}

/// Polls until `count` operations are over.
fn finish(end: &mut End, count: usize) -> Vec<Done> {
    let mut all = Vec::new();
    let start = Instant::now();
    while all.len() < count {
        end.poll(|done| all.push(done)).unwrap();
        assert!(
            start.elapsed() < LIMIT,
            "{} of {count} completions",
            all.len()
        );
    }
    all
}

fn succeed(end: &mut End, count: usize) {
    for done in finish(end, count) {
        assert_eq!(done.status, WcStatus::Success, "{:?}", done.id);
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn a_region_is_registered_and_deregistered() {
    let pd = pd();
    let mr = LocalMr::register(&pd, vec![7u8; 10_000]).unwrap();
    assert_ne!((mr.lkey(), mr.rkey()), (0, 0));
    assert_eq!(mr.access(), Access::LOCAL_WRITE);
    let memory = mr.close().map_err(|(_, error)| error).unwrap();
    assert_eq!(memory.downcast::<Vec<u8>>().unwrap(), vec![7u8; 10_000]);

    let before = leaks();
    drop(LocalMr::alloc(&pd, 1 << 20).unwrap());
    assert_eq!(leaks(), before);
    let pd = Arc::try_unwrap(pd)
        .map_err(|_| ())
        .expect("no region keeps it");
    drop(pd);
    assert_eq!(rdma_mr::backend::verbs::leaked(), 0);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r19_what_the_provider_would_refuse_is_refused_with_its_memory() {
    let pd = pd();
    let access = Access::REMOTE_WRITE;
    let rejected = MrOptions::new().access(access).register(&pd, vec![1u8; 8]);
    let rejected = rejected.unwrap_err();
    assert!(matches!(
        rejected.error,
        Error::RemoteWithoutLocalWrite { .. }
    ));
    assert_eq!(rejected.value, [1; 8]);
    assert!(matches!(LocalMr::alloc(&pd, 0), Err(Error::ZeroLength)));
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn write() {
    let pd = pd();
    let (mut a, _b) = pair(&pd);
    let (from, to) = (filled(&pd, ALL, 3), filled(&pd, ALL, 0));
    // As if a peer had been let write: held for the NIC until the WRITE is known to be over.
    let granted = to.begin_write().unwrap();
    let target = token(&to).target(100..200, Access::REMOTE_WRITE).unwrap();
    a.write(from.get(..100).unwrap().begin_read().unwrap(), target, None)
        .unwrap();
    assert!(to.try_as_slice().is_none());
    succeed(&mut a, 1);
    drop(granted);
    let bytes = to.as_slice();
    assert!(bytes[100..200].iter().all(|byte| *byte == 3));
    assert!(
        bytes[..100]
            .iter()
            .chain(&bytes[200..])
            .all(|byte| *byte == 0)
    );
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r1_as_slice_waits_for_a_read_in_flight_and_then_sees_its_bytes() {
    let pd = pd();
    let (mut a, _b) = pair(&pd);
    for round in 0..50u8 {
        let (source, into) = (filled(&pd, ALL, round + 1), filled(&pd, ALL, 0));
        let target = token(&source).target(.., Access::REMOTE_READ).unwrap();
        a.read(into.begin_write().unwrap(), target).unwrap();
        assert!(into.try_as_slice().is_none() && into.try_as_ptr().is_none());
        assert!(!into.is_readable());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| into.as_slice().to_vec());
            let start = Instant::now();
            while !into.state().waiting_shared {
                assert!(start.elapsed() < LIMIT && !waiter.is_finished());
                std::thread::yield_now();
            }
            assert!(into.try_as_slice().is_none());
            succeed(&mut a, 1);
            assert_eq!(waiter.join().unwrap(), vec![round + 1; 4096]);
        });
        assert_eq!(into.waits(), 1);
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn fetch_add_and_compare_swap() {
    let pd = pd();
    let (mut a, _b) = pair(&pd);
    let (mut counter, result) = (filled(&pd, ALL, 0), filled(&pd, ALL, 0));
    counter.as_mut_slice()[8..16].copy_from_slice(&41u64.to_ne_bytes());
    let granted = counter.begin_write().unwrap();
    let target = token(&counter)
        .target(8..16, Access::REMOTE_ATOMIC)
        .unwrap();
    let slot = result.get(..8).unwrap();
    a.fetch_add(slot.begin_write().unwrap(), target, 1).unwrap();
    succeed(&mut a, 1);
    assert_eq!(*slot.as_slice(), 41u64.to_ne_bytes());
    a.compare_swap(slot.begin_write().unwrap(), target, 42, 1000)
        .unwrap();
    succeed(&mut a, 1);
    assert_eq!(*slot.as_slice(), 42u64.to_ne_bytes());
    drop(granted);
    assert_eq!(counter.as_slice()[8..16], 1000u64.to_ne_bytes());
}
