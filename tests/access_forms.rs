//! Every way to the bytes in all its forms (R18): try, wait, until a deadline, with progress, as a
//! future; for all implementors of the traits, across threads, and after a shutdown.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use futures_lite::future::{block_on, zip};
use rdma_mr::backend::soft::Nic;
use rdma_mr::gate::{Acquire, Gate, Patience, Permit, Snapshot, Writer};
use rdma_mr::op::{Begin, Done, Hold, HoldFuture};
use rdma_mr::registration::{InnerCell, Memory};
use rdma_mr::{
    Chunks, Error, GuardFuture, LocalMr, LocalMrReadAccess, LocalMrSlice, LocalMrSliceMut,
    LocalMrWriteAccess, MrConstPtr, MrCursor, MrCursorMut, MrMutPtr, MrOptions, MrReadGuard,
    MrWriteGuard, WriteInnerGuard,
};
use util::*;

/// A region that the NIC holds so that a reader waits for it.
fn written(pair: &mut Pair) -> LocalMr {
    let (from, mr) = (pair.region(&pattern(1, 64)), pair.alloc(64));
    pair.start_message(&from, &mr);
    mr
}

/// A region that the NIC holds so that a writer waits for it, and a reader does not.
fn read(pair: &mut Pair) -> LocalMr {
    let (mr, to) = (pair.region(&pattern(1, 64)), pair.alloc(64));
    pair.start_message(&mr, &to);
    mr
}

fn by_nic_write(state: &Snapshot) -> bool {
    state.writer == Some(Writer::Nic)
}

fn by_nic_read(state: &Snapshot) -> bool {
    state.nic_reads == 1 && state.writer.is_none()
}

macro_rules! forms {
    ($($test:ident: $held:ident $by:ident, $try:ident $plain:ident $until:ident $with:ident $future:ident;)*) => {$(
        #[test]
        #[allow(unused_mut, reason = "some of them borrow mutably")]
        fn $test() {
            let mut pair = Pair::stepped();
            // Not waiting.
            let mut mr = $held(&mut pair);
            assert!(mr.$try().is_none());
            assert_eq!(mr.waits(), 0, "a refusal is no wait");
            // Until a deadline, which passes; then nothing of the wish is left.
            let refused = mr.$until(past()).map(drop);
            assert!(matches!(refused, Err(Error::Deadline { state }) if $by(&state)), "{refused:?}");
            assert!($by(&mr.state()) && !mr.state().pending && !mr.state().waiting_exclusive);
            // With progress: called over and over, and not once it is free.
            let mut calls = 0;
            drop(mr.$with(|| {
                calls += 1;
                assert!(calls <= 3, "it does not get in");
                if calls == 3 {
                    pair.settle();
                }
            }));
            assert_eq!(calls, 3);
            // All of them at once when nobody is in the way, also with a deadline that has passed.
            assert!(mr.$try().is_some());
            drop(mr.$plain());
            drop(mr.$until(past()).unwrap());
            drop(mr.$with(|| unreachable!("free")));
            assert!(Driven::new(mr.$future()).poll().is_ready());
            assert!(mr.state().is_free());
            // As a future: woken by the completion.
            let mut mr = $held(&mut pair);
            let mut future = Driven::pending(mr.$future());
            assert!(future.poll().is_pending(), "polled again, it keeps waiting");
            pair.nic.run_until_idle();
            assert_eq!(future.wakes(), 0, "nobody has polled the completion");
            pair.poll();
            drop(future.ready());
            assert!(mr.state().is_free() && mr.waits() == 1);
            // Until a deadline that is far away, parked meanwhile.
            let mut mr = $held(&mut pair);
            let waits = thread::spawn(move || mr.$until(far()).map(drop).map_err(|e| e.to_string()));
            pair.settle();
            waits.join().unwrap().unwrap();
        }
    )*};
}

forms! {
    r18_as_ptr: written by_nic_write, try_as_ptr as_ptr as_ptr_until as_ptr_with as_ptr_async;
    r18_as_slice: written by_nic_write,
        try_as_slice as_slice as_slice_until as_slice_with as_slice_async;
    r18_as_mut_ptr: read by_nic_read,
        try_as_mut_ptr as_mut_ptr as_mut_ptr_until as_mut_ptr_with as_mut_ptr_async;
    r18_as_mut_slice: read by_nic_read,
        try_as_mut_slice as_mut_slice as_mut_slice_until as_mut_slice_with as_mut_slice_async;
    r18_as_mut_slice_of_what_is_written: written by_nic_write,
        try_as_mut_slice as_mut_slice as_mut_slice_until as_mut_slice_with as_mut_slice_async;
}

#[test]
fn r18_cursors_come_from_all_forms() {
    let mut pair = Pair::stepped();
    let mr = written(&mut pair);
    assert!(mr.try_as_slice_cursor().is_none());
    let cursor = mr.as_slice_with(|| drop(pair.settle())).into_cursor();
    assert_eq!(cursor.get_ref()[..], *pattern(1, 64));
    drop((cursor, mr.as_slice_cursor()));

    let mut mr = read(&mut pair);
    assert!(mr.try_as_mut_slice_cursor().is_none());
    let future = Driven::pending(mr.as_mut_slice_async());
    pair.settle();
    let cursor = future.ready().into_cursor();
    assert_eq!(cursor.position(), 0);
    drop(cursor);
    drop(mr.as_mut_slice_cursor());
    assert!(mr.try_as_mut_slice_cursor().is_some());
}

