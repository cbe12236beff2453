//! Models of the unchecked accessors: who keeps the clauses of their contracts races with nobody, uses no key
//! that is no more, and no bytes that are no more. What runs is the crate's own, from the accessor, whose
//! pointer is the one that is read and written through, to the ring by which the operation ends. The bytes
//! that are registered are a cell of loom's, and the NIC is a thread that looks up each key
//! (`common/nic.rs`). `unchecked_broken.rs` breaks each clause; for keys see `unchecked_keys.rs`.
#![cfg(not(crossbeam_loom))]

use std::sync::Arc;
use std::time::Duration;

use crate::common::keys::parking;
use crate::common::nic::{Does, Nic};
use crate::common::{Bytes, Registrar, exhaust, insist};
use loom::sync::Mutex;
use loom::thread;
use rdma_mr::{
    Access, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrPool, PoolOptions,
};

/// Reads in both ways, one after the other.
fn read(nic: &Nic, mr: &LocalMr) -> u64 {
    // SAFETY: SLICE-1, SLICE-2, SLICE-3: that they are kept is the models' matter.
    let slice = unsafe { mr.as_slice_unchecked() };
    let seen = nic.bytes.read_at(slice.as_ptr());
    assert_eq!(nic.bytes.read_at(mr.as_ptr_unchecked()), seen);
    seen
}

/// Writes in both ways, one after the other.
fn write(nic: &Nic, mr: &mut LocalMr, value: u64) {
    // SAFETY: SLICEMUT-1, SLICEMUT-2, SLICEMUT-3: as for `read`.
    let slice = unsafe { mr.as_mut_slice_unchecked() };
    nic.bytes.write_at(slice.as_mut_ptr(), value - 1);
    nic.bytes.write_at(mr.as_mut_ptr_unchecked(), value);
}

/// The region, once nobody else has it.
fn alone(mr: Arc<LocalMr>) -> LocalMr {
    Arc::try_unwrap(mr).expect("the others were joined")
}

/// The NIC sends the bytes and another thread reads them, by a guard and without one; they are written again
/// when all of that is over.
///
/// Shows: SLICE-1, SLICE-2, PTR-1, PTR-2, SLICEMUT-1, SLICEMUT-2, PTRMUT-1, PTRMUT-2.
#[test]
fn who_reads_stands_beside_others_who_read() {
    exhaust("who_reads_stands_beside_others_who_read", 3, 30, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        write(&nic, &mut mr, 5);
        let mr = Arc::new(mr);
        let sent = nic.post(&mr, Does::Read);
        let reader = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || {
                let guard = mr.as_slice();
                assert_eq!(nic.bytes.read_at(guard.as_ptr()), 5);
                drop(guard);
                assert_eq!(read(&nic, &mr), 5);
            })
        };
        assert_eq!(read(&nic, &mr), 5);
        sent.complete();
        reader.join().unwrap();
        let mut mr = alone(mr);
        write(&nic, &mut mr, 7);
        assert_eq!(read(&nic, &mr), 7);
    });
}

/// Who has polled the completions of all that wrote and read may read, and write.
///
/// Shows: SLICE-1, PTR-1, SLICEMUT-1, PTRMUT-1.
#[test]
fn who_polled_the_completion_has_the_bytes() {
    exhaust("who_polled_the_completion_has_the_bytes", 3, 10, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        nic.receive(&mr, 7).complete();
        assert_eq!(read(&nic, &mr), 7);
        nic.post(&mr, Does::Write(8)).complete();
        assert_eq!(read(&nic, &mr), 8);
        nic.post(&mr, Does::Read).complete();
        write(&nic, &mut mr, 9);
        nic.receive(&mr, 10).complete();
        write(&nic, &mut mr, 11);
    });
}

/// Another thread polls; what it did after the poll, the release of the hold, is seen by who has entered the
/// gate since, with a guard that is dropped before the bytes are read.
///
/// Shows: SLICE-1, PTR-1.
#[test]
fn the_gate_hands_a_nic_write_on_to_who_reads() {
    exhaust("the_gate_hands_a_nic_write_on_to_who_reads", 3, 50, || {
        let nic = Nic::new();
        let mr = nic.region();
        let received = nic.receive(&mr, 7);
        let poller = thread::spawn(|| received.complete());
        drop(mr.as_slice());
        assert_eq!(read(&nic, &mr), 7);
        poller.join().unwrap();
    });
}

/// The same for who writes, after an operation that does that.
fn handed_on_to_who_writes(name: &str, does: Does) {
    exhaust(name, 3, 50, move || {
        let nic = Nic::new();
        let mut mr = nic.region();
        let posted = nic.post(&mr, does);
        let poller = thread::spawn(|| posted.complete());
        drop(mr.as_mut_slice());
        write(&nic, &mut mr, 9);
        poller.join().unwrap();
    });
}

