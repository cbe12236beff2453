//! A peer's memory as the target of operations: range, rights and deadline are checked before anything
//! is posted, and whoever is refused gets the holds back. On the NIC in software and on a device.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_lite::future::{block_on, zip};
use rdma_mr::op::{Begin, Endpoint, Gather, Hold, OpId, Poller, SendRequest};
use rdma_mr::work::{QpCaps, SendFlags, SendOp, WcStatus};
use rdma_mr::{
    Access, Error, LocalMr, LocalMrReadAccess, MrAccess, MrOptions, MrToken, Rejected, RemoteMr,
};

use crate::fabric::{Fabric, finish, remote};

/// Each of them as a test with these attributes, on that fabric.
macro_rules! tests {
    ([$($attributes:tt)*] $fabric:expr) => {
        $crate::fabric::tests! { suite [$($attributes)*] $fabric =>
            r20_operations_reach_exactly_the_bytes_of_their_slice
            r20_the_same_as_futures
            r19_more_bytes_than_the_peers_are_refused
            r19_rights_that_were_not_granted_are_refused
            r19_misaligned_integers_are_refused
            r19_lists_are_checked_before_anything_is_posted
            r20_the_deadline_is_looked_at_for_each_operation
            r20_a_future_looks_at_the_deadline_when_it_posts
            r19_a_write_without_bytes_is_checked_too
            r20_plain_numbers_are_the_peers_to_refuse
        }
    };
}
pub(crate) use tests;

const HOUR: Duration = Duration::from_secs(3600);

fn token(mr: &LocalMr) -> MrToken {
    mr.token_with_timeout(HOUR).unwrap()
}

fn open(mr: &LocalMr) -> RemoteMr {
    RemoteMr::new(token(mr)).unwrap()
}

/// 64 bytes of that value for peers to do anything with.
fn there<F: Fabric>(fabric: &F, byte: u8) -> LocalMr {
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when the operations on it are over.
    unsafe { fabric.open_to_peers(&[byte; 64]) }
}

/// One operation, and it succeeded.
#[track_caller]
fn succeed<F: Fabric>(end: &mut Endpoint<F::Qp>, id: OpId) {
    let done = finish(end, 1)[0];
    assert_eq!((done.id, done.status), (id, WcStatus::Success));
}

/// It was refused, and its hold is here.
#[track_caller]
fn refused(rejected: Result<OpId, Rejected<Hold>>, mr: &LocalMr) -> Error {
    let Rejected { value, error } = rejected.unwrap_err();
    assert!(!mr.state().is_free(), "the hold is as it was");
    assert_eq!(value.sge().addr, mr.addr() as u64);
    drop(value);
    assert!(mr.state().is_free());
    error
}

/// Nothing was posted, and the queue pair goes on.
#[track_caller]
fn goes_on<F: Fabric>(end: &mut Endpoint<F::Qp>, here: &LocalMr, there: &LocalMr) {
    assert_eq!(end.outstanding(), (0, 0));
    let id = end.write(here.begin_read().unwrap(), remote(there), None);
    succeed::<F>(end, id.unwrap());
}

/// All four operations by these, in turn.
fn all_four<F: Fabric>(
    end: &mut Endpoint<F::Qp>,
    here: &LocalMr,
    mut check: impl FnMut(&mut Endpoint<F::Qp>, SendOp, Result<OpId, Rejected<Hold>>),
    remote: &mut RemoteMr,
) {
    let at = rdma_mr::work::RemoteAddr::default();
    let read = || here.begin_read().unwrap();
    let write = || here.begin_write().unwrap();
    let posted = end.write(read(), &mut *remote, None);
    let op = SendOp::Write {
        remote: at,
        imm: None,
    };
    check(end, op, posted);
    let posted = end.read(write(), &*remote);
    check(end, SendOp::Read { remote: at }, posted);
    let posted = end.fetch_add(write(), &*remote, 1);
    check(end, SendOp::FetchAdd { remote: at, add: 1 }, posted);
    let posted = end.compare_swap(write(), &*remote, 0, 1);
    let op = SendOp::CompareSwap {
        remote: at,
        compare: 0,
        swap: 1,
    };
    check(end, op, posted);
}

