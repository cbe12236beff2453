//! How a region comes and goes: rights (R4, R6), and the order of teardown, also
//! when the provider refuses (R14).
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::io::{self, ErrorKind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdma_mr::backend::soft::{Fault, Nic, ProtectionDomain, When};
use rdma_mr::op::Begin;
use rdma_mr::registration::{
    AtomicCap, Deregister, Mapping, Pages, Registered, Registrar, StableMemory,
};
use rdma_mr::work::WcStatus;
use rdma_mr::{
    Access, Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions, SharedMr,
    SharedMrAccess, leaks,
};
use util::*;

fn domain() -> (Nic, Arc<ProtectionDomain>) {
    let nic = Nic::builder().stepped().build();
    let pd = nic.alloc_pd();
    (nic, pd)
}

/// `leaks()` counts for the whole process: who leaks on purpose holds this.
fn leaking() -> MutexGuard<'static, ()> {
    static LEAKING: Mutex<()> = Mutex::new(());
    LEAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened, in order.
type Log = Arc<Mutex<Vec<&'static str>>>;

fn logged(log: &Log) -> Vec<&'static str> {
    log.lock().unwrap().clone()
}

/// Memory that says when it is freed.
struct Tracked {
    bytes: Box<[u8]>,
    log: Log,
}

impl Tracked {
    fn new(length: usize, log: &Log) -> Self {
        Tracked {
            bytes: vec![7; length].into(),
            log: log.clone(),
        }
    }
}

// SAFETY: MEM-1 to MEM-4 as for `Box<[u8]>`.
unsafe impl StableMemory for Tracked {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.log.lock().unwrap().push("freed");
    }
}

/// A registrar that writes down what is asked of it, and refuses to deregister when told so.
struct Recorder {
    log: Log,
    refuse: Arc<AtomicBool>,
}

impl Recorder {
    fn new() -> (Arc<Self>, Log, Arc<AtomicBool>) {
        let (log, refuse) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let recorder = Recorder {
            log: log.clone(),
            refuse: refuse.clone(),
        };
        (Arc::new(recorder), log, refuse)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.log.lock().unwrap().push("domain gone");
    }
}

// SAFETY: REG-1, REG-2, REG-3: there is no NIC, so nothing touches the bytes.
unsafe impl Registrar for Recorder {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        self.log.lock().unwrap().push("registered");
        Ok(Registered {
            lkey: 0x1111_1111,
            rkey: 0x2222_2222,
            handle: Box::new(RecorderHandle(self.log.clone(), self.refuse.clone())),
        })
    }
}

struct RecorderHandle(Log, Arc<AtomicBool>);

// SAFETY: DEREG-1, DEREG-2, DEREG-3: there is no NIC.
unsafe impl Deregister for RecorderHandle {
    fn deregister(&mut self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            self.0.lock().unwrap().push("refused");
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        self.0.lock().unwrap().push("deregistered");
        Ok(())
    }
}

#[test]
fn r3_a_backend_that_says_nothing_of_atomics_has_none_that_agree() {
    let (pd, ..) = Recorder::new();
    let mr = SharedMr::alloc(&pd, 8, Access::all()).unwrap();
    let refused = mr.fetch_add(0, 1).unwrap_err();
    let none = matches!(
        &refused,
        Error::AtomicsNotGlobal {
            cap: AtomicCap::None
        }
    );
    assert!(none, "{refused:?}");
    assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::Unsupported);
    assert_eq!(mr.cpu_fetch_add(0, 1).unwrap(), 0);
}

#[test]
fn r4_the_default_is_local_write_alone() {
    let (_nic, pd) = domain();
    for mr in [
        LocalMr::alloc(&pd, 8).unwrap(),
        LocalMr::register(&pd, vec![0; 8]).unwrap(),
        MrOptions::new().alloc(&pd, 8).unwrap(),
    ] {
        assert_eq!(mr.access(), Access::LOCAL_WRITE);
        assert_eq!(mr.get(1..).unwrap().access(), Access::LOCAL_WRITE);
        let token = mr.token_with_timeout(LONG).unwrap();
        let refused = token.target(.., Access::REMOTE_READ);
        assert!(matches!(refused, Err(Error::MissingRight { .. })));
    }
}