/// Shows: SLICEMUT-1, PTRMUT-1.
#[test]
fn the_gate_hands_a_nic_write_on_to_who_writes() {
    let name = "the_gate_hands_a_nic_write_on_to_who_writes";
    handed_on_to_who_writes(name, Does::Write(7));
}

/// Shows: SLICEMUT-1, PTRMUT-1.
#[test]
fn the_gate_hands_the_end_of_a_nic_read_on_to_who_writes() {
    let name = "the_gate_hands_the_end_of_a_nic_read_on_to_who_writes";
    handed_on_to_who_writes(name, Does::Read);
}

/// One writes through a pointer, under an exclusive hold; others read by guards, and without them once they
/// have seen that it is done.
///
/// Shows: SLICE-2, PTR-2, PTRMUT-1, PTRMUT-2.
#[test]
fn who_has_seen_the_last_write_reads_without_a_hold() {
    let name = "who_has_seen_the_last_write_reads_without_a_hold";
    exhaust(name, 3, 40, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        let pointer = mr.as_mut_ptr_unchecked() as usize;
        let mr = Arc::new(mr);
        let writer = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || {
                let alone = mr.write_inner();
                nic.bytes.write_at(pointer as *mut u8, 7);
                drop(alone);
            })
        };
        let guard = mr.as_slice();
        let seen = nic.bytes.read_at(guard.as_ptr());
        drop(guard);
        if seen == 7 {
            assert_eq!(read(&nic, &mr), 7);
        }
        writer.join().unwrap();
        assert_eq!(read(&nic, &mr), 7);
    });
}

/// Who has the region writes by a guard, which waits for the NIC's read; whoever has it next reads without one.
///
/// Shows: SLICE-1, SLICE-2, PTR-1, PTR-2.
#[test]
fn a_region_is_handed_on_after_a_guard() {
    exhaust("a_region_is_handed_on_after_a_guard", 2, 50, || {
        let nic = Nic::new();
        let mr = nic.region();
        let sent = nic.post(&mr, Does::Read);
        let mr = Arc::new(Mutex::new(mr));
        let writer = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || {
                let mut mr = mr.lock().unwrap();
                let mut guard = mr.as_mut_slice();
                nic.bytes.write_at(guard.as_mut_ptr(), 7);
            })
        };
        sent.complete();
        assert!([0, 7].contains(&read(&nic, &mr.lock().unwrap())));
        writer.join().unwrap();
        assert_eq!(read(&nic, &mr.lock().unwrap()), 7);
    });
}

/// The bytes don't care for the keys: they are read while these change, with an operation in flight.
///
/// Shows: SLICE-1, SLICE-3, PTR-1, PTR-3.
#[test]
fn keys_change_beside_who_reads() {
    exhaust("keys_change_beside_who_reads", 2, 50, || {
        let nic = Nic::new();
        let mr = Arc::new(nic.region());
        let sent = nic.post(&mr, Does::Read);
        let rotator = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || {
                mr.rotate_keys().unwrap();
                mr.retire().unwrap();
            })
        };
        assert_eq!(read(&nic, &mr), 0);
        sent.complete();
        rotator.join().unwrap();
        assert_eq!(nic.registrations(), 1);
        write(&nic, &mut alone(mr), 7);
    });
}

/// The same of one who writes through a pointer, after a receive under the old keys.
///
/// Shows: PTRMUT-1, PTRMUT-3.
#[test]
fn keys_change_beside_who_writes() {
    exhaust("keys_change_beside_who_writes", 2, 50, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        let pointer = mr.as_mut_ptr_unchecked();
        let mr = Arc::new(mr);
        let received = nic.receive(&mr, 5);
        let rotator = {
            let mr = Arc::clone(&mr);
            thread::spawn(move || {
                mr.rotate_keys().unwrap();
                mr.retire().unwrap();
            })
        };
        received.complete();
        nic.bytes.write_at(pointer, 7);
        rotator.join().unwrap();
        assert_eq!((nic.registrations(), read(&nic, &mr)), (1, 7));
    });
}

