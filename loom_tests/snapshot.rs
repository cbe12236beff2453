//! Models of the published state (`src/registration/inner.rs`) over crossbeam-epoch as loom sees it, by its
//! own support: a build of its own, with `--cfg crossbeam_loom` beside `--cfg loom`. A state has a cell that
//! who copies it reads, and that is written where the state would be freed.
#![cfg(crossbeam_loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{drop_in_place, from_ref};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::common::keys::{Keys, Pd, parking};
use crate::common::{explore, leak};
use loom::thread;
use rdma_mr::registration::LocalMrInner;
use rdma_mr::{Access, LocalMr, LocalMrReadAccess};

const BOTH: Access = Access::LOCAL_WRITE.union(Access::REMOTE_READ);

fn region() -> LocalMr {
    let pd = Arc::new(Pd(Keys::new()));
    parking().register(&pd, vec![0; 8]).unwrap()
}

/// Has a state to be replaced.
fn rotated() -> LocalMr {
    let mr = region();
    mr.reregister(BOTH).unwrap();
    mr
}

/// Of one registration: the first, which has no rights for peers, or one after it, which has.
fn is_whole(inner: LocalMrInner) -> bool {
    let access = match inner.lkey() {
        0 => Access::LOCAL_WRITE,
        _ => BOTH,
    };
    inner.lkey() == inner.rkey() && inner.access() == access && inner.length() == 8
}

/// One reads in that way while another publishes, after so many publications so many more.
fn beside_publications(name: &str, bound: usize, publications: [u32; 2], reads: fn(&LocalMr)) {
    explore(name, bound, 50, move || {
        let mr = Arc::new(region());
        let [before, meanwhile] = publications;
        for _ in 0..before {
            mr.reregister(BOTH).unwrap();
        }
        let reader = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || reads(&mr))
        };
        for _ in 0..meanwhile {
            mr.reregister(BOTH).unwrap();
        }
        reader.join().unwrap();
        assert_eq!(mr.read_inner().lkey(), before + meanwhile);
    });
}

/// Shows: INNER-1, INNER-2.
#[test]
fn a_state_is_read_whole_while_another_is_published() {
    let name = "a_state_is_read_whole_while_another_is_published";
    beside_publications(name, 3, [1, 1], |mr| assert!(is_whole(mr.read_inner())));
}

/// The first one is none: who sees half of what comes after it looks there.
///
/// Shows: INNER-1.
#[test]
fn the_first_state_is_read_whole_while_another_is_published() {
    let name = "the_first_state_is_read_whole_while_another_is_published";
    beside_publications(name, 3, [0, 1], |mr| assert!(is_whole(mr.read_inner())));
}

/// The keys, too, are of one registration, and no later look sees an older state.
///
/// Shows: INNER-1.
#[test]
fn states_are_read_in_their_order() {
    beside_publications("states_are_read_in_their_order", 2, [0, 2], |mr| {
        let cell = mr.get_inner();
        let first = cell.load();
        let (lkey, rkey) = cell.keys();
        let second = cell.load();
        assert!(is_whole(first) && is_whole(second));
        assert!(lkey == rkey && first.lkey() <= second.lkey());
    });
}

/// What was replaced is freed as soon as epochs allow, which is after three steps with nobody pinned.
///
/// Shows: INNER-1.
#[test]
fn a_state_is_freed_after_its_last_reader() {
    explore("a_state_is_freed_after_its_last_reader", 1, 50, || {
        let mr = Arc::new(rotated());
        let reader = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || assert!(is_whole(mr.read_inner())))
        };
        mr.reregister(BOTH).unwrap();
        for _ in 0..3 {
            crossbeam_epoch::pin().flush();
        }
        reader.join().unwrap();
    });
}

/// Beside a reader; fails if loom has found that a state is read after its end. Who finds it goes on: a
/// model that ends with a panic takes crossbeam-epoch's own down after loom.
fn breaks(name: &str, by: fn(&LocalMr)) {
    let found = Arc::new(AtomicBool::new(false));
    let finds = Arc::clone(&found);
    explore(name, 1, 2, move || {
        let finds = Arc::clone(&finds);
        let watch = move |act: &dyn Fn()| {
            if catch_unwind(AssertUnwindSafe(act)).is_err() {
                finds.store(true, Relaxed);
            }
        };
        let mr: &LocalMr = leak(rotated());
        let reader = thread::spawn({
            let watch = watch.clone();
            move || watch(&|| assert!(is_whole(mr.read_inner())))
        });
        watch(&|| by(mr));
        reader.join().unwrap();
    });
    assert!(!found.load(Relaxed), "a state was read after its end");
}

/// What was replaced is freed at once, and nobody who is pinned is waited for.
///
/// Breaks: INNER-1.
#[test]
#[should_panic(expected = "a state was read after its end")]
fn a_state_that_is_freed_at_once_is_read_after_its_end() {
    breaks(
        "a_state_that_is_freed_at_once_is_read_after_its_end",
        |mr| {
            mr.get_inner().publish_unprotected((2, 2), BOTH);
        },
    );
}

/// The cell comes to its end while somebody reads.
///
/// Breaks: INNER-2.
#[test]
#[should_panic(expected = "a state was read after its end")]
fn a_cell_that_is_dropped_under_a_reader_is_read_after_its_end() {
    let name = "a_cell_that_is_dropped_under_a_reader_is_read_after_its_end";
    breaks(name, |mr| {
        // SAFETY: none: it breaks INNER-2. What is dropped stays where it is.
        unsafe { drop_in_place(from_ref(mr.get_inner()).cast_mut()) };
    });
}
