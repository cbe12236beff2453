//! Bad input is a typed error that names what was wrong; what was handed in comes back, and nothing
//! stays registered (R19).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use rdma_mr::backend::soft::{Fault, Nic, ProtectionDomain, When};
use rdma_mr::gate::{Gate, Holder};
use rdma_mr::op::Begin;
use rdma_mr::registration::{Mapping, Pages, StableMemory};
use rdma_mr::{Access, Error, LocalMr, LocalMrReadAccess, MrAccess, MrOptions, Rejected, Result};
use util::*;

fn domain() -> (Nic, Arc<ProtectionDomain>) {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    (nic, pd)
}

/// Memory that lies about where it is and how long.
#[derive(Debug, PartialEq)]
struct Liar {
    addr: usize,
    length: usize,
}

// SAFETY: MEM-1 to MEM-4 are broken on purpose: a region is never made of it, that is the test.
unsafe impl StableMemory for Liar {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        std::ptr::without_provenance_mut(self.addr)
    }

    fn length(&self) -> usize {
        self.length
    }
}

#[test]
fn r19_ranges_are_inside_and_hold_a_byte() {
    let (_nic, pd) = domain();
    let mut mr = LocalMr::alloc(&pd, 100).unwrap();
    let outside = |result: Result<(), Error>, range: (usize, usize)| {
        assert!(
            matches!(result, Err(Error::RangeOutside { start, end, length: 100 })
                if (start, end) == range),
            "{result:?}"
        );
    };
    outside(mr.get(..101).map(drop), (0, 101));
    outside(mr.get(101..).map(drop), (101, 100));
    outside(mr.get(50..usize::MAX).map(drop), (50, usize::MAX));
    outside(mr.get(0..=usize::MAX).map(drop), (0, usize::MAX));
    let wraps = (Bound::Excluded(usize::MAX), Bound::Unbounded);
    outside(mr.get(wraps).map(drop), (usize::MAX, 100));
    outside(mr.get_mut(99..=100).map(drop), (99, 101));
    for at in [0, 7, 100] {
        let empty = mr.get(at..at).map(drop);
        assert!(matches!(empty, Err(Error::EmptyRange { start }) if start == at));
        let empty = mr.get_mut(at..at).map(drop);
        assert!(matches!(empty, Err(Error::EmptyRange { .. })));
    }
    #[allow(clippy::reversed_empty_ranges, reason = "what a caller may pass")]
    let backwards = mr.get(8..3).map(drop);
    assert!(matches!(backwards, Err(Error::EmptyRange { start: 8 })));
    let slice = mr.get(10..20).unwrap();
    assert!(matches!(
        slice.get(..11),
        Err(Error::RangeOutside { length: 10, .. })
    ));
    assert!(matches!(slice.get(10..), Err(Error::EmptyRange { .. })));
    assert_eq!(slice.get(9..).unwrap().length(), 1);
    let mut slice = mr.get_mut(10..20).unwrap();
    assert!(slice.get_mut(0..11).is_err() && slice.get(0..11).is_err());
    assert!(slice.get_mut(0..10).is_ok() && slice.get(0..10).is_ok());
}