pub fn r20_operations_reach_exactly_the_bytes_of_their_slice<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let there = there(fabric, 5);
    let mut remote = open(&there);
    let here = fabric.region(&[9; 8]);
    let mut slice = remote.get_mut(8..32).unwrap();
    let mut slice = slice.get_mut(8..16).unwrap();
    assert_eq!(
        (slice.addr(), slice.length()),
        (there.addr() as u64 + 16, 8)
    );
    let id = a.write(here.begin_read().unwrap(), &mut slice, None);
    succeed::<F>(&mut a, id.unwrap());
    let mut expected = [5; 64];
    expected[16..24].fill(9);
    assert_eq!(*there.as_slice(), expected);

    let id = a.fetch_add(here.begin_write().unwrap(), &slice, 1);
    succeed::<F>(&mut a, id.unwrap());
    assert_eq!(*here.as_slice(), [9; 8]);
    let (before, after) = (u64::from_ne_bytes([9; 8]) + 1, 77u64);
    let slice = slice.get(..).unwrap();
    let id = a.compare_swap(here.begin_write().unwrap(), slice, before, after);
    succeed::<F>(&mut a, id.unwrap());
    assert_eq!(*here.as_slice(), before.to_ne_bytes());
    expected[16..24].copy_from_slice(&after.to_ne_bytes());
    assert_eq!(*there.as_slice(), expected);

    // Part of a region, and what the read-only slice starts with.
    let part = here.get(..4).unwrap().begin_write().unwrap();
    let id = a.read(part, remote.get(14..40).unwrap());
    succeed::<F>(&mut a, id.unwrap());
    assert_eq!(here.as_slice()[..4], expected[14..18]);
    // Several regions, as many bytes as the peer's in all.
    let tail = fabric.alloc(6);
    let holds = Gather::new([&here, &tail]).begin_write().unwrap();
    let id = a.read(holds, remote.get(10..24).unwrap());
    succeed::<F>(&mut a, id.map_err(|rejected| rejected.error).unwrap());
    assert_eq!(*here.as_slice(), expected[10..18]);
    assert_eq!(*tail.as_slice(), expected[18..24]);
}

pub fn r20_the_same_as_futures<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let _polling = poller.spawn("poller").unwrap();
    let (a, b) = fabric.asynchronous(&poller, QpCaps::default());
    let there = there(fabric, 5);
    let mut remote = open(&there);
    let (here, inbox) = (fabric.region(&[9; 8]), fabric.alloc(8));
    block_on(async {
        a.write(&here, remote.get_mut(..8).unwrap()).await.unwrap();
        a.read(&inbox, &remote).await.unwrap();
        assert_eq!(*inbox.as_slice(), [9; 8]);
        let write = a.write_with_imm(&here, &mut remote, 3);
        let (written, received) = zip(write, b.recv(&inbox)).await;
        assert_eq!((written.is_ok(), received.unwrap().imm), (true, Some(3)));
        let integer = remote.get(16..24).unwrap();
        let add = |mr| a.fetch_add(mr, integer, 1);
        let (one, two) = zip(add(&here), add(&inbox)).await;
        assert!(one.is_ok() && two.is_ok(), "several at a time");
        let five = u64::from_ne_bytes([5; 8]) + 2;
        a.compare_swap(&here, integer, five, 1).await.unwrap();
        assert_eq!(there.as_slice()[16..24], 1u64.to_ne_bytes());
        let long = fabric.alloc(9);
        let refused = a.read(&long, integer).await.unwrap_err();
        assert!(matches!(refused, Error::RangeOutside { .. }));
        assert!(long.state().is_free());
    });
}

