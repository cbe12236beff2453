//! Owned parts of one registration: bytes, keys and gates of their own, joined again or dropped in
//! any order; random sequences against a plain model of ranges (design, section 6).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use rdma_mr::gate::{Patience, Writer};
use rdma_mr::op::Begin;
use rdma_mr::registration::StableMemory;
use rdma_mr::{
    Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions, Rejected,
};
use util::*;

#[test]
fn split_to_and_split_off_share_the_bytes_and_the_keys() {
    let pair = Pair::stepped();
    let mut mr = pair.region(&pattern(1, 100));
    let (addr, keys) = (mr.addr(), (mr.lkey(), mr.rkey()));
    let front = mr.split_to(30).unwrap();
    let back = mr.split_off(50).unwrap();
    for (part, range) in [(&front, 0..30), (&mr, 30..80), (&back, 80..100)] {
        assert_eq!(part.addr(), addr + range.start);
        assert_eq!(part.length(), range.len());
        assert_eq!(*part.as_slice(), pattern(1, 100)[range]);
        assert_eq!((part.lkey(), part.rkey()), keys);
        let inner = part.read_inner();
        assert_eq!(
            (inner.addr(), inner.length()),
            (addr, 100),
            "one registration"
        );
        let outside = part.get(..part.length() + 1).map(drop);
        assert!(matches!(outside, Err(Error::RangeOutside { .. })));
        let token = part.token_with_timeout(LONG).unwrap();
        assert_eq!(
            (token.addr(), token.length()),
            (part.addr() as u64, part.length() as u64)
        );
    }
    assert_eq!(pair.nic.stats().registrations, 1);
}

#[test]
fn unsplit_is_the_inverse() {
    let pair = Pair::stepped();
    let mut mr = pair.region(&pattern(2, 100));
    let addr = mr.addr();
    let mut middle = mr.split_off(40).unwrap();
    let back = middle.split_off(20).unwrap();
    mr.unsplit(middle).unwrap();
    mr.as_mut_slice()[59] = 0;
    mr.unsplit(back).unwrap();
    let mut expected = pattern(2, 100);
    expected[59] = 0;
    assert_eq!(*mr.as_slice(), *expected);
    assert_eq!((mr.addr(), mr.length()), (addr, 100));
    assert_eq!(mr.close().unwrap().downcast::<Vec<u8>>().unwrap(), expected);
    pair.assert_nothing_registered();
}

#[test]
fn unsplit_refuses_what_is_no_neighbour_and_gives_it_back() {
    let pair = Pair::stepped();
    let mut front = pair.region(&pattern(3, 60));
    let mut middle = front.split_off(20).unwrap();
    let back = middle.split_off(20).unwrap();
    let refused = |result: Result<(), Rejected<LocalMr>>| {
        let Rejected { value, error } = result.unwrap_err();
        assert!(matches!(error, Error::NotAdjacent), "{error:?}");
        value
    };
    let back = refused(front.unsplit(back));
    let front = refused(middle.unsplit(front));
    let strange = refused(middle.unsplit(pair.alloc(20)));
    assert_eq!(
        (front.length(), middle.length(), strange.length()),
        (20, 20, 20)
    );
    assert_eq!(*back.as_slice(), pattern(3, 60)[40..]);
    middle.unsplit(back).unwrap();
}

/// Half of a buffer that is never freed.
struct Half(&'static mut [u8]);

// SAFETY: MEM-1 to MEM-4: it borrows initialised bytes for good, to write to.
unsafe impl StableMemory for Half {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.0.len()
    }
}

#[test]
fn unsplit_refuses_a_neighbour_on_another_registration() {
    let pair = Pair::stepped();
    let halves = Box::leak(vec![1; 16].into_boxed_slice()).split_at_mut(8);
    let mut front = LocalMr::register(&pair.pd, Half(halves.0)).unwrap();
    let back = LocalMr::register(&pair.pd, Half(halves.1)).unwrap();
    assert_eq!(front.addr() + 8, back.addr());
    let Rejected { value, error } = front.unsplit(back).unwrap_err();
    assert!(matches!(error, Error::NotAdjacent));
    assert_eq!((front.length(), value.length()), (8, 8));
}