#[test]
fn r19_lengths_that_no_slice_has() {
    let (nic, pd) = domain();
    let too_long = isize::MAX as usize + 1;
    for length in [too_long, usize::MAX] {
        let refused = LocalMr::alloc(&pd, length);
        assert!(matches!(refused, Err(Error::TooLong { length: l }) if l == length));
        let refused = Mapping::new(length, Pages::Default);
        assert!(matches!(refused, Err(Error::TooLong { .. })));
        let Rejected { value, error } =
            LocalMr::register(&pd, Liar { addr: 4096, length }).unwrap_err();
        assert!(matches!(error, Error::TooLong { .. }), "{error:?}");
        assert_eq!(value, Liar { addr: 4096, length });
    }
    assert!(matches!(LocalMr::alloc(&pd, 0), Err(Error::ZeroLength)));
    let rejected = LocalMr::register(&pd, Vec::with_capacity(9)).unwrap_err();
    assert!(matches!(rejected.error, Error::ZeroLength));
    assert_eq!(rejected.value.capacity(), 9, "the very Vec");
    // Most of the address space can't be had, which is the system's to say.
    let refused = LocalMr::alloc(&pd, isize::MAX as usize);
    assert!(
        matches!(&refused, Err(Error::Memory { length, .. }) if *length == isize::MAX as usize),
        "{refused:?}"
    );
    assert_eq!(kind(refused), ErrorKind::OutOfMemory);
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_addresses_that_no_memory_has() {
    let (nic, pd) = domain();
    let start = usize::MAX - 100;
    for (addr, length) in [(start, 102), (start, isize::MAX as usize)] {
        let rejected = LocalMr::register(&pd, Liar { addr, length }).unwrap_err();
        assert!(
            matches!(rejected.error, Error::AddressOverflow { addr: a, length: l }
                if (a, l) == (addr as u64, length)),
            "{rejected}"
        );
        assert_eq!(rejected.value, Liar { addr, length });
    }
    let null = Liar { addr: 0, length: 1 };
    let rejected = LocalMr::register(&pd, null).unwrap_err();
    assert!(matches!(rejected.error, Error::NullAddress), "{rejected}");
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_remote_write_needs_local_write() {
    let (nic, pd) = domain();
    for access in [
        Access::REMOTE_WRITE,
        Access::REMOTE_ATOMIC | Access::REMOTE_READ,
    ] {
        for options in [
            MrOptions::new(),
            // SAFETY: REMOTE-1, REMOTE-2: there is no peer, and nothing is registered.
            unsafe { MrOptions::new().grant_remote_write() },
        ] {
            let options = options.access(access);
            let rejected = options.register(&pd, vec![1, 2]).unwrap_err();
            assert!(
                matches!(rejected.error, Error::RemoteWithoutLocalWrite { access: a }
                if a == access)
            );
            assert_eq!(rejected.value, [1, 2]);
            assert_eq!(kind(options.alloc(&pd, 2)), ErrorKind::InvalidInput);
        }
    }
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_read_only_memory_comes_back() {
    let (nic, pd) = domain();
    static BYTES: [u8; 3] = [1, 2, 3];
    let rejected = LocalMr::register(&pd, &BYTES[..]).unwrap_err();
    assert!(matches!(rejected.error, Error::ReadOnlyMemory));
    assert!(std::ptr::eq(rejected.value, &BYTES[..]));
    let shared: Arc<[u8]> = Arc::from([4, 5]);
    let options = MrOptions::new().access(Access::REMOTE_READ);
    let rejected = options.register(&pd, shared.clone()).unwrap_err();
    assert!(Arc::ptr_eq(&rejected.value, &shared));
    assert_eq!(kind::<(), _>(Err(rejected)), ErrorKind::PermissionDenied);
    assert_eq!(
        Arc::strong_count(&shared),
        1,
        "given back, and dropped since"
    );
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_what_the_provider_refuses_comes_back() {
    let nic = Nic::builder().stepped().max_mr_size(1000).build();
    let pd = nic.alloc_pd();
    let rejected = LocalMr::register(&pd, vec![8; 1001]).unwrap_err();
    assert!(matches!(&rejected.error, Error::Register(error)
        if error.kind() == ErrorKind::InvalidInput));
    assert_eq!(rejected.value, [8; 1001]);
    assert_eq!(kind(LocalMr::alloc(&pd, 1001)), ErrorKind::InvalidInput);
    assert_eq!(LocalMr::alloc(&pd, 1000).unwrap().length(), 1000);

    nic.inject(Fault::Register, When::Nth(2));
    let first = LocalMr::register(&pd, vec![1; 10]).unwrap();
    let rejected = LocalMr::register(&pd, vec![2; 10]).unwrap_err();
    assert!(
        rejected.to_string().contains("refused to register"),
        "{rejected}"
    );
    assert!(rejected.source().is_some());
    assert_eq!(nic.stats().registrations, 1);
    let second = LocalMr::register(&pd, rejected.value).unwrap();
    assert_eq!((first.as_slice()[0], second.as_slice()[0]), (1, 2));
    drop((first, second));
    nic.inject(Fault::Register, When::Nth(1));
    assert_eq!(kind(LocalMr::alloc(&pd, 10)), ErrorKind::OutOfMemory);
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_errors_become_io_errors_of_a_fitting_kind() {
    let gate = Gate::new();
    let permit = gate.acquire(Holder::NicWrite).unwrap();
    let state = gate.state();
    drop(permit);
    let other = || io::Error::from(ErrorKind::Unsupported);
    let (access, needed) = (Access::empty(), Access::LOCAL_WRITE);
    let cases = [
        (Error::Held { state }, ErrorKind::WouldBlock),
        (Error::QueueFull { capacity: 1 }, ErrorKind::WouldBlock),
        (Error::PartsAlive { others: 1 }, ErrorKind::ResourceBusy),
        (Error::Deadline { state }, ErrorKind::TimedOut),
        (Error::TokenExpired, ErrorKind::TimedOut),
        (Error::PoolEmpty { slots: 1 }, ErrorKind::TimedOut),
        (Error::PoolFull { max: 1 }, ErrorKind::WouldBlock),
        (
            Error::SlotsOut { out: 1, slots: 2 },
            ErrorKind::ResourceBusy,
        ),
        (
            Error::PoolSize { slots: 0, max: 1 },
            ErrorKind::InvalidInput,
        ),
        (
            Error::RemoteWriteNeedsUnsafe { access },
            ErrorKind::PermissionDenied,
        ),
        (Error::ReadOnlyMemory, ErrorKind::PermissionDenied),
        (
            Error::MissingRight { needed, access },
            ErrorKind::PermissionDenied,
        ),
        (Error::Closed, ErrorKind::NotConnected),
        (Error::NoDevice, ErrorKind::NotFound),
        (Error::UnknownCompletion { wr_id: 1 }, ErrorKind::NotFound),
        (Error::Register(other()), ErrorKind::Unsupported),
        (Error::Deregister(other()), ErrorKind::Unsupported),
        (Error::ZeroLength, ErrorKind::InvalidInput),
        (Error::NotAdjacent, ErrorKind::InvalidInput),
        (Error::DeadlineOverflow, ErrorKind::InvalidInput),
    ];
    for (error, kind) in cases {
        let text = error.to_string();
        let io = io::Error::from(error);
        assert_eq!((io.kind(), io.to_string()), (kind, text));
        assert!(io.get_ref().is_some_and(|inner| inner.is::<Error>()));
    }
}

#[test]
fn r19_question_mark_works_in_both_worlds() {
    fn ours(pd: &Arc<ProtectionDomain>) -> Result<LocalMr> {
        Ok(LocalMr::register(pd, Vec::new())?)
    }
    fn std(pd: &Arc<ProtectionDomain>) -> io::Result<LocalMr> {
        let mut mr = LocalMr::alloc(pd, 8)?;
        let part = mr.split_to(2)?;
        drop(part.begin_read()?);
        Ok(LocalMr::register(pd, Vec::new())?)
    }
    let (nic, pd) = domain();
    assert!(matches!(ours(&pd), Err(Error::ZeroLength)));
    assert_eq!(kind(std(&pd)), ErrorKind::InvalidInput);
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r19_no_write_by_the_nic_without_the_right() {
    let (_nic, pd) = domain();
    let mr = MrOptions::new()
        .access(Access::REMOTE_READ)
        .alloc(&pd, 8)
        .unwrap();
    for refused in [
        mr.begin_write(),
        mr.try_begin_write(),
        mr.begin_write_until(far()),
    ] {
        assert!(
            matches!(refused, Err(Error::MissingRight { needed: Access::LOCAL_WRITE, access })
                if access == Access::REMOTE_READ)
        );
    }
    let refused = mr.begin_write_with(|| unreachable!());
    assert!(matches!(refused, Err(Error::MissingRight { .. })));
    let refused = Driven::new(mr.begin_write_async()).poll();
    assert!(matches!(
        refused,
        Poll::Ready(Err(Error::MissingRight { .. }))
    ));
    assert!(mr.state().is_free());
    drop(mr.begin_read().unwrap());
}

#[test]
fn r19_a_refused_future_gives_no_hold_when_it_is_polled_again() {
    let (_nic, pd) = domain();
    let mr = MrOptions::new()
        .access(Access::REMOTE_READ)
        .alloc(&pd, 8)
        .unwrap();
    let mut future = Driven::new(mr.begin_write_async());
    assert!(future.poll().is_ready());
    let again = catch_unwind(AssertUnwindSafe(|| future.poll()));
    assert!(!matches!(again, Ok(Poll::Ready(Ok(_)))));
}
