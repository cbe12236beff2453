//! Models of memory that peers may write at any moment: records with a version, and integers that hand
//! bytes on. The words of the region are loom's atomics, and what the crate does with them by volatile
//! accesses is `Relaxed` (AX-7). The NIC is a thread that places what it moves word by word, the words of
//! one WRITE or READ in any order, with a fence where AX-7 promises an order.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use crate::common::{Registrar, exhaust, explore, insist};
use loom::sync::atomic::fence;
use loom::thread;
use rdma_mr::{Access, Error, SharedMr, SharedMrAccess};

const BODY: usize = 16;
/// Offsets of the two words of a body.
const WORDS: [usize; 2] = [8, 16];

fn region() -> Arc<SharedMr> {
    Arc::new(SharedMr::alloc(&Registrar::new(), 8 + BODY, Access::all()).unwrap())
}

/// The `n`th body: nothing but `n`.
fn body(n: u64) -> [u8; BODY] {
    n.to_ne_bytes().repeat(2).try_into().unwrap()
}

/// Which body it is; of two in one, it is torn.
fn of_one(bytes: [u8; BODY]) -> u64 {
    let [a, b] = [0, 8].map(|at| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()));
    assert_eq!(a, b, "a torn record");
    a
}

/// What one look sees, if it is whole: its version and which body.
fn look(mr: &SharedMr) -> Option<(u64, u64)> {
    let mut bytes = [0; BODY];
    let version = mr.try_read_record(0, &mut bytes).unwrap()?;
    Some((version, of_one(bytes)))
}

/// What a look sees at the body alone.
fn look_without_the_version(mr: &SharedMr) -> Option<(u64, u64)> {
    let mut bytes = [0; BODY];
    mr.read_into(8, &mut bytes).unwrap();
    let n = of_one(bytes);
    Some((2 * n, n))
}

/// Two looks beside `write`: each sees the body that the version is of, and the second nothing older.
fn beside(
    write: impl FnOnce(&SharedMr) + Send + 'static,
    look: impl Fn(&SharedMr) -> Option<(u64, u64)>,
) {
    let mr = region();
    let writing = {
        let mr = Arc::clone(&mr);
        thread::spawn(move || write(&mr))
    };
    let mut last = 0;
    for (version, n) in (0..2).filter_map(|_| look(&mr)) {
        assert_eq!(version, 2 * n, "the version of another body");
        assert!(version >= last, "an older one");
        last = version;
    }
    writing.join().unwrap();
}

fn write_twice(mr: &SharedMr) {
    for n in 1..=2 {
        assert_eq!(mr.write_record(0, &body(n)).unwrap(), 2 * n);
    }
}

/// What the NIC does for a WRITE of that body.
fn nic_writes(mr: &SharedMr, n: u64, backwards: bool) {
    let mut words = WORDS;
    if backwards {
        words.reverse();
    }
    for at in words {
        mr.write_from(at, &n.to_ne_bytes()).unwrap();
    }
}

/// FETCH_ADD, a fenced WRITE of the body, FETCH_ADD: the first protocol of `try_read_record`.
fn nic_by_atomics(mr: &SharedMr, backwards: bool) {
    mr.cpu_fetch_add(0, 1).unwrap();
    fence(AcqRel);
    nic_writes(mr, 1, backwards);
    fence(AcqRel);
    mr.cpu_fetch_add(0, 1).unwrap();
}

/// WRITE, WRITE, WRITE, placed in order: the second one.
fn nic_by_writes(mr: &SharedMr, backwards: bool) {
    mr.write_from(0, &1u64.to_ne_bytes()).unwrap();
    fence(AcqRel);
    nic_writes(mr, 1, backwards);
    fence(AcqRel);
    mr.write_from(0, &2u64.to_ne_bytes()).unwrap();
}

#[test]
fn a_record_written_here_is_read_whole() {
    explore("a_record_written_here_is_read_whole", 3, 50, || {
        beside(write_twice, look);
    });
}

#[test]
fn a_record_written_by_atomics_of_a_nic_is_read_whole() {
    let name = "a_record_written_by_atomics_of_a_nic_is_read_whole";
    for backwards in [false, true] {
        exhaust(name, 3, 50, move || {
            beside(move |mr| nic_by_atomics(mr, backwards), look);
        });
    }
}

#[test]
fn a_record_written_by_writes_of_a_nic_is_read_whole() {
    let name = "a_record_written_by_writes_of_a_nic_is_read_whole";
    for backwards in [false, true] {
        exhaust(name, 3, 50, move || {
            beside(move |mr| nic_by_writes(mr, backwards), look);
        });
    }
}

/// Nothing else keeps a body whole.
/// Breaks: the protocol of a record.
#[test]
#[should_panic(expected = "a torn record")]
fn without_the_version_a_record_is_torn() {
    explore("without_the_version_a_record_is_torn", 3, 1, || {
        beside(write_twice, look_without_the_version);
    });
}

