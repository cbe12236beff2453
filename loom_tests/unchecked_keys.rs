//! Models of the unchecked accessors of keys: who keeps their clauses uses no key that is no more, and who
//! breaks one does. The NIC is that of `unchecked.rs`.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;
use std::time::Duration;

use crate::common::nic::{Does, Nic};
use crate::common::{exhaust, explore, leak};
use loom::thread;
use rdma_mr::op::Begin;
use rdma_mr::work::RemoteAddr;
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, MrAccess};

/// The keys change once the operation is over that was posted with the local one; another one, by a hold
/// with a key of its own, goes on meanwhile.
///
/// Shows: LKEY-1.
#[test]
fn no_local_key_is_used_after_its_end() {
    explore("no_local_key_is_used_after_its_end", 2, 50, || {
        let nic = Nic::new();
        let mr = Arc::new(nic.region());
        // SAFETY: LKEY-1: the keys are changed when that operation is over.
        let lkey = unsafe { mr.lkey_unchecked() };
        nic.post_with(&mr, lkey, Does::Read).complete();
        let rotator = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || {
                mr.rotate_keys().unwrap();
                mr.retire().unwrap();
            })
        };
        nic.post(&mr, Does::Read).complete();
        rotator.join().unwrap();
        assert_eq!(nic.registrations(), 1);
        // SAFETY: LKEY-1: nobody changes them any more.
        let lkey = unsafe { mr.lkey_unchecked() };
        nic.carry_out(lkey, mr.addr() as u64, Does::Read);
    });
}

/// The keys change once the peer that has the remote one is done, beside an operation of this side.
fn a_peer_is_done_first(name: &str, of: fn(&LocalMr) -> RemoteAddr) {
    exhaust(name, 2, 50, move || {
        let nic = Nic::new();
        let mr = Arc::new(nic.region());
        let from = of(&mr);
        let peer = {
            let nic = Arc::clone(&nic);
            thread::spawn(move || assert!(nic.peer(from, Does::Read)))
        };
        let operation = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || {
                let hold = mr.begin_read().unwrap();
                let sge = hold.sge();
                nic.carry_out(sge.lkey, sge.addr, Does::Read);
                drop(hold);
            })
        };
        peer.join().unwrap();
        mr.rotate_keys().unwrap();
        mr.retire().unwrap();
        assert!(!nic.peer(from, Does::Read));
        assert!(nic.peer(of(&mr), Does::Read));
        operation.join().unwrap();
    });
}

/// Shows: RKEY-1.
#[test]
fn no_remote_key_is_used_after_its_end() {
    a_peer_is_done_first("no_remote_key_is_used_after_its_end", |mr| {
        // SAFETY: RKEY-1: the keys are changed when the peer is done.
        Nic::named(mr, unsafe { mr.rkey_unchecked() })
    });
}

/// Shows: TOKEN-1.
#[test]
fn no_token_is_used_after_the_end_of_its_key() {
    let name = "no_token_is_used_after_the_end_of_its_key";
    a_peer_is_done_first(name, |mr| {
        let long = Duration::from_secs(1000);
        // SAFETY: TOKEN-1: the keys are changed when the peer is done.
        let token = unsafe { mr.token_with_timeout_unchecked(long) }.unwrap();
        token.target(.., Access::REMOTE_READ).unwrap()
    });
}

/// The keys are changed between the call and the operation that is begun then.
///
/// Breaks: LKEY-1.
#[test]
#[should_panic(expected = "a key that is no more")]
fn a_local_key_of_before_a_rotation() {
    explore("a_local_key_of_before_a_rotation", 2, 1, || {
        let nic: &Arc<Nic> = leak(Nic::new());
        let mr: &LocalMr = leak(nic.region());
        // SAFETY: none: LKEY-1 is broken.
        let lkey = unsafe { mr.lkey_unchecked() };
        let rotator = thread::spawn(|| mr.rotate_keys().unwrap());
        nic.post_with(mr, lkey, Does::Read).complete();
        rotator.join().unwrap();
    });
}

/// The keys are changed while a peer has the old one.
fn before_the_peer_is_done(name: &str, of: fn(&LocalMr) -> RemoteAddr) {
    explore(name, 2, 1, move || {
        let nic: &Arc<Nic> = leak(Nic::new());
        let mr: &LocalMr = leak(nic.region());
        let from = of(mr);
        let peer = thread::spawn(move || {
            assert!(nic.peer(from, Does::Read), "a key that is no more");
        });
        mr.rotate_keys().unwrap();
        peer.join().unwrap();
    });
}

/// Breaks: RKEY-1.
#[test]
#[should_panic(expected = "a key that is no more")]
fn a_remote_key_of_before_a_rotation() {
    before_the_peer_is_done("a_remote_key_of_before_a_rotation", |mr| {
        // SAFETY: none: RKEY-1 is broken.
        Nic::named(mr, unsafe { mr.rkey_unchecked() })
    });
}

/// Breaks: TOKEN-1.
#[test]
#[should_panic(expected = "a key that is no more")]
fn a_token_of_before_a_rotation() {
    before_the_peer_is_done("a_token_of_before_a_rotation", |mr| {
        let long = Duration::from_secs(1000);
        // SAFETY: none: TOKEN-1 is broken.
        let token = unsafe { mr.token_with_timeout_unchecked(long) }.unwrap();
        token.target(.., Access::REMOTE_READ).unwrap()
    });
}
