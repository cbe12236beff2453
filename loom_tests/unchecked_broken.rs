//! Models that must fail: of the contracts of the unchecked accessors of bytes (`unchecked.rs`), each
//! breaks one clause and keeps the others. A clause whose model passed would not be needed.
//!
//! Nothing is dropped when a model fails, since that would ask loom once more: it is leaked, or kept by hand
//! until it is over.
#![cfg(not(crossbeam_loom))]

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use crate::common::nic::{Does, Nic};
use crate::common::{explore, insist, leak};
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;
use rdma_mr::{Access, Lend, LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

/// An accessor for reading.
type Reads = fn(&LocalMr) -> *const u8;
/// An accessor for writing.
type Writes = fn(&mut LocalMr) -> *mut u8;

fn slice(mr: &LocalMr) -> *const u8 {
    // SAFETY: one of SLICE-1, SLICE-2, SLICE-3 is broken by the model.
    unsafe { mr.as_slice_unchecked() }.as_ptr()
}

fn pointer(mr: &LocalMr) -> *const u8 {
    mr.as_ptr_unchecked()
}

fn mut_slice(mr: &mut LocalMr) -> *mut u8 {
    // SAFETY: one of SLICEMUT-1, SLICEMUT-2, SLICEMUT-3 is broken by the model.
    unsafe { mr.as_mut_slice_unchecked() }.as_mut_ptr()
}

fn mut_pointer(mr: &mut LocalMr) -> *mut u8 {
    mr.as_mut_ptr_unchecked()
}

fn nic() -> &'static Arc<Nic> {
    leak(Nic::new())
}

/// Between post and completion, with nobody asked.
fn before_the_completion(name: &str, does: Does, uses: Uses) {
    explore(name, 2, 1, move || {
        let nic = nic();
        let mr = leak(nic.region());
        let posted = ManuallyDrop::new(nic.post(mr, does));
        uses.once(nic, mr);
        ManuallyDrop::into_inner(posted).complete();
    });
}

/// After the completion, which another thread has polled; but nothing that it did then is seen to have
/// happened before.
fn without_an_edge_from_the_poll(name: &str, does: Does, uses: Uses) {
    explore(name, 2, 1, move || {
        let nic = nic();
        let mr = leak(nic.region());
        let polled: &AtomicBool = leak(AtomicBool::new(false));
        let posted = nic.post(mr, does);
        let poller = thread::spawn(|| {
            posted.complete();
            polled.store(true, Relaxed);
        });
        insist(|| polled.load(Relaxed).then_some(()));
        uses.once(nic, mr);
        poller.join().unwrap();
    });
}

/// Beside a peer that has a lease.
fn under_a_lease(name: &str, access: Access, does: Does, uses: Uses) {
    explore(name, 2, 1, move || {
        let nic = nic();
        let mr = leak(nic.region());
        let lease = leak(mr.lease(.., access, Duration::ZERO).unwrap());
        let at = Nic::named(mr, lease.token().rkey());
        let peer = thread::spawn(move || nic.peer(at, does));
        uses.once(nic, mr);
        peer.join().unwrap();
        lease.revoke().unwrap();
    });
}

/// Beside another thread that has the region, with all that it does under guards of its own.
fn beside_a_guard(name: &str, other: fn(&Nic, &mut LocalMr), uses: Uses) {
    explore(name, 2, 1, move || {
        let nic = nic();
        let mr = leak(nic.region());
        let uses = uses.begin(mr);
        let other = thread::spawn(move || other(nic, mr));
        uses.end(nic);
        other.join().unwrap();
    });
}

/// After the region's end.
fn after_the_end(name: &str, end: fn(LocalMr), uses: Uses) {
    explore(name, 2, 1, move || {
        let nic = nic();
        let mut mr = nic.region();
        let uses = uses.begin(&mut mr);
        end(mr);
        uses.end(nic);
    });
}

/// What the model does with the bytes.
#[derive(Clone, Copy)]
enum Uses {
    Reads(Reads),
    Writes(Writes),
}

/// The same, with the accessor's result at hand.
enum Used {
    Reads(usize),
    Writes(usize),
}

impl Uses {
    fn begin(self, mr: &mut LocalMr) -> Used {
        match self {
            Uses::Reads(of) => Used::Reads(of(mr) as usize),
            Uses::Writes(of) => Used::Writes(of(mr) as usize),
        }
    }

    fn once(self, nic: &Nic, mr: &mut LocalMr) {
        self.begin(mr).end(nic);
    }
}

impl Used {
    fn end(self, nic: &Nic) {
        match self {
            Used::Reads(at) => drop(nic.bytes.read_at(at as *const u8)),
            Used::Writes(at) => nic.bytes.write_at(at as *mut u8, 9),
        }
    }
}

fn reads(nic: &Nic, mr: &mut LocalMr) {
    let guard = ManuallyDrop::new(mr.as_slice());
    nic.bytes.read_at(guard.as_ptr());
    drop(ManuallyDrop::into_inner(guard));
}

fn writes(nic: &Nic, mr: &mut LocalMr) {
    let mut guard = ManuallyDrop::new(mr.as_mut_slice());
    nic.bytes.write_at(guard.as_mut_ptr(), 7);
    drop(ManuallyDrop::into_inner(guard));
}

fn close(mr: LocalMr) {
    drop(mr.close().unwrap());
}

