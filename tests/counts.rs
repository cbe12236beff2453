//! What an operator sees in numbers: waits, parks, refusals, rotations. The counts are the process's, so this is
//! one test in a program of its own.
#![cfg(not(any(loom, shuttle)))]

use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::Nic;
use rdma_mr::op::Begin;
use rdma_mr::{Counts, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, counts};

/// What `what` adds to the counts.
fn during(what: impl FnOnce()) -> Counts {
    let before = counts();
    what();
    counts().since(before)
}

/// As many refusals as that, if they are counted.
fn refused(count: u64) -> Option<u64> {
    cfg!(feature = "count-refusals").then_some(count)
}

#[test]
fn each_event_is_counted_once_and_what_is_not_one_is_not() {
    let pd = Nic::new().alloc_pd();
    let mut mr = LocalMr::alloc(&pd, 64).unwrap();
    let nothing = Counts::default();
    let nothing = during(|| assert_eq!(nothing.waits, 0));
    assert_eq!((nothing.waits, nothing.parks), (0, 0));

    // What is had at once.
    let seen = during(|| {
        drop((mr.as_slice(), mr.try_as_slice()));
        drop(mr.as_mut_slice());
        drop(mr.begin_read());
    });
    assert_eq!(seen, nothing);

    // Refusals: guards and holds, shared and exclusive.
    let seen = during(|| {
        let hold = mr.begin_write().unwrap();
        assert!(mr.try_as_slice().is_none());
        assert!(mr.try_as_mut_slice().is_none());
        assert!(mr.try_begin_read().is_err());
        assert!(mr.try_begin_write().is_err());
        drop(hold);
    });
    assert_eq!(seen.refusals, refused(4));
    assert_eq!((seen.waits, seen.parks), (0, 0));

    // A thread that sleeps until its deadline.
    let hold = mr.begin_write().unwrap();
    let seen = during(|| {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(mr.as_slice_until(deadline).is_err());
    });
    assert_eq!((seen.waits, seen.refusals), (1, refused(0)));
    assert!(seen.parks >= 1);

    // One that never parks.
    let mut hold = Some(hold);
    let seen = during(|| drop(mr.as_slice_with(|| drop(hold.take()))));
    assert_eq!((seen.waits, seen.parks), (1, 0));

    // A future that registers its waker, once, however often it is polled.
    let hold = mr.begin_write().unwrap();
    let seen = during(|| {
        let mut future = pin!(mr.as_slice_async());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        assert!(future.as_mut().poll(&mut cx).is_pending());
    });
    assert_eq!((seen.waits, seen.parks), (1, 1));
    drop(hold);

    let seen = during(|| {
        mr.rotate_keys().unwrap();
        mr.rotate_keys().unwrap();
    });
    assert_eq!((seen.rotations, seen.leaks), (2, nothing.leaks));
    assert!(seen.to_string().contains("2 rotations, leaked: 0 holds"));

    // From many threads, none is lost.
    let hold = mr.begin_write().unwrap();
    let seen = during(|| {
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(mr.as_slice_until(Instant::now()).is_err());
                        assert!(mr.try_as_slice().is_none());
                    }
                });
            }
        });
    });
    assert_eq!((seen.waits, seen.refusals), (600, refused(600)));
    drop(hold);
}
