//! What this side does with the bytes, and what it is refused.

use std::fmt::Debug;
use std::time::Duration;

use rdma_mr::op::Begin;
use rdma_mr::work::{QpCaps, RemoteAddr};
use rdma_mr::{Error, MrAccess, MrOptions, SharedInt, SharedMrAccess};

use super::*;
use crate::fabric::LONG;

pub fn r3_bytes_are_copied_in_and_out<F: Fabric>(fabric: &F) {
    const LENGTH: usize = 64;
    let mr = shared(fabric, LENGTH);
    assert_eq!(bytes(&mr, LENGTH), [0; LENGTH]);
    let pattern: Vec<u8> = (1..=LENGTH as u8).collect();
    for (start, length) in (0..24).flat_map(|start| (1..=32).map(move |length| (start, length))) {
        mr.write_from(0, &[0; LENGTH]).unwrap();
        mr.write_from(start, &pattern[..length]).unwrap();
        let mut expected = [0; LENGTH];
        expected[start..start + length].copy_from_slice(&pattern[..length]);
        assert_eq!(bytes(&mr, LENGTH), expected);
        let mut copy = vec![0; length];
        mr.read_into(start, &mut copy).unwrap();
        assert_eq!(copy, pattern[..length]);
        // Through a slice, from its start.
        let slice = mr.get(start..).unwrap();
        copy.fill(0);
        slice
            .get(..length)
            .unwrap()
            .read_into(0, &mut copy)
            .unwrap();
        assert_eq!(copy, pattern[..length]);
    }
}

fn round_trip<T: SharedInt + PartialEq + Debug>(mr: &impl SharedMrAccess, value: T, bytes: &[u8]) {
    let size = size_of::<T>();
    let mut copy = vec![0; size];
    for offset in (0..32).step_by(size) {
        mr.write_from(0, &[0xEE; 40]).unwrap();
        mr.store(offset, value).unwrap();
        assert_eq!(mr.load::<T>(offset).unwrap(), value);
        mr.read_into(offset, &mut copy).unwrap();
        assert_eq!(copy, bytes, "host byte order");
        assert_eq!(mr.load::<u8>(offset + size).unwrap(), 0xEE, "no byte more");
    }
}

pub fn r3_integers_of_every_size<F: Fabric>(fabric: &F) {
    let mr = shared(fabric, 64);
    let slice = mr.get(16..).unwrap();
    macro_rules! each {
        ($($int:ty),*) => {$(
            for value in [<$int>::MIN, <$int>::MAX, 0x5A] {
                round_trip(&mr, value, &value.to_ne_bytes());
                round_trip(&slice, value, &value.to_ne_bytes());
            }
        )*};
    }
    each!(u8, u16, u32, u64, i8, i16, i32, i64);
}

#[track_caller]
fn assert_outside<T: Debug>(result: Result<T, Error>, place: std::ops::Range<usize>, of: usize) {
    let fits = matches!(result, Err(Error::RangeOutside { start, end, length })
        if (start..end, length) == (place.clone(), of));
    assert!(fits, "{result:?}");
}

#[track_caller]
fn assert_misaligned<T: Debug>(result: Result<T, Error>, at: usize, to: usize) {
    let fits = matches!(result, Err(Error::Misaligned { addr, align })
        if (addr, align) == (at as u64, to));
    assert!(fits, "{result:?}");
}

