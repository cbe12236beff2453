//! Queue pairs in ERR: by a call, and by an operation that failed (R11, R12, R16).

use std::thread::sleep;
use std::time::Duration;

use rdma_mr::work::{QpCaps, QueuePair};

use super::*;
use crate::fabric::{finish, remote};

pub fn r11_err_releases_nothing_and_its_flushes_do<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 2), words(fabric, 2));
    // They wait for a receive that never comes.
    let quiet = a.post(from[0].begin_read().unwrap(), SEND, UNSIGNALED);
    let loud = a.post(from[1].begin_read().unwrap(), SEND, SIGNALED);
    let mut sent = vec![quiet.unwrap(), loud.unwrap()];
    let recv = |mr: &LocalMr| a.recv(mr.begin_write().unwrap()).unwrap();
    sent.extend(to.iter().map(recv));
    a.qp().modify_to_error().unwrap();
    assert_read(&from);
    assert_written(&to);
    sleep(Duration::from_millis(20));
    assert_read(&from); // flushed, perhaps, and not polled
    assert_written(&to);
    // Unsignalled ones have a completion of their own then.
    let mut flushed = Vec::new();
    while flushed.len() < sent.len() {
        let done = finish(&mut a, 1);
        flushed.extend(done);
    }
    assert_eq!(statuses(&flushed), [WcStatus::WrFlushErr; 4]);
    let mut ids: Vec<_> = flushed.iter().map(|done| done.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, sent);
    assert_free(from.iter().chain(&to));
}

pub fn r16_a_receive_that_is_posted_in_err<F: Fabric>(fabric: &F) {
    let (a, mut b) = fabric.pair(QpCaps::default());
    let (early, to) = (fabric.alloc(8), fabric.alloc(8));
    b.recv(early.begin_write().unwrap()).unwrap();
    b.qp().modify_to_error().unwrap();
    assert_eq!(finish(&mut b, 1)[0].status, WcStatus::WrFlushErr);
    assert_free([&early]);
    // What is posted while the device flushes may be flushed, too; so not at once.
    sleep(Duration::from_millis(50));
    b.recv(to.begin_write().unwrap()).unwrap();
    if F::FLUSHES_LATE_RECEIVES {
        assert_eq!(finish(&mut b, 1)[0].status, WcStatus::WrFlushErr);
        assert_free([&to]);
    } else {
        sleep(Duration::from_millis(100));
        assert_eq!(b.poll(|_| ()).unwrap(), 0);
        assert_written([&to]);
    }
    b.close().map_err(|(_, error)| error).unwrap();
    assert_free([&to]);
    drop(a);
}

pub fn r12_a_remote_access_error_releases_and_ends_the_queue_pair<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when `a`'s operations are over.
    let open = unsafe { fabric.open_to_peers(&[0; 8]) };
    let shut = fabric.alloc(8); // no right for peers
    let write = |mr| SendOp::Write {
        remote: remote(mr),
        imm: None,
    };
    let (from, to) = (words(fabric, 4), words(fabric, 2));
    a.recv(to[0].begin_write().unwrap()).unwrap();
    b.recv(to[1].begin_write().unwrap()).unwrap();
    let plan = [
        (write(&open), SIGNALED),
        (write(&shut), UNSIGNALED),
        (write(&open), UNSIGNALED),
        (SEND, SIGNALED),
    ];
    for (mr, (op, flags)) in from.iter().zip(plan) {
        a.post(mr.begin_read().unwrap(), op, flags).unwrap();
    }
    assert_read(&from);
    let all = finish(&mut a, 5);
    let (recvs, sends): (Vec<_>, Vec<_>) = all.iter().partition(|done| done.id.is_recv());
    let flushed = WcStatus::WrFlushErr;
    assert_eq!(
        statuses(&sends),
        [WcStatus::Success, WcStatus::RemAccessErr, flushed, flushed]
    );
    assert_eq!(statuses(&recvs), [flushed]);
    assert_free(from.iter().chain(&to[..1]));
    assert_eq!(*shut.as_slice(), [0; 8]);
    // It takes both ends along.
    assert_written(&to[1..]);
    assert_eq!(finish(&mut b, 1)[0].status, flushed);
    assert_free(&to);
    // What is posted now is flushed, or refused, at once.
    match a.post(from[0].begin_read().unwrap(), SEND, SIGNALED) {
        Ok(_) => assert_eq!(finish(&mut a, 1)[0].status, flushed),
        Err(rejected) => drop(rejected),
    }
    assert_free(&from);
}

pub fn r12_a_peer_that_is_gone<F: Fabric>(fabric: &F) {
    let (mut a, b) = fabric.pair(QpCaps::default());
    let (from, to) = (words(fabric, 2), words(fabric, 1));
    drop(b);
    let quiet = a.post(from[0].begin_read().unwrap(), SEND, UNSIGNALED);
    let loud = a.send(from[1].begin_read().unwrap(), None);
    let received = a.recv(to[0].begin_write().unwrap()).unwrap();
    assert_read(&from);
    assert_written(&to);
    let mut all = finish(&mut a, 3);
    all.sort_by_key(|done| done.id);
    let ids: Vec<_> = all.iter().map(|done| done.id).collect();
    assert_eq!(ids, [quiet.unwrap(), loud.unwrap(), received]);
    let flushed = WcStatus::WrFlushErr;
    assert_eq!(statuses(&all), [WcStatus::RetryExcErr, flushed, flushed]);
    assert_free(from.iter().chain(&to));
}