/// As [`without_the_version_a_record_is_torn`], where a NIC writes.
/// Breaks: the protocol of a record.
#[test]
#[should_panic(expected = "a torn record")]
fn without_the_version_a_write_of_a_nic_is_torn() {
    explore("without_the_version_a_write_of_a_nic_is_torn", 3, 1, || {
        beside(|mr| nic_by_writes(mr, false), look_without_the_version);
    });
}

/// One WRITE over version and body is placed in any order (R17): here the version first.
/// Breaks: the protocol of a record.
#[test]
#[should_panic(expected = "a torn record")]
fn one_write_over_all_of_a_record_is_not_enough() {
    explore("one_write_over_all_of_a_record_is_not_enough", 3, 1, || {
        let write = |mr: &SharedMr| {
            mr.write_from(0, &2u64.to_ne_bytes()).unwrap();
            nic_writes(mr, 1, false);
        };
        beside(write, look);
    });
}

/// Three READs of a NIC, each after the completion of the one before.
#[test]
fn a_record_written_here_is_read_whole_by_a_nic() {
    let name = "a_record_written_here_is_read_whole_by_a_nic";
    for backwards in [false, true] {
        explore(name, 3, 50, move || {
            let nic_looks = move |mr: &SharedMr| {
                let read = |at| {
                    let mut bytes = [0; 8];
                    mr.read_into(at, &mut bytes).unwrap();
                    u64::from_ne_bytes(bytes)
                };
                let before = read(0);
                fence(AcqRel);
                let words = match backwards {
                    false => WORDS.map(read),
                    true => [read(16), read(8)],
                };
                fence(AcqRel);
                let whole = read(0) == before && before % 2 == 0;
                whole.then(|| {
                    assert_eq!(words[0], words[1], "a torn record");
                    (before, words[0])
                })
            };
            beside(write_twice, nic_looks);
        });
    }
}

/// Two write at once: one is let in at a time, and what comes out last is of one of them.
#[test]
fn a_record_has_one_writer_at_a_time() {
    exhaust("a_record_has_one_writer_at_a_time", 3, 20, || {
        let mr = region();
        let write = |mr: &SharedMr, n| match mr.write_record(0, &body(n)) {
            Ok(version) => Some(version),
            Err(Error::RecordBusy { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        let other = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || write(&mr, 7))
        };
        let mut versions = [write(&mr, 8), other.join().unwrap()];
        versions.sort();
        match versions {
            [None, Some(2)] | [Some(2), Some(4)] => {}
            _ => panic!("{versions:?}"),
        }
        let (version, n) = look(&mr).expect("nobody writes any more");
        assert_eq!(Some(version), versions[1]);
        assert!(n == 7 || n == 8);
    });
}

/// What was written before `tell` is seen by who `knows`.
fn handed_on(name: &str, tell: fn(&SharedMr) -> u64, knows: fn(&SharedMr) -> bool) {
    exhaust(name, 3, 2, move || {
        let mr = region();
        let writing = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || {
                mr.write_from(8, &body(5)).unwrap();
                assert_eq!(tell(&mr), 0);
            })
        };
        insist(|| knows(&mr).then_some(()));
        let mut bytes = [0; BODY];
        mr.read_into(8, &mut bytes).unwrap();
        assert_eq!(bytes, body(5), "older bytes");
        writing.join().unwrap();
    });
}

#[test]
fn a_store_hands_on_what_was_written_before() {
    handed_on(
        "a_store_hands_on_what_was_written_before",
        |mr| mr.store(0, 1u64).map_or(1, |()| 0),
        |mr| mr.load::<u64>(0).unwrap() == 1,
    );
}

#[test]
fn an_addition_hands_on_what_was_written_before() {
    handed_on(
        "an_addition_hands_on_what_was_written_before",
        |mr| mr.cpu_fetch_add(0, 1).unwrap() % 2,
        |mr| mr.cpu_fetch_add(0, 2).unwrap() % 2 == 1,
    );
}

#[test]
fn a_swap_hands_on_what_was_written_before() {
    handed_on(
        "a_swap_hands_on_what_was_written_before",
        |mr| mr.cpu_compare_swap(0, 0, 1).unwrap(),
        |mr| mr.cpu_compare_swap(0, 1, 2).unwrap() == 1,
    );
}

/// Who finds that somebody else has swapped is told what that one wrote.
#[test]
fn a_swap_that_is_refused_learns_what_was_written_before() {
    handed_on(
        "a_swap_that_is_refused_learns_what_was_written_before",
        |mr| mr.cpu_compare_swap(0, 0, 1).unwrap(),
        |mr| mr.cpu_compare_swap(0, 3, 3).unwrap() == 1,
    );
}