pub fn r19_places_that_are_none_are_refused<F: Fabric>(fabric: &F) {
    const LENGTH: usize = 100;
    const MAX: usize = usize::MAX;
    let mr = shared(fabric, LENGTH);
    let mut to = [1; 8];
    assert_outside(mr.read_into(93, &mut to), 93..101, LENGTH);
    assert_outside(mr.read_into(MAX, &mut to), MAX..MAX, LENGTH);
    assert_outside(mr.write_from(93, &to), 93..101, LENGTH);
    assert_outside(mr.write_from(MAX - 3, &to), MAX - 3..MAX, LENGTH);
    assert_outside(mr.get(..101), 0..101, LENGTH);
    assert_outside(mr.get(50..).unwrap().read_into(43, &mut to), 43..51, 50);
    assert_outside(mr.load::<u64>(96), 96..104, LENGTH);
    assert_outside(mr.load::<u8>(100), 100..101, LENGTH);
    assert_outside(mr.load::<u16>(MAX - 1), MAX - 1..MAX, LENGTH);
    assert_outside(mr.store(96, 1u64), 96..104, LENGTH);
    assert_outside(mr.cpu_fetch_add(96, 1), 96..104, LENGTH);
    assert_outside(mr.cpu_compare_swap(96, 0, 1), 96..104, LENGTH);
    // A record: its version, then its body.
    assert_outside(mr.try_read_record(96, &mut to), 96..104, LENGTH);
    assert_outside(mr.read_record(88, &mut to, 1), 96..104, LENGTH);
    assert_outside(mr.write_record(88, &to), 96..104, LENGTH);
    assert_outside(mr.write_record(MAX - 7, &to), MAX - 7..MAX, LENGTH);
    let empty = |result| matches!(result, Err(Error::EmptyRange { start: 8 }));
    assert!(empty(mr.read_into(8, &mut [])) && empty(mr.write_from(8, &[])));
    assert!(empty(mr.get(8..8).map(drop)) && empty(mr.write_record(0, &[]).map(drop)));
    let addr = mr.addr();
    for (offset, align) in [(1, 2), (2, 4), (4, 8)] {
        let at = addr + offset;
        match align {
            2 => assert_misaligned(mr.load::<u16>(offset), at, align),
            4 => assert_misaligned(mr.store(offset, 1i32), at, align),
            _ => assert_misaligned(mr.load::<i64>(offset), at, align),
        }
        assert_misaligned(mr.cpu_fetch_add(offset, 1), at, 8);
        assert_misaligned(mr.cpu_compare_swap(offset, 0, 1), at, 8);
        assert_misaligned(mr.try_read_record(offset, &mut to), at, 8);
        assert_misaligned(mr.write_record(offset, &to), at, 8);
        // What counts is the address.
        let slice = mr.get(offset..).unwrap();
        assert_misaligned(slice.load::<u64>(0), at, 8);
        assert_eq!(slice.load::<u64>(8 - offset).unwrap(), 0);
    }
    assert_eq!(to, [1; 8], "nothing was copied");
    assert_eq!(bytes(&mr, LENGTH), [0; LENGTH], "nothing was written");
}

pub fn r19_rights_and_lengths_are_checked<F: Fabric>(fabric: &F) {
    let alloc = |length, access| SharedMr::alloc(fabric.pd(), length, access);
    assert!(matches!(alloc(0, Access::all()), Err(Error::ZeroLength)));
    let long = alloc(usize::MAX, Access::all());
    assert!(matches!(long, Err(Error::TooLong { length: usize::MAX })));
    for access in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC] {
        let error = alloc(8, access).unwrap_err();
        let fits = matches!(error, Error::RemoteWithoutLocalWrite { access: a } if a == access);
        assert!(fits, "{error:?}");
    }
    // The default of the options is a region that peers can't reach, and that is fine.
    let mr = MrOptions::new().alloc_shared(fabric.pd(), 8).unwrap();
    assert_eq!(mr.access(), Access::LOCAL_WRITE);
    let read_only = alloc(8, Access::REMOTE_READ).unwrap();
    assert!(matches!(
        read_only.begin_write(),
        Err(Error::MissingRight { .. })
    ));
    assert!(read_only.begin_read().is_ok());
}

pub fn r20_tokens_are_of_the_bytes<F: Fabric>(fabric: &F) {
    let mr = shared(fabric, 256);
    let (whole, part) = (
        mr.token_with_timeout(LONG).unwrap(),
        mr.get(64..128).unwrap().token_with_timeout(LONG).unwrap(),
    );
    assert_eq!((whole.addr(), whole.length()), (mr.addr() as u64, 256));
    assert_eq!((part.addr(), part.length()), (mr.addr() as u64 + 64, 64));
    assert_eq!((part.rkey(), part.access()), (mr.rkey(), Access::all()));
    assert!(mr.token_with_timeout(Duration::MAX).is_none());
    // Where it says, a peer writes.
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let from = fabric.region(&[7; 8]);
    let target: RemoteAddr = part.target(8..16, Access::REMOTE_WRITE).unwrap();
    a.write(from.begin_read().unwrap(), target, None).unwrap();
    succeed(&mut a, 1);
    let mut expected = [0; 256];
    expected[72..80].fill(7);
    assert_eq!(bytes(&mr, 256), expected);
}
