//! Regions of memory that other code has registered: operations go through them as through the crate's
//! own, and they end in the same order (R14). On the NIC in software, registered by hand.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::io::{self, ErrorKind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rdma_mr::op::{Begin, Hold};
use rdma_mr::registration::{Adoption, Registered, Registrar};
use rdma_mr::{
    Access, Error, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions,
    Rejected, leaks,
};
use util::*;

const LENGTH: usize = 16;
const LOCAL: Access = Access::LOCAL_WRITE;

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Memory of another binding, and what has become of it: the keepalive.
#[derive(Debug)]
struct Owner {
    bytes: NonNull<[u8; LENGTH]>,
    log: Log,
}

// SAFETY: it owns the bytes.
unsafe impl Send for Owner {}
// SAFETY: nothing is reached through `&self` but by who has got it back.
unsafe impl Sync for Owner {}

impl Owner {
    fn new() -> Self {
        Owner {
            bytes: NonNull::from(Box::leak(Box::new([7; LENGTH]))),
            log: Log::default(),
        }
    }

    /// For who has it back.
    fn bytes(&self) -> [u8; LENGTH] {
        // SAFETY: the bytes are there until the drop, and nobody else has them.
        unsafe { self.bytes.read() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.log.lock().unwrap().push("freed");
        // SAFETY: it came from a box.
        drop(unsafe { Box::from_raw(self.bytes.as_ptr()) });
    }
}

/// The owner's memory, registered by its own means, and handed over as numbers. It refuses to
/// deregister when told so.
fn registered(
    pd: &Arc<impl Registrar>,
    owner: &Owner,
    access: Access,
    refuse: &Arc<AtomicBool>,
) -> Adoption {
    // SAFETY: REG-4: whoever adopts it has the owner as keepalive.
    let registered = unsafe { pd.register(owner.bytes.cast(), LENGTH, access) }.unwrap();
    let (lkey, rkey, mut handle) = (registered.lkey, registered.rkey, registered.handle);
    let (log, refuse) = (owner.log.clone(), refuse.clone());
    let end = move || {
        if refuse.load(Ordering::SeqCst) {
            log.lock().unwrap().push("refused");
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        log.lock().unwrap().push("deregistered");
        handle.deregister()
    };
    Adoption {
        addr: owner.bytes.as_ptr().cast(),
        length: LENGTH,
        // SAFETY: DEREG-1 to DEREG-3: as the handle of the NIC, which it calls.
        registered: unsafe { Registered::ended_by(lkey, rkey, end) },
    }
}

/// An adopted region of 16 bytes with the value 7, what happens to it, and how to make it refuse.
fn adopted(pair: &Pair, options: MrOptions, access: Access) -> (LocalMr, Log, Arc<AtomicBool>) {
    let (owner, refuse) = (Owner::new(), Arc::default());
    let log = owner.log.clone();
    let adoption = registered(&pair.pd, &owner, access, &refuse);
    // SAFETY: ADOPT-1, ADOPT-3: the owner keeps the bytes and does nothing with them; ADOPT-2: they
    // were registered a moment ago.
    let mr = unsafe { options.access(access).adopt(adoption, owner) };
    (mr.unwrap(), log, refuse)
}

fn logged(log: &Log) -> Vec<&'static str> {
    log.lock().unwrap().clone()
}

#[test]
fn r9_operations_go_through_an_adopted_region() {
    let mut pair = Pair::stepped();
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when the operations on it are over.
    let options = unsafe { MrOptions::new().grant_remote_write() };
    let (mut mr, log, _) = adopted(&pair, options, Access::all());
    assert_eq!((mr.length(), mr.access()), (LENGTH, Access::all()));
    assert_eq!(*mr.as_slice(), [7; LENGTH]);
    mr.as_mut_slice()[..8].fill(1);

    let to = pair.alloc(LENGTH);
    pair.start_message(&mr, &to);
    assert!(mr.try_as_mut_slice().is_none() && mr.try_as_slice().is_some());
    pair.finish(2);
    let sent = [1, 1, 1, 1, 1, 1, 1, 1, 7, 7, 7, 7, 7, 7, 7, 7];
    assert_eq!(*to.as_slice(), sent);

    let from = pair.region(&[5; 4]);
    pair.start_message(&from, &mr.get(4..8).unwrap());
    assert!(mr.try_as_slice().is_none());
    pair.finish(2);
    let expected = [1, 1, 1, 1, 5, 5, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7];
    assert_eq!(*mr.as_slice(), expected);

    let mut theirs = rdma_mr::RemoteMr::new(mr.token_with_timeout(LONG).unwrap()).unwrap();
    let hold = from.begin_read().unwrap();
    pair.a
        .write(hold, theirs.get_mut(12..).unwrap(), None)
        .unwrap();
    pair.finish(1);
    assert_eq!(mr.as_slice()[8..], [7, 7, 7, 7, 5, 5, 5, 5]);

    let part = mr.split_off(8).unwrap();
    let wr_id = part.begin_write().unwrap().into_wr_id();
    assert!(mr.try_as_slice().is_some() && part.try_as_slice().is_none());
    drop((mr, part));
    assert!(logged(&log).is_empty());
    // SAFETY: WRID-1 to WRID-3: it is that number, turned back once, and was never posted.
    drop(unsafe { Hold::from_wr_id(wr_id) });
    assert_eq!(logged(&log), ["deregistered", "freed"]);
}

#[test]
fn r14_close_gives_the_keepalive_back() {
    let pair = Pair::stepped();
    let (mut mr, log, _) = adopted(&pair, MrOptions::new(), LOCAL);
    mr.as_mut_slice()[1] = 9;
    let memory = mr.close().unwrap();
    assert_eq!(memory.length(), LENGTH);
    assert_eq!(logged(&log), ["deregistered"]);
    pair.assert_nothing_registered();
    let memory = memory
        .into_keepalive::<Vec<u8>>()
        .expect_err("another type");
    let owner = memory.into_keepalive::<Owner>().unwrap();
    assert_eq!(owner.bytes()[..3], [7, 9, 7]);
    drop(owner);
    assert_eq!(logged(&log), ["deregistered", "freed"]);
    // Nor is memory that a region was made of a keepalive, or the other way round.
    let memory = pair.region(&[1; 8]).close().unwrap();
    assert!(memory.into_keepalive::<Vec<u8>>().is_err());
}

#[test]
fn r19_the_keys_are_the_owners_to_change() {
    let pair = Pair::stepped();
    let (mr, log, _) = adopted(&pair, MrOptions::new(), LOCAL);
    let keys = (mr.lkey(), mr.rkey());
    assert_eq!(kind(mr.rotate_keys()), ErrorKind::Unsupported);
    assert_eq!((mr.lkey(), mr.rkey()), keys);
    mr.close().unwrap();
    assert_eq!(logged(&log), ["deregistered", "freed"]);
}

#[test]
fn r14_close_with_an_operation_in_flight_gives_the_region_back() {
    let mut pair = Pair::stepped();
    let (mr, log, refuse) = adopted(&pair, MrOptions::new(), LOCAL);
    let from = pair.region(&[3; LENGTH]);
    pair.start_message(&from, &mr);
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    pair.finish(2);
    refuse.store(true, Ordering::SeqCst);
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    pair.start_message(&from, &mr);
    pair.finish(2);
    refuse.store(false, Ordering::SeqCst);
    let owner = mr.close().unwrap().into_keepalive::<Owner>().unwrap();
    assert_eq!(owner.bytes(), [3; LENGTH]);
    assert_eq!(logged(&log), ["refused", "deregistered"]);
}

#[test]
fn r14_dropped_in_flight_it_ends_with_the_operation() {
    let mut pair = Pair::stepped();
    let (mr, log, _) = adopted(&pair, MrOptions::new(), LOCAL);
    let from = pair.region(&[3; LENGTH]);
    pair.start_message(&from, &mr);
    drop(mr);
    pair.nic.run_until_idle();
    assert!(
        logged(&log).is_empty(),
        "the completion has not been polled"
    );
    pair.finish(2);
    assert_eq!(logged(&log), ["deregistered", "freed"]);
}

#[test]
fn r14_a_refused_deregistration_in_drop_leaks_the_keepalive() {
    let before = leaks();
    let pair = Pair::stepped();
    let (mr, log, refuse) = adopted(&pair, MrOptions::new(), LOCAL);
    refuse.store(true, Ordering::SeqCst);
    drop(mr);
    assert_eq!(logged(&log), ["refused"], "not freed");
    let after = leaks();
    assert_eq!(after.registrations - before.registrations, 1);
    assert_eq!(after.bytes - before.bytes, LENGTH as u64);
    assert_eq!(pair.nic.stats().registrations, 1);
}

#[test]
fn r14_a_lent_registration_is_its_owners_to_end() {
    let pair = Pair::stepped();
    let owner = Owner::new();
    let log = owner.log.clone();
    // SAFETY: REG-4: the owner is dropped after the handle below.
    let registered = unsafe { pair.pd.register(owner.bytes.cast(), LENGTH, LOCAL) }.unwrap();
    let adoption = Adoption {
        addr: owner.bytes.as_ptr().cast(),
        length: LENGTH,
        // SAFETY: LENT-1: ended below, when the keepalive is back.
        registered: unsafe { Registered::lent(registered.lkey, registered.rkey) },
    };
    // SAFETY: ADOPT-1 to ADOPT-3, as in `adopted`.
    let mr = unsafe { MrOptions::new().adopt(adoption, owner) }.unwrap();
    let owner = mr.close().unwrap().into_keepalive::<Owner>().unwrap();
    assert_eq!(pair.nic.stats().registrations, 1);
    let mut handle = registered.handle;
    handle.deregister().unwrap();
    pair.assert_nothing_registered();
    drop(owner);
    assert_eq!(logged(&log), ["freed"]);
}

#[test]
fn r19_what_no_region_can_be_comes_back() {
    let pair = Pair::stepped();
    let top = ptr::without_provenance_mut::<u8>(usize::MAX - 7);
    let here = Owner::new().bytes.as_ptr().cast::<u8>();
    let write = Access::REMOTE_WRITE;
    // SAFETY: REMOTE-1, REMOTE-2: no region comes to be.
    let granted = unsafe { MrOptions::new().grant_remote_write() };
    type Fits = fn(&Error) -> bool;
    let cases: [(MrOptions, *mut u8, usize, Fits); 7] = [
        (MrOptions::new(), here, 0, |e| {
            matches!(e, Error::ZeroLength)
        }),
        (MrOptions::new(), here, usize::MAX, |e| {
            matches!(e, Error::TooLong { length: usize::MAX })
        }),
        (MrOptions::new(), ptr::null_mut(), 8, |e| {
            matches!(e, Error::NullAddress)
        }),
        (MrOptions::new(), top, 8, |e| {
            matches!(e, Error::AddressOverflow { length: 8, .. })
        }),
        (granted.access(write), here, 8, |e| {
            matches!(e, Error::RemoteWithoutLocalWrite { .. })
        }),
        (granted.access(Access::REMOTE_ATOMIC), here, 8, |e| {
            matches!(e, Error::RemoteWithoutLocalWrite { .. })
        }),
        (MrOptions::new().access(LOCAL | write), here, 8, |e| {
            matches!(e, Error::RemoteWriteNeedsUnsafe { .. })
        }),
    ];
    for (at, (options, addr, length, fits)) in cases.into_iter().enumerate() {
        let (owner, refuse) = (Owner::new(), Arc::default());
        let log = owner.log.clone();
        let mut adoption = registered(&pair.pd, &owner, LOCAL, &refuse);
        let keys = (adoption.registered.lkey, adoption.registered.rkey);
        (adoption.addr, adoption.length) = (addr, length);
        // SAFETY: ADOPT-1: these are no bytes at all, and are refused.
        let rejected = unsafe { options.adopt(adoption, owner) }.unwrap_err();
        let Rejected { value, error } = rejected;
        assert!(fits(&error), "case {at}: {error:?}");
        let (mut adoption, owner) = value;
        assert_eq!((adoption.addr, adoption.length), (addr, length));
        assert_eq!((adoption.registered.lkey, adoption.registered.rkey), keys);
        assert!(logged(&log).is_empty(), "case {at}");
        adoption.registered.handle.deregister().unwrap();
        assert_eq!(owner.bytes(), [7; LENGTH]);
    }
    pair.assert_nothing_registered();
}

#[test]
fn r14_adopted_on_a_domain_it_can_be_lent_and_registered_anew() {
    let mut pair = Pair::stepped();
    let (owner, refuse) = (Owner::new(), Arc::default());
    let log = owner.log.clone();
    let adoption = registered(&pair.pd, &owner, LOCAL, &refuse);
    // SAFETY: ADOPT-1, ADOPT-3: the owner keeps the bytes and does nothing with them; ADOPT-2: they
    // were registered a moment ago.
    let mr = unsafe { MrOptions::new().adopt_on(&pair.pd, adoption, owner) }.unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let lease = mr.lease(8.., Access::REMOTE_WRITE, hour).unwrap();
    let from = pair.region(&[1; 8]);
    let target = rdma_mr::RemoteMr::new(lease.token()).unwrap();
    pair.a
        .write(from.begin_read().unwrap(), target, None)
        .map_err(|rejected| rejected.error)
        .unwrap();
    pair.finish(1);
    lease.revoke().unwrap();
    assert_eq!(
        *mr.as_slice(),
        [7, 7, 7, 7, 7, 7, 7, 7, 1, 1, 1, 1, 1, 1, 1, 1]
    );
    let old = mr.lkey();
    mr.rotate_keys().unwrap();
    assert_ne!(mr.lkey(), old);
    // The registration that was adopted is over, by its owner's means, and the memory is not.
    assert_eq!(logged(&log), ["deregistered"]);
    let memory = mr.close().map_err(|(_, error)| error).unwrap();
    drop(memory.into_keepalive::<Owner>().map_err(drop).unwrap());
    assert_eq!(logged(&log), ["deregistered", "freed"]);
    drop(from);
    pair.assert_nothing_registered();
}

#[test]
fn r6_adopted_it_is_given_rights_for_peers_as_it_was_granted() {
    let pair = Pair::stepped();
    // SAFETY: REMOTE-1, REMOTE-2: no peer learns a key.
    let granted = unsafe { MrOptions::new().grant_remote_write() };
    for (options, may) in [(MrOptions::new(), false), (granted, true)] {
        let owner = Owner::new();
        let adoption = registered(&pair.pd, &owner, LOCAL, &Arc::default());
        // SAFETY: ADOPT-1, ADOPT-3: the owner keeps the bytes and does nothing with them; ADOPT-2: they
        // were registered a moment ago.
        let mr = unsafe { options.adopt_on(&pair.pd, adoption, owner) }.unwrap();
        match mr.reregister(LOCAL | Access::REMOTE_WRITE) {
            Ok(()) => assert!(may && mr.access().lets_peers_write()),
            Err(error) => {
                assert!(!may && matches!(error, Error::RemoteWriteNeedsUnsafe { .. }));
            }
        }
    }
    pair.assert_nothing_registered();
}

#[test]
fn r19_without_a_domain_it_can_not_be_lent() {
    let pair = Pair::stepped();
    let (mr, _, _) = adopted(&pair, MrOptions::new(), LOCAL);
    let hour = std::time::Duration::from_secs(3600);
    let refused = mr.lease(.., Access::REMOTE_READ, hour);
    assert!(matches!(&refused, Err(Error::Register(e)) if e.kind() == ErrorKind::Unsupported));
    assert!(mr.state().is_free());
}