/// Breaks: SLICE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_slice_before_the_completion() {
    let name = "a_slice_before_the_completion";
    before_the_completion(name, Does::Write(7), Uses::Reads(slice));
}

/// Breaks: SLICE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_slice_without_an_edge_from_the_poll() {
    let name = "a_slice_without_an_edge_from_the_poll";
    without_an_edge_from_the_poll(name, Does::Write(7), Uses::Reads(slice));
}

/// Breaks: SLICE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_slice_beside_a_peer_that_writes() {
    let name = "a_slice_beside_a_peer_that_writes";
    under_a_lease(
        name,
        Access::REMOTE_WRITE,
        Does::Write(7),
        Uses::Reads(slice),
    );
}

/// Breaks: SLICE-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_slice_beside_who_writes() {
    let name = "a_slice_beside_who_writes";
    beside_a_guard(name, writes, Uses::Reads(slice));
}

/// Breaks: SLICE-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_slice_after_the_close() {
    let name = "a_slice_after_the_close";
    after_the_end(name, close, Uses::Reads(slice));
}

/// Breaks: SLICE-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_slice_after_the_drop() {
    let name = "a_slice_after_the_drop";
    after_the_end(name, drop, Uses::Reads(slice));
}

/// Breaks: PTR-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_pointer_before_the_completion() {
    let name = "a_pointer_before_the_completion";
    before_the_completion(name, Does::Write(7), Uses::Reads(pointer));
}

/// Breaks: PTR-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_pointer_without_an_edge_from_the_poll() {
    let name = "a_pointer_without_an_edge_from_the_poll";
    without_an_edge_from_the_poll(name, Does::Write(7), Uses::Reads(pointer));
}

/// Breaks: PTR-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_pointer_beside_a_peer_that_writes() {
    let name = "a_pointer_beside_a_peer_that_writes";
    under_a_lease(
        name,
        Access::REMOTE_WRITE,
        Does::Write(7),
        Uses::Reads(pointer),
    );
}

/// Breaks: PTR-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_pointer_beside_who_writes() {
    let name = "a_pointer_beside_who_writes";
    beside_a_guard(name, writes, Uses::Reads(pointer));
}

/// Breaks: PTR-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_pointer_after_the_close() {
    let name = "a_pointer_after_the_close";
    after_the_end(name, close, Uses::Reads(pointer));
}

/// Breaks: PTR-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_pointer_after_the_drop() {
    let name = "a_pointer_after_the_drop";
    after_the_end(name, drop, Uses::Reads(pointer));
}

/// Breaks: SLICEMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_slice_before_the_completion() {
    let name = "a_mut_slice_before_the_completion";
    before_the_completion(name, Does::Read, Uses::Writes(mut_slice));
}

/// Breaks: SLICEMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_slice_without_an_edge_from_the_poll() {
    let name = "a_mut_slice_without_an_edge_from_the_poll";
    without_an_edge_from_the_poll(name, Does::Read, Uses::Writes(mut_slice));
}

/// Breaks: SLICEMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_slice_beside_a_peer_that_reads() {
    let name = "a_mut_slice_beside_a_peer_that_reads";
    under_a_lease(
        name,
        Access::REMOTE_READ,
        Does::Read,
        Uses::Writes(mut_slice),
    );
}

/// Breaks: SLICEMUT-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_slice_beside_who_reads() {
    let name = "a_mut_slice_beside_who_reads";
    beside_a_guard(name, reads, Uses::Writes(mut_slice));
}

/// Breaks: SLICEMUT-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_mut_slice_after_the_close() {
    let name = "a_mut_slice_after_the_close";
    after_the_end(name, close, Uses::Writes(mut_slice));
}

/// Breaks: SLICEMUT-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_mut_slice_after_the_drop() {
    let name = "a_mut_slice_after_the_drop";
    after_the_end(name, drop, Uses::Writes(mut_slice));
}

/// Breaks: PTRMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_pointer_before_the_completion() {
    let name = "a_mut_pointer_before_the_completion";
    before_the_completion(name, Does::Read, Uses::Writes(mut_pointer));
}

/// Breaks: PTRMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_pointer_without_an_edge_from_the_poll() {
    let name = "a_mut_pointer_without_an_edge_from_the_poll";
    without_an_edge_from_the_poll(name, Does::Read, Uses::Writes(mut_pointer));
}

/// Breaks: PTRMUT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_pointer_beside_a_peer_that_reads() {
    let name = "a_mut_pointer_beside_a_peer_that_reads";
    under_a_lease(
        name,
        Access::REMOTE_READ,
        Does::Read,
        Uses::Writes(mut_pointer),
    );
}

/// Breaks: PTRMUT-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_mut_pointer_beside_who_reads() {
    let name = "a_mut_pointer_beside_who_reads";
    beside_a_guard(name, reads, Uses::Writes(mut_pointer));
}

/// Breaks: PTRMUT-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_mut_pointer_after_the_close() {
    let name = "a_mut_pointer_after_the_close";
    after_the_end(name, close, Uses::Writes(mut_pointer));
}

/// Breaks: PTRMUT-3.
#[test]
#[should_panic(expected = "bytes that are no more")]
fn a_mut_pointer_after_the_drop() {
    let name = "a_mut_pointer_after_the_drop";
    after_the_end(name, drop, Uses::Writes(mut_pointer));
}