pub fn r19_more_bytes_than_the_peers_are_refused<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, there) = (fabric.alloc(8), there(fabric, 5));
    let mut remote = open(&there);
    let too_long = |rejected| {
        let error = refused(rejected, &here);
        let told = matches!(
            error,
            Error::RangeOutside {
                start: 0,
                end: 8,
                length: 7
            }
        );
        assert!(told, "{error:?}");
    };
    let mut slice = remote.get_mut(..7).unwrap();
    too_long(a.write(here.begin_read().unwrap(), &mut slice, None));
    too_long(a.read(here.begin_write().unwrap(), &slice));
    too_long(a.fetch_add(here.begin_write().unwrap(), &slice, 1));
    too_long(a.compare_swap(here.begin_write().unwrap(), &slice, 0, 1));
    // A hold that was a number in between has a length again.
    let wr_id = here.begin_read().unwrap().into_wr_id();
    // SAFETY: WRID-1 to WRID-3: it is that number, turned back once, and was never posted.
    let hold = unsafe { Hold::from_wr_id(wr_id) };
    too_long(a.write(hold, &mut slice, None));
    let holds = Gather::new([&here, &here]).begin_write().unwrap();
    let rejected = a.read(holds, remote.get(..15).unwrap()).unwrap_err();
    assert!(matches!(
        rejected.error,
        Error::RangeOutside {
            end: 16,
            length: 15,
            ..
        }
    ));
    assert_eq!(rejected.value.sges().len(), 2);
    drop(rejected);
    goes_on::<F>(&mut a, &here, &there);
}

pub fn r19_rights_that_were_not_granted_are_refused<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let here = fabric.alloc(8);
    let rights = [
        Access::empty(),
        Access::REMOTE_WRITE,
        Access::REMOTE_READ,
        Access::REMOTE_ATOMIC,
    ];
    for granted in rights.map(|right| right | Access::LOCAL_WRITE) {
        // SAFETY: REMOTE-1, REMOTE-2: its bytes are never looked at.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let there = options.access(granted).alloc(fabric.pd(), 8).unwrap();
        let mut remote = open(&there);
        let check = |end: &mut Endpoint<F::Qp>, op: SendOp, posted: Result<OpId, _>| {
            let needs = match op {
                SendOp::Write { .. } => Access::REMOTE_WRITE,
                SendOp::Read { .. } => Access::REMOTE_READ,
                _ => Access::REMOTE_ATOMIC,
            };
            if granted.contains(needs) {
                succeed::<F>(end, posted.unwrap());
                return;
            }
            let error = refused(posted, &here);
            let told = matches!(error, Error::MissingRight { needed, access }
                if needed == needs && access == granted);
            assert!(told, "{error:?}");
        };
        all_four::<F>(&mut a, &here, check, &mut remote);
    }
}

pub fn r19_misaligned_integers_are_refused<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, there) = (fabric.alloc(8), there(fabric, 5));
    let remote = open(&there);
    for offset in 1..8 {
        let integer = remote.get(offset..).unwrap();
        let misaligned = |rejected| {
            let error = refused(rejected, &here);
            let told = matches!(error, Error::Misaligned { addr, align: 8 }
                if addr == there.addr() as u64 + offset as u64);
            assert!(told, "{error:?}");
        };
        misaligned(a.fetch_add(here.begin_write().unwrap(), integer, 1));
        misaligned(a.compare_swap(here.begin_write().unwrap(), integer, 0, 1));
    }
    goes_on::<F>(&mut a, &here, &there);
}