#[test]
fn r18_futures_may_be_dropped_and_forgotten() {
    for forget in [false, true] {
        let mut pair = Pair::stepped();
        let abandon = |future: Driven<GuardFuture<'_, MrReadGuard<'_>>>| match forget {
            true => std::mem::forget(future),
            false => drop(future),
        };
        let abandon_mut = |future: Driven<GuardFuture<'_, MrWriteGuard<'_>>>| match forget {
            true => std::mem::forget(future),
            false => drop(future),
        };
        let mut mr = written(&mut pair);
        abandon(Driven::pending(mr.as_slice_async()));
        abandon_mut(Driven::pending(mr.as_mut_slice_async()));
        assert_eq!(
            mr.state().writer,
            Some(Writer::Nic),
            "the operation goes on"
        );
        pair.finish(2);
        assert!(mr.state().is_free());
        assert_eq!(mr.try_as_slice().unwrap()[..], *pattern(1, 64));
        mr.try_as_mut_slice().unwrap().fill(0);

        // A wish to write asks readers to stand back: not for ever.
        let mut mr = read(&mut pair);
        abandon_mut(Driven::pending(mr.as_mut_slice_async()));
        if !forget {
            assert!(
                mr.try_as_slice().is_some(),
                "dropped, it asks nothing any more"
            );
        }
        drop(mr.as_slice_until(far()).unwrap());
        assert!(mr.try_as_slice().is_some(), "it is asked once");
        pair.finish(2);
        assert!(mr.try_as_mut_slice().is_some());
    }
}

#[test]
fn r18_a_guard_and_a_wish_in_one_thread_do_not_deadlock() {
    let pair = Pair::stepped();
    let mr = Arc::new(pair.alloc(8));
    let guard = mr.as_slice();
    let region = mr.clone();
    let wish = thread::spawn(move || region.begin_write().map(drop));
    assert_parks(&wish, &mr, |state| state.waiting_exclusive);
    drop(
        mr.as_slice_until(far())
            .expect("enters past the one who waits for this very thread"),
    );
    drop(block_on(mr.as_slice_async()));
    drop(guard);
    wish.join().unwrap().unwrap();
}

#[test]
fn r18_a_panic_in_progress_leaves_nothing_behind() {
    let mut pair = Pair::stepped();
    let mut mr = read(&mut pair);
    let panics = AssertUnwindSafe(|| drop(mr.as_mut_slice_with(|| panic!("the user's"))));
    assert!(catch_unwind(panics).is_err());
    assert!(!mr.state().pending && mr.try_as_slice().is_some());
    pair.finish(2);
    assert!(mr.try_as_mut_slice().is_some());
}

#[test]
fn r18_one_thread_polls_and_reads_with_a_nic_that_has_its_own() {
    let mut pair = Pair::threaded();
    let (from, to) = (pair.region(&pattern(7, 5000)), pair.alloc(5000));
    pair.start_message(&from, &to);
    let Pair { a, b, .. } = &mut pair;
    let bytes = to.as_slice_with(|| {
        a.poll(|_| ()).unwrap();
        b.poll(|_| ()).unwrap();
    });
    assert_eq!(*bytes, *pattern(7, 5000));
}

#[test]
fn r18_futures_run_on_any_executor() {
    let mut pair = Pair::threaded();
    let (from, mut to) = (pair.region(&pattern(8, 100)), pair.alloc(100));
    pair.start_message(&from, &to);
    let poller = thread::spawn(move || {
        let mut over = 0;
        while over < 2 {
            over += pair.a.poll(|_| ()).unwrap() + pair.b.poll(|_| ()).unwrap();
        }
        pair
    });
    block_on(async {
        let (one, two) = zip(to.as_slice_async(), to.as_ptr_async()).await;
        assert_eq!(*one, *pattern(8, 100));
        drop((one, two));
        to.as_mut_slice_async().await.fill(1);
    });
    poller.join().unwrap();
}

#[test]
fn r18_guards_futures_and_holds_are_send_and_sync() {
    send_and_sync::<(LocalMr, LocalMrSlice<'_>, LocalMrSliceMut<'_>, Chunks)>();
    send_and_sync::<(
        MrReadGuard<'_>,
        MrWriteGuard<'_>,
        MrCursor<'_>,
        MrCursorMut<'_>,
    )>();
    send_and_sync::<(MrConstPtr<'_>, MrMutPtr<'_>, WriteInnerGuard<'_>)>();
    send_and_sync::<GuardFuture<'_, MrReadGuard<'_>>>();
    send_and_sync::<GuardFuture<'_, MrWriteGuard<'_>>>();
    send_and_sync::<GuardFuture<'_, MrMutPtr<'_>>>();
    send_and_sync::<(Hold, HoldFuture<'_>, Done, Acquire<'_>, Permit<'_>, Gate)>();
    send_and_sync::<(InnerCell, Memory, Error, Pair)>();
}

#[test]
fn r18_a_guard_dropped_on_another_thread_releases() {
    let mut mr = Pair::stepped().alloc(8);
    let (one, two) = (mr.as_slice(), mr.as_ptr());
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(*one, [0; 8]);
            drop((one, two));
        });
    });
    assert!(mr.state().is_free());
    let mut guard = mr.as_mut_slice();
    thread::scope(|scope| scope.spawn(move || guard.fill(3)).join().unwrap());
    assert_eq!(*mr.try_as_slice().unwrap(), [3; 8]);
}