#[test]
fn r4_no_peer_reaches_a_region_by_default() {
    let mut pair = Pair::stepped();
    let (here, there) = (pair.alloc(8), pair.region(&[5; 8]));
    pair.start_read(&there, &here);
    assert_eq!(pair.settle()[0].status, WcStatus::RemAccessErr);
    let mut pair = Pair::stepped();
    let (here, there) = (pair.alloc(8), pair.region(&[5; 8]));
    let hold = here.begin_read().unwrap();
    pair.a.write(hold, remote(&there), None).unwrap();
    assert_eq!(pair.settle()[0].status, WcStatus::RemAccessErr);
    assert_eq!(*there.as_slice(), [5; 8]);
}

#[test]
fn r6_remote_write_goes_through_the_unsafe_door_only() {
    let mut pair = Pair::stepped();
    for right in [Access::REMOTE_WRITE, Access::REMOTE_ATOMIC] {
        let options = MrOptions::new().access(Access::LOCAL_WRITE | right);
        let refused = options.register(&pair.pd, vec![3; 8]).unwrap_err();
        assert!(
            matches!(refused.error, Error::RemoteWriteNeedsUnsafe { access }
            if access == Access::LOCAL_WRITE | right)
        );
        assert_eq!(refused.value, [3; 8]);
        assert_eq!(
            kind(options.alloc(&pair.pd, 8)),
            ErrorKind::PermissionDenied
        );
    }
    pair.assert_nothing_registered();

    // SAFETY: REMOTE-1, REMOTE-2: the write below is over before the bytes are looked at.
    let there = unsafe { MrOptions::new().grant_remote_write() }
        .access(Access::LOCAL_WRITE | Access::REMOTE_WRITE)
        .alloc(&pair.pd, 8)
        .unwrap();
    let token = there.token_with_timeout(LONG).unwrap();
    let from = pair.region(&[9; 4]);
    let target = token.target(2..6, Access::REMOTE_WRITE).unwrap();
    pair.a
        .write(from.begin_read().unwrap(), target, None)
        .unwrap();
    pair.finish(1);
    assert_eq!(*there.as_slice(), [0, 0, 9, 9, 9, 9, 0, 0]);
}

#[test]
fn r14_close_gives_the_memory_back() {
    let (nic, pd) = domain();
    let mut mr = LocalMr::register(&pd, vec![1; 10]).unwrap();
    mr.as_mut_slice()[9] = 2;
    let memory = mr.close().unwrap();
    assert!(memory.is::<Vec<u8>>() && !memory.is::<Box<[u8]>>());
    assert_eq!(memory.length(), 10);
    let memory = memory.downcast::<Mapping>().expect_err("it is no Mapping");
    assert_eq!(
        memory.downcast::<Vec<u8>>().unwrap(),
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 2]
    );

    let boxed: Box<[u8]> = vec![4; 3].into();
    let memory = LocalMr::register(&pd, boxed).unwrap().close().unwrap();
    assert_eq!(*memory.downcast::<Box<[u8]>>().unwrap(), [4; 3]);

    for pages in [Pages::Default, Pages::Transparent] {
        let mr = MrOptions::new().pages(pages).alloc(&pd, 5000).unwrap();
        assert!(mr.as_slice().iter().all(|byte| *byte == 0), "zeroed");
        let mut mapping = mr.close().unwrap().downcast::<Mapping>().unwrap();
        assert_eq!(
            (mapping.length(), mapping.as_mut_ptr() as usize % 4096),
            (5000, 0)
        );
    }

    let log = Log::default();
    let mr = LocalMr::register(&pd, Tracked::new(6, &log)).unwrap();
    let tracked = mr.close().unwrap().downcast::<Tracked>().unwrap();
    assert_eq!((&*tracked.bytes, logged(&log).len()), (&[7; 6][..], 0));
    drop(tracked);
    assert_eq!(logged(&log), ["freed"]);
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r14_close_with_an_operation_in_flight_gives_the_region_back() {
    let mut pair = Pair::stepped();
    let (from, to) = (pair.region(&pattern(1, 8)), pair.alloc(8));
    let (lkey, addr) = (to.lkey(), to.addr());
    pair.start_message(&from, &to);
    let (to, error) = to.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(
        error.to_string().contains("a NIC write in flight"),
        "{error}"
    );
    let (from, error) = from.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!((to.lkey(), to.addr()), (lkey, addr));
    pair.finish(2);
    assert_eq!(*to.as_slice(), *pattern(1, 8));
    to.close().unwrap();
    from.close().unwrap();
    pair.assert_nothing_registered();
}