pub fn r19_lists_are_checked_before_anything_is_posted<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, there) = (fabric.region(&[9; 8]), there(fabric, 5));
    let mut remote = open(&there);
    let (one, two) = (fabric.alloc(8), fabric.alloc(8));
    let write = SendRequest::write(
        here.begin_read().unwrap(),
        remote.get_mut(8..16).unwrap(),
        None,
    );
    let mut list = [
        write.unwrap(),
        SendRequest::read(one.begin_write().unwrap(), remote.get(8..).unwrap()).unwrap(),
        SendRequest::fetch_add(two.begin_write().unwrap(), remote.get(8..).unwrap(), 1).unwrap(),
    ];
    assert!(
        list.iter()
            .all(|request| request.flags == SendFlags::SIGNALED)
    );
    list[0].flags = SendFlags::empty();
    let rejected =
        SendRequest::compare_swap(here.begin_read().unwrap(), remote.get(9..).unwrap(), 0, 1)
            .unwrap_err();
    assert!(matches!(rejected.error, Error::Misaligned { .. }));
    drop(rejected);
    assert_eq!(a.outstanding(), (0, 0), "nothing is posted until it is");
    let first = a.post_list(list).unwrap();
    // The first one is told of with the second one.
    for (at, done) in finish(&mut a, 3).iter().enumerate() {
        let expected = (first.after(at as u64), WcStatus::Success);
        assert_eq!((done.id, done.status), expected);
    }
    assert_eq!(
        (&*one.as_slice(), &*two.as_slice()),
        (&[9; 8][..], &[9; 8][..])
    );
}

/// A peer's memory whose deadline is near, and has not passed yet.
fn short_lived(mr: &LocalMr) -> RemoteMr {
    let mut timeout = Duration::from_millis(1);
    loop {
        match RemoteMr::new(mr.token_with_timeout(timeout).unwrap()) {
            Ok(remote) => return remote,
            Err(error) => assert!(matches!(error, Error::TokenExpired), "{error:?}"),
        }
        timeout *= 2;
    }
}

fn let_expire(token: &MrToken) {
    while !token.is_expired() {
        std::thread::yield_now();
    }
}

pub fn r20_the_deadline_is_looked_at_for_each_operation<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, there) = (fabric.alloc(8), there(fabric, 5));
    let mut remote = short_lived(&there);
    let_expire(&remote);
    let late = |_: &mut _, _, posted| {
        let error = refused(posted, &here);
        assert!(matches!(error, Error::TokenExpired), "{error:?}");
    };
    all_four::<F>(&mut a, &here, late, &mut remote);
    let slice = remote.get(..8).unwrap();
    let posted = a.read(here.begin_write().unwrap(), slice);
    assert!(matches!(refused(posted, &here), Error::TokenExpired));
    assert!(matches!(RemoteMr::new(*slice), Err(Error::TokenExpired)));
    goes_on::<F>(&mut a, &here, &there);
}

pub fn r20_a_future_looks_at_the_deadline_when_it_posts<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(64));
    let (a, _b) = fabric.asynchronous(&poller, QpCaps::default());
    let (here, there) = (fabric.alloc(8), there(fabric, 5));
    let mut remote = short_lived(&there);
    let in_the_way = here.begin_write().unwrap();
    let expires = *remote;
    {
        let mut write = pin!(a.write(&here, &mut remote));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(write.as_mut().poll(&mut cx).is_pending());
        let_expire(&expires);
        drop(in_the_way);
        assert!(matches!(block_on(write), Err(Error::TokenExpired)));
    }
    assert!(here.state().is_free());
    assert_eq!(a.outstanding(), (0, 0));
}

pub fn r19_a_write_without_bytes_is_checked_too<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (there, inbox) = (there(fabric, 5), fabric.alloc(8));
    let mut remote = open(&there);
    b.recv(inbox.begin_write().unwrap()).unwrap();
    let id = a.write((), remote.get_mut(60..).unwrap(), Some(4));
    succeed::<F>(&mut a, id.unwrap());
    assert_eq!(finish(&mut b, 1)[0].imm, Some(4));
    assert_eq!(*there.as_slice(), [5; 64]);
    let mut closed = open(&inbox);
    let rejected = a.write((), &mut closed, Some(4)).unwrap_err();
    assert!(matches!(rejected.error, Error::MissingRight { .. }));
}

pub fn r20_plain_numbers_are_the_peers_to_refuse<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, closed) = (fabric.alloc(8), fabric.alloc(4));
    let id = a.write(here.begin_read().unwrap(), remote(&closed), None);
    let done = finish(&mut a, 1)[0];
    assert_eq!(
        (done.id, done.status),
        (id.unwrap(), WcStatus::RemAccessErr)
    );
}