/// Peers write until they are refused; who has revoked the lease has the bytes.
///
/// Shows: SLICE-1, PTR-1, SLICEMUT-1, PTRMUT-1.
#[test]
fn who_revoked_a_lease_has_the_bytes() {
    exhaust("who_revoked_a_lease_has_the_bytes", 3, 5, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        let lease = mr.lease(.., Access::REMOTE_WRITE, Duration::ZERO).unwrap();
        let peer = {
            let (nic, to) = (Arc::clone(&nic), Nic::named(&mr, lease.token().rkey()));
            thread::spawn(move || {
                let _ = nic.peer(to, Does::Write(7)) && nic.peer(to, Does::Write(8));
            })
        };
        lease.revoke().unwrap();
        let seen = read(&nic, &mr);
        assert!([0, 7, 8].contains(&seen));
        assert_eq!(read(&nic, &mr), seen);
        write(&nic, &mut mr, 9);
        peer.join().unwrap();
        assert_eq!(read(&nic, &mr), 9);
    });
}

/// Peers read until they are refused: beside who reads, and before who writes.
///
/// Shows: SLICE-1, PTR-1, SLICEMUT-1, PTRMUT-1.
#[test]
fn a_peer_that_reads_stands_beside_who_reads() {
    exhaust("a_peer_that_reads_stands_beside_who_reads", 3, 5, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        let lease = mr.lease(.., Access::REMOTE_READ, Duration::ZERO).unwrap();
        let peer = {
            let (nic, to) = (Arc::clone(&nic), Nic::named(&mr, lease.token().rkey()));
            thread::spawn(move || {
                let _ = nic.peer(to, Does::Read) && nic.peer(to, Does::Read);
            })
        };
        assert_eq!(read(&nic, &mr), 0);
        lease.revoke().unwrap();
        write(&nic, &mut mr, 9);
        peer.join().unwrap();
    });
}

/// A region that is closed as soon as its operation is over; until then it is read, and nobody after that.
///
/// Shows: SLICE-3, SLICEMUT-3, PTR-3, PTRMUT-3.
#[test]
fn a_region_is_closed_after_its_last_use() {
    exhaust("a_region_is_closed_after_its_last_use", 2, 50, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        write(&nic, &mut mr, 5);
        let mr = Arc::new(mr);
        let sent = nic.post(&mr, Does::Read);
        let poller = thread::spawn(|| sent.complete());
        let reader = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || assert_eq!(read(&nic, &mr), 5))
        };
        reader.join().unwrap();
        let mut mr = Some(alone(mr));
        let memory = insist(|| match mr.take()?.close() {
            Ok(memory) => Some(memory),
            Err((held, _)) => {
                assert_eq!(read(&nic, &held), 5);
                mr = Some(held);
                None
            }
        });
        assert_eq!(nic.registrations(), 0);
        drop(memory);
        poller.join().unwrap();
    });
}

/// A region that is dropped under a send: the bytes are freed after it, by whoever is the last.
///
/// Shows: SLICE-3, SLICEMUT-3, PTR-3, PTRMUT-3.
#[test]
fn a_region_is_dropped_after_its_last_use() {
    exhaust("a_region_is_dropped_after_its_last_use", 3, 10, || {
        let nic = Nic::new();
        let mut mr = nic.region();
        write(&nic, &mut mr, 5);
        let sent = nic.post(&mr, Does::Read);
        let poller = thread::spawn(|| sent.complete());
        assert_eq!(read(&nic, &mr), 5);
        drop(mr);
        poller.join().unwrap();
        assert_eq!(nic.registrations(), 0);
    });
}

/// A slot of a pool, of which one at a time has the bytes.
///
/// Shows: SLICE-2, PTR-2, SLICEMUT-2, PTRMUT-2.
#[test]
fn a_pool_hands_its_slots_on() {
    const SIZE: PoolOptions = PoolOptions {
        slot_length: 8,
        slots_per_registration: 1,
        max_registrations: 1,
    };
    exhaust("a_pool_hands_its_slots_on", 3, 50, || {
        let pool = parking().pool(&Registrar::new(), SIZE).unwrap();
        let addr = pool.take().unwrap().addr();
        let pool = Arc::new((pool, Bytes::new()));
        let use_up = move |(pool, bytes): &(MrPool, Bytes)| {
            let mut slot = pool.take().unwrap();
            // SAFETY: SLICEMUT-1 to SLICEMUT-3: the slot is this thread's, and nothing was begun on it.
            let slice = unsafe { slot.as_mut_slice_unchecked() };
            assert_eq!(slice.as_ptr() as usize, addr);
            bytes.add(1);
            // SAFETY: SLICE-1 to SLICE-3: the same.
            let slice = unsafe { slot.as_slice_unchecked() };
            assert_eq!(slice.as_ptr() as usize, addr);
            bytes.read()
        };
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || use_up(&pool))
        };
        let mine = use_up(&pool);
        let theirs = other.join().unwrap();
        assert_eq!(mine + theirs, 3);
    });
}