#[test]
fn r14_close_with_parts_alive_gives_the_region_back() {
    let (nic, pd) = domain();
    let mut mr = LocalMr::register(&pd, vec![6; 12]).unwrap();
    let (front, back) = (mr.split_to(4).unwrap(), mr.split_off(4).unwrap());
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(error.to_string().starts_with("2 other part"), "{error}");
    drop(front);
    // A part that is gone counts for as long as an operation has it.
    let hold = back.begin_read().unwrap();
    drop(back);
    let (mr, error) = mr.close().unwrap_err();
    assert!(error.to_string().starts_with("1 other part"), "{error}");
    drop(hold);
    assert_eq!(mr.close().unwrap().downcast::<Vec<u8>>().unwrap(), [6; 12]);
    assert_eq!(nic.stats().registrations, 0);
}

#[test]
fn r14_close_that_the_provider_refuses_gives_a_region_that_works() {
    let mut pair = Pair::stepped();
    let (from, mr) = (pair.region(&pattern(2, 8)), pair.alloc(8));
    let (keys, addr) = ((mr.lkey(), mr.rkey()), mr.addr());
    pair.nic.inject(Fault::Deregister, When::Nth(1));
    let (mut mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(
        error.to_string().contains("refused to deregister"),
        "{error}"
    );
    assert_eq!(
        ((mr.lkey(), mr.rkey()), mr.addr(), mr.length()),
        (keys, addr, 8)
    );
    pair.start_message(&from, &mr);
    assert!(mr.try_as_slice().is_none());
    pair.finish(2);
    assert_eq!(*mr.as_slice(), *pattern(2, 8));
    mr.as_mut_slice().fill(0);
    mr.close().unwrap();
    from.close().unwrap();
    pair.assert_nothing_registered();
}

#[test]
fn r14_a_refused_close_leaves_the_region_shut_down() {
    let (nic, pd) = domain();
    let mr = LocalMr::alloc(&pd, 8).unwrap();
    mr.shutdown();
    nic.inject(Fault::Deregister, When::Nth(1));
    let (mr, _) = mr.close().unwrap_err();
    assert!(matches!(mr.try_begin_write(), Err(Error::Closed)));
}

#[test]
fn r14_a_refused_deregistration_in_drop_leaks_and_counts() {
    let _leaking = leaking();
    let before = leaks();
    let (recorder, log, refuse) = Recorder::new();
    let mr = LocalMr::register(&recorder, Tracked::new(100, &log)).unwrap();
    refuse.store(true, Ordering::SeqCst);
    drop(mr);
    assert_eq!(logged(&log), ["registered", "refused"], "not freed");
    let after = leaks();
    assert_eq!(after.registrations - before.registrations, 1);
    assert_eq!(after.bytes - before.bytes, 100);

    let (nic, pd) = domain();
    nic.inject(Fault::Deregister, When::Nth(1));
    drop(LocalMr::alloc(&pd, 5000).unwrap());
    assert_eq!(leaks().bytes - after.bytes, 5000);
    assert_eq!(
        nic.stats().registrations,
        1,
        "in force, and its memory is there"
    );
}

#[test]
fn r14_deregistered_then_freed_and_the_domain_outlives_its_regions() {
    let whole = ["registered", "deregistered", "freed", "domain gone"];
    let (recorder, log, _) = Recorder::new();
    let mr = LocalMr::register(&recorder, Tracked::new(8, &log)).unwrap();
    drop(recorder);
    assert_eq!((mr.lkey(), mr.rkey()), (0x1111_1111, 0x2222_2222));
    drop(mr);
    assert_eq!(logged(&log), whole);

    // The last of the parts and holds ends it, whichever it is.
    let (recorder, log, _) = Recorder::new();
    let mut mr = LocalMr::register(&recorder, Tracked::new(8, &log)).unwrap();
    drop(recorder);
    let part = mr.split_off(4).unwrap();
    let hold = part.begin_write().unwrap();
    drop((mr, part));
    assert_eq!(logged(&log), ["registered"]);
    drop(hold);
    assert_eq!(logged(&log), whole);

    // Closed, the memory comes out when nothing is registered any more.
    let (recorder, log, refuse) = Recorder::new();
    let mr = LocalMr::register(&recorder, Tracked::new(8, &log)).unwrap();
    drop(recorder);
    refuse.store(true, Ordering::SeqCst);
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(
        error.kind(),
        io::Error::from_raw_os_error(libc::EBUSY).kind()
    );
    refuse.store(false, Ordering::SeqCst);
    let memory = mr.close().unwrap();
    let closed = ["registered", "refused", "deregistered", "domain gone"];
    assert_eq!(logged(&log), closed);
    drop(memory);
    assert_eq!(logged(&log).last(), Some(&"freed"));
}