#[test]
fn splitting_refuses_empty_parts_what_lies_outside_and_what_is_held() {
    let pair = Pair::stepped();
    let mut mr = pair.region(&pattern(4, 10));
    for at in [0, 10] {
        for result in [mr.split_to(at).map(drop), mr.split_off(at).map(drop)] {
            assert!(matches!(result, Err(Error::EmptyRange { start }) if start == at));
        }
    }
    for at in [11, usize::MAX] {
        for result in [mr.split_to(at).map(drop), mr.split_off(at).map(drop)] {
            assert!(matches!(
                result,
                Err(Error::RangeOutside { length: 10, .. })
            ));
        }
    }
    for write in [false, true] {
        let hold = if write {
            mr.begin_write()
        } else {
            mr.begin_read()
        }
        .unwrap();
        assert!(matches!(mr.split_to(5), Err(Error::Held { .. })));
        assert!(matches!(mr.split_off(5), Err(Error::Held { .. })));
        let Rejected { value, error } = mr.chunks_of(5).unwrap_err();
        assert!(matches!(error, Error::Held { .. }));
        mr = value;
        drop(hold);
    }
    let Rejected { value, error } = mr.chunks_of(0).unwrap_err();
    assert!(matches!(error, Error::EmptyRange { start: 0 }));
    let mut mr = value;
    assert_eq!((mr.length(), &*mr.as_slice()), (10, &*pattern(4, 10)));
    // Either side of a joint may be held.
    let back = mr.split_off(5).unwrap();
    let hold = back.begin_read().unwrap();
    let Rejected { value: back, error } = mr.unsplit(back).unwrap_err();
    assert!(matches!(error, Error::Held { state } if state.nic_reads == 1));
    drop(hold);
    let hold = mr.begin_write().unwrap();
    let Rejected { value: back, error } = mr.unsplit(back).unwrap_err();
    assert!(matches!(error, Error::Held { state } if state.writer == Some(Writer::Nic)));
    drop(hold);
    mr.unsplit(back).unwrap();
    assert_eq!(*mr.as_slice(), *pattern(4, 10));
}

#[test]
fn chunks_cover_the_region_from_the_front() {
    let pair = Pair::stepped();
    for (size, lengths) in [
        (4, vec![4, 4, 2]),
        (5, vec![5, 5]),
        (10, vec![10]),
        (99, vec![10]),
    ] {
        let chunks = pair.region(&pattern(5, 10)).chunks_of(size).unwrap();
        assert_eq!(chunks.len(), lengths.len());
        let parts: Vec<LocalMr> = chunks.collect();
        let bytes: Vec<u8> = parts.iter().flat_map(|mr| mr.as_slice().to_vec()).collect();
        assert_eq!(bytes, pattern(5, 10));
        assert_eq!(
            parts.iter().map(LocalMr::length).collect::<Vec<_>>(),
            lengths
        );
    }
    // What is not taken goes with the iterator.
    let mut chunks = pair.region(&pattern(5, 10)).chunks_of(3).unwrap();
    let first = chunks.next().unwrap();
    assert_eq!(chunks.size_hint(), (3, Some(3)));
    drop(chunks);
    assert_eq!(*first.as_slice(), pattern(5, 10)[..3]);
    assert_eq!(
        first.close().unwrap().length(),
        10,
        "the last part closes the whole"
    );
    let mut chunks = pair.alloc(2).chunks_of(1).unwrap();
    assert_eq!(
        (
            chunks.by_ref().count(),
            chunks.next().is_none(),
            chunks.len()
        ),
        (2, true, 0)
    );
    pair.assert_nothing_registered();
}

#[test]
fn a_receive_into_one_slot_makes_no_reader_of_another_wait() {
    let mut pair = Pair::stepped();
    let mut slots: Vec<LocalMr> = pair.alloc(8 * 64).chunks_of(64).unwrap().collect();
    let from = pair.region(&pattern(6, 64));
    pair.start_message(&from, &slots[3]);
    assert!(slots[3].try_as_slice().is_none());
    for slot in [2, 4] {
        assert_eq!(*slots[slot].try_as_slice().unwrap(), [0; 64]);
        slots[slot].try_as_mut_slice().unwrap().fill(slot as u8);
        assert_eq!(
            (slots[slot].waits(), slots[slot].state().is_free()),
            (0, true)
        );
    }
    pair.finish(2);
    assert_eq!(*slots[3].as_slice(), *pattern(6, 64));
    assert_eq!(*slots[2].as_slice(), [2; 64]);
    assert_eq!(*slots[4].as_slice(), [4; 64]);
}

#[test]
fn parts_may_be_dropped_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let pair = Pair::stepped();
        let chunks = pair.region(&pattern(7, 30)).chunks_of(10).unwrap();
        let mut parts: Vec<Option<LocalMr>> = chunks.map(Some).collect();
        for (i, drops) in order.into_iter().enumerate() {
            assert_eq!(pair.nic.stats().registrations, 1);
            drop(parts[drops].take());
            for left in &order[i + 1..] {
                let part = parts[*left].as_ref().unwrap();
                assert_eq!(*part.as_slice(), pattern(7, 30)[left * 10..][..10]);
            }
        }
        pair.assert_nothing_registered();
    }
}

#[test]
fn r9_the_hold_of_a_dropped_part_keeps_the_registration() {
    let mut pair = Pair::stepped();
    let mut to = pair.alloc(32);
    let slot = to.split_off(16).unwrap();
    let from = pair.region(&pattern(8, 16));
    pair.start_message(&from, &slot);
    drop((slot, to, from));
    assert_eq!(pair.nic.stats().registrations, 2);
    pair.finish(2);
    pair.assert_nothing_registered();
}