#[test]
fn every_implementor_gives_the_same_bytes() {
    fn sum(mr: &impl LocalMrReadAccess) -> u32 {
        let by_hold = mr.begin_read().unwrap().sge().addr;
        assert_eq!(by_hold, *mr.as_ptr() as u64);
        assert!(mr.length() > 0 && mr.is_readable());
        mr.as_slice().iter().map(|byte| u32::from(*byte)).sum()
    }
    fn taken(mr: impl LocalMrReadAccess) -> usize {
        mr.try_as_slice().unwrap().len()
    }
    fn dynamic(mr: &dyn LocalMrReadAccess) -> u32 {
        assert_eq!(mr.lkey(), mr.read_inner().lkey());
        mr.as_slice().iter().map(|byte| u32::from(*byte)).sum()
    }
    fn fill(mr: &mut impl LocalMrWriteAccess, byte: u8) -> usize {
        mr.as_mut_slice().fill(byte);
        assert!(mr.is_writeable());
        assert_eq!(mr.write_inner().length(), 10);
        assert_eq!(mr.as_slice()[0], byte);
        mr.length()
    }
    let mut mr = Pair::stepped().region(&[1; 10]);
    assert_eq!(
        (sum(&mr), sum(&&mr), sum(&mr.get(2..5).unwrap())),
        (10, 10, 3)
    );
    assert_eq!(
        (dynamic(&mr), dynamic(&&mr), dynamic(&mr.get(2..5).unwrap())),
        (10, 10, 3)
    );
    assert_eq!((taken(&mr), taken(mr.get(3..).unwrap())), (10, 7));
    assert_eq!(fill(&mut mr, 2), 10);
    let mut slice = mr.get_mut(..4).unwrap();
    assert_eq!(fill(&mut slice, 3), 4);
    assert_eq!((sum(&slice), dynamic(&slice), taken(slice)), (12, 12, 4));
    assert_eq!(taken(mr.get_mut(1..).unwrap().get_mut(1..).unwrap()), 8);
    assert_eq!(sum(&mr), 24);
}

#[test]
fn waits_counts_those_who_waited() {
    let mut pair = Pair::stepped();
    let mr = Arc::new(written(&mut pair));
    assert!(mr.try_as_slice().is_none() && mr.try_begin_write().is_err());
    assert_eq!(mr.waits(), 0);
    let region = mr.clone();
    let reader = thread::spawn(move || region.as_slice().len());
    assert_parks(&reader, &mr, |state| state.waiting_shared);
    drop(Driven::pending(mr.as_ptr_async()));
    drop(mr.as_slice_with(|| drop(pair.settle())));
    assert_eq!(reader.join().unwrap(), 64);
    drop(mr.as_slice());
    assert_eq!(mr.waits(), 3);
}

#[test]
fn shutdown_refuses_operations_and_lets_the_cpu_in() {
    let mut pair = Pair::stepped();
    let mr = Arc::new(written(&mut pair));
    let region = mr.clone();
    let waiting = thread::spawn(move || region.begin_write().map(drop));
    assert_parks(&waiting, &mr, |state| state.waiting_exclusive);
    let future = Driven::pending(mr.begin_read_async());
    mr.shutdown();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed)));
    assert!(matches!(future.ready(), Err(Error::Closed)));
    assert!(
        mr.state().closed && by_nic_write(&mr.state()),
        "what is in flight goes on"
    );
    assert!(mr.try_as_slice().is_none());
    pair.finish(2);
    let mut mr = Arc::into_inner(mr).unwrap();
    assert_eq!(*mr.as_slice(), *pattern(1, 64));
    mr.as_mut_slice().fill(0);
    assert!(mr.is_readable() && mr.is_writeable());
    for refused in [
        mr.try_begin_read(),
        mr.begin_read(),
        mr.begin_read_until(far()),
        mr.begin_write_with(|| unreachable!()),
        mr.get(1..).unwrap().try_begin_write(),
        block_on(mr.begin_write_async()),
    ] {
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    mr.close().unwrap();
    pair.assert_nothing_registered();
}

#[test]
fn patience_is_the_regions() {
    let patience = Patience {
        spin: std::time::Duration::ZERO,
        ..Patience::default()
    };
    let pd = Nic::builder().stepped().build().alloc_pd();
    let mr = MrOptions::new().patience(patience).alloc(&pd, 8).unwrap();
    assert_does_not_spin(&mr);
}