#[test]
fn parts_keep_the_regions_patience() {
    let patience = Patience {
        spin: Duration::ZERO,
        ..Patience::default()
    };
    let pair = Pair::stepped();
    let mut mr = MrOptions::new()
        .patience(patience)
        .alloc(&pair.pd, 8)
        .unwrap();
    for part in [mr.split_to(2).unwrap(), mr.split_off(2).unwrap(), mr] {
        assert_does_not_spin(&part);
    }
}

#[test]
fn parts_of_a_region_that_was_shut_down_refuse_operations() {
    let pair = Pair::stepped();
    let mut mr = pair.alloc(12);
    mr.shutdown();
    let (front, back) = (mr.split_to(4).unwrap(), mr.split_off(4).unwrap());
    for part in [&front, &mr, &back] {
        assert!(matches!(part.try_begin_read(), Err(Error::Closed)));
    }
}

/// What happens to one of the parts, picked by the first number.
#[derive(Clone, Debug)]
enum Act {
    SplitTo(usize, usize),
    SplitOff(usize, usize),
    Unsplit(usize, usize),
    Drop(usize),
    Write(usize, u8),
    Chunks(usize, usize),
    Message(usize, usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let (which, at) = (0..64usize, 0..90usize);
    prop_oneof![
        4 => (which.clone(), at.clone()).prop_map(|(i, at)| Act::SplitTo(i, at)),
        4 => (which.clone(), at.clone()).prop_map(|(i, at)| Act::SplitOff(i, at)),
        4 => (which.clone(), which.clone()).prop_map(|(i, j)| Act::Unsplit(i, j)),
        1 => which.clone().prop_map(Act::Drop),
        4 => (which.clone(), any::<u8>()).prop_map(|(i, byte)| Act::Write(i, byte)),
        1 => (which.clone(), at).prop_map(|(i, size)| Act::Chunks(i, size)),
        2 => (which.clone(), which).prop_map(|(i, j)| Act::Message(i, j)),
    ]
}

/// Does it to the parts and to the model; both must agree on whether it can be done.
fn act(pair: &mut Pair, parts: &mut Vec<(LocalMr, Range<usize>)>, bytes: &mut [u8], act: Act) {
    let count = parts.len();
    match act {
        Act::SplitTo(i, at) | Act::SplitOff(i, at) => {
            let (mr, range) = &mut parts[i % count];
            let middle = range.start + at;
            let can = at > 0 && at < range.len();
            if matches!(act, Act::SplitTo(..)) {
                let front = mr.split_to(at);
                assert_eq!(front.is_ok(), can);
                if let Ok(front) = front {
                    let before = std::mem::replace(&mut range.start, middle)..middle;
                    parts.push((front, before));
                }
            } else {
                let back = mr.split_off(at);
                assert_eq!(back.is_ok(), can);
                if let Ok(back) = back {
                    let after = middle..std::mem::replace(&mut range.end, middle);
                    parts.push((back, after));
                }
            }
        }
        Act::Unsplit(i, j) if i % count != j % count => {
            let (next, back) = parts.swap_remove(j % count);
            let i = if i % count == count - 1 {
                j % count
            } else {
                i % count
            };
            let (mr, front) = &mut parts[i];
            match mr.unsplit(next) {
                Ok(()) => {
                    assert_eq!(front.end, back.start);
                    front.end = back.end;
                }
                Err(Rejected { value, .. }) => {
                    assert_ne!(front.end, back.start);
                    parts.push((value, back));
                }
            }
        }
        Act::Drop(i) if count > 1 => drop(parts.swap_remove(i % count)),
        Act::Write(i, byte) => {
            let (mr, range) = &mut parts[i % count];
            mr.as_mut_slice().fill(byte);
            bytes[range.clone()].fill(byte);
        }
        Act::Chunks(i, size) if size > 0 => {
            let (mr, range) = parts.swap_remove(i % count);
            let starts = range.clone().step_by(size);
            let chunks = mr.chunks_of(size).unwrap();
            parts.extend(chunks.zip(starts.map(|at| at..range.end.min(at + size))));
        }
        Act::Message(i, j) if i % count != j % count => {
            let ((from, source), (to, target)) = (&parts[i % count], &parts[j % count]);
            if source.len() <= target.len() {
                pair.start_message(from, to);
                pair.finish(2);
                bytes.copy_within(source.clone(), target.start);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]
    #[test]
    fn random_sequences_agree_with_plain_ranges(all in prop::collection::vec(acts(), 1..60)) {
        let mut pair = Pair::stepped();
        let mut bytes = pattern(9, 80);
        let whole = pair.region(&bytes);
        let (start, lkey) = (whole.addr(), whole.lkey());
        let mut parts = vec![(whole, 0..80)];
        for one in all {
            act(&mut pair, &mut parts, &mut bytes, one);
            for (mr, range) in &parts {
                prop_assert_eq!((mr.addr() - start, mr.length()), (range.start, range.len()));
                prop_assert_eq!(&*mr.as_slice(), &bytes[range.clone()]);
                prop_assert!(mr.lkey() == lkey && mr.state().is_free());
            }
            prop_assert_eq!(pair.nic.stats().registrations, 1);
        }
        drop(parts);
        pair.assert_nothing_registered();
    }
}
