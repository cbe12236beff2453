//! The contracts of registrations, clause by clause: what a registrar owes, who lets peers write. A peer is a thread that asks the NIC to write; so is an operation's NIC. Each scenario passes
//! if all keep to theirs; with one clause broken, and nothing else, it fails.
#![cfg(not(crossbeam_loom))]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::common::nic::{Does, Fault, Nic, Refuses};
use crate::common::{Kept, exhaust};
use loom::sync::mpsc::channel;
use loom::thread;
use rdma_mr::op::Begin;
use rdma_mr::registration::Registrar;
use rdma_mr::work::RemoteAddr;
use rdma_mr::{Access, Error, Lend, LocalMr, MrAccess, MrOptions};

const HOUR: Duration = Duration::from_secs(3600);

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 3;

const WRITES: Does = Does::Write(7);

/// What a user does that breaks a clause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    None,
    /// Uses, or frees, bytes that are another's.
    UsesTheBytes,
    /// Lets a peer write at any time.
    LetsPeersWriteAnyTime,
    /// Gives the hold back while the peer is not done.
    GivesBackEarly,
}

fn region(nic: &Arc<Nic>) -> Kept<LocalMr> {
    Kept::new(nic.region())
}

/// A peer that was let read tries to write, by the key that it has or by one that it has not, while
/// somebody reads.
fn reader_beside_a_lease(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::with(fault, Refuses::Nothing);
        let mr = region(&nic);
        let lease = Kept::new(mr.lease(.., Access::REMOTE_READ, HOUR).unwrap());
        let peer = nic.peer_thread(Nic::named(&mr, lease.token().rkey()), WRITES);
        let stranger = nic.peer_thread(Nic::named(&mr, Nic::NO_KEY), WRITES);
        nic.look(&mr);
        peer.join().unwrap();
        stranger.join().unwrap();
    });
}

/// Shows: REG-1, REG-2.
#[test]
fn a_peer_that_may_read_does_not_write() {
    reader_beside_a_lease("a_peer_that_may_read_does_not_write", None);
}

/// Breaks: REG-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn reg_1_keys_that_grant_more() {
    reader_beside_a_lease("reg_1", Some(Fault::GrantsMore));
}

/// Breaks: REG-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn reg_2_a_nic_that_asks_for_no_key() {
    reader_beside_a_lease("reg_2", Some(Fault::AsksForNoKey));
}

/// A lease to write that the provider refuses to register.
fn lease_that_is_refused(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, 1, move || {
        let nic = Nic::with(fault, Refuses::More);
        let mr = region(&nic);
        let lease = mr.lease(.., Access::REMOTE_WRITE, HOUR);
        assert!(matches!(lease, Err(Error::Register(_))));
        // The key that the lease would have had.
        let peer = nic.peer_thread(Nic::named(&mr, mr.rkey() + 1), WRITES);
        nic.look(&mr);
        peer.join().unwrap();
    });
}

/// Shows: REG-3.
#[test]
fn of_a_lease_that_is_refused_nothing_is_left() {
    lease_that_is_refused("of_a_lease_that_is_refused_nothing_is_left", None);
}

/// Breaks: REG-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn reg_3_what_is_refused_and_in_force() {
    lease_that_is_refused("reg_3", Some(Fault::RegistersOnErr));
}

/// Somebody who registers by hand, and frees the bytes.
fn registered_by_hand(name: &str, misuse: Misuse) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new();
        let addr = nic.bytes.address();
        // SAFETY: REG-4: kept below; unless the model is about it.
        let registered = unsafe {
            let start = NonNull::new(addr).unwrap();
            nic.pd().register(start, 8, Access::REMOTE_WRITE)
        };
        let mut registered = Kept::new(registered.unwrap());
        let at = RemoteAddr {
            addr: addr as u64,
            rkey: registered.rkey,
        };
        let peer = nic.peer_thread(at, WRITES);
        if misuse == Misuse::None {
            registered.handle.deregister().unwrap();
        }
        nic.bytes.write(0); // freed
        peer.join().unwrap();
    });
}

/// Shows: REG-4, DEREG-1.
#[test]
fn what_is_registered_is_freed_after_the_end() {
    registered_by_hand("what_is_registered_is_freed_after_the_end", Misuse::None);
}

/// Breaks: REG-4.
#[test]
#[should_panic(expected = "Causality violation")]
fn reg_4_bytes_that_are_freed_while_registered() {
    registered_by_hand("reg_4", Misuse::UsesTheBytes);
}

/// A region that can't be closed is used again.
fn close_that_is_refused(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, 1, move || {
        let nic = Nic::with(fault, Refuses::Ends);
        let mr = nic.region();
        let (mr, _error) = mr.close().expect_err("refused");
        let mr = Kept::new(mr);
        let hold = Kept::new(mr.begin_read().unwrap());
        let device = {
            let (nic, sge) = (Arc::clone(&nic), hold.sge());
            thread::spawn(move || nic.carry_out(sge.lkey, sge.addr, Does::Read))
        };
        device.join().unwrap();
        drop(hold);
    });
}

/// Shows: DEREG-2.
#[test]
fn what_could_not_be_closed_is_as_it_was() {
    close_that_is_refused("what_could_not_be_closed_is_as_it_was", None);
}

/// Breaks: DEREG-2.
#[test]
#[should_panic(expected = "a key that is no more")]
fn dereg_2_an_end_that_was_refused_and_took_place() {
    close_that_is_refused("dereg_2", Some(Fault::EndsOnErr));
}

/// Peers may write for good.
fn granted() -> MrOptions {
    // SAFETY: REMOTE-1, REMOTE-2: as the models have it.
    let options = unsafe { MrOptions::new().grant_remote_write() };
    options.access(Access::REMOTE_WRITE | Access::LOCAL_WRITE)
}

/// A region is dropped that can't be ended, and that a peer may write still.
fn drop_that_is_refused(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, 1, move || {
        let nic = Nic::with(fault, Refuses::Ends);
        let mr = Kept::new(nic.region_with(granted()));
        let peer = nic.peer_thread(Nic::named(&mr, mr.rkey()), WRITES);
        drop(mr);
        peer.join().unwrap();
    });
}

/// Shows: DEREG-3, REGN-1.
#[test]
fn what_could_not_be_ended_is_left_alone() {
    drop_that_is_refused("what_could_not_be_ended_is_left_alone", None);
}

/// Breaks: DEREG-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn dereg_3_a_handle_that_frees_what_the_nic_uses() {
    drop_that_is_refused("dereg_3", Some(Fault::FreesInDrop));
}

/// Memory of a user's own type, registered, while somebody else has a pointer to it.
fn memory_of_ones_own(name: &str, misuse: Misuse) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new();
        let mr = Arc::new(region(&nic));
        let other = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || match misuse {
                Misuse::UsesTheBytes => nic.bytes.write(1),
                _ => nic.look(&mr),
            })
        };
        nic.look(&mr);
        other.join().unwrap();
    });
}

/// Shows: MEM-3.
#[test]
fn the_bytes_are_the_regions_alone() {
    memory_of_ones_own("the_bytes_are_the_regions_alone", Misuse::None);
}

/// Breaks: MEM-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn mem_3_memory_that_somebody_else_writes() {
    memory_of_ones_own("mem_3", Misuse::UsesTheBytes);
}

/// A region that peers may write for good: the peer writes when an operation of this side lets it, and tells
/// when it is done.
fn written_by_peers(name: &str, misuse: Misuse) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new();
        let mr = Arc::new(Kept::new(nic.region_with(granted())));
        let at = Nic::named(&mr, mr.rkey());
        let (let_write, may_write) = channel();
        let peer = {
            let nic = Arc::clone(&nic);
            thread::spawn(move || {
                if misuse != Misuse::LetsPeersWriteAnyTime {
                    may_write.recv().unwrap();
                }
                nic.peer(at, WRITES);
            })
        };
        let reader = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || nic.look(&mr))
        };
        let hold = Kept::new(mr.begin_write().unwrap());
        let_write.send(()).unwrap();
        if misuse == Misuse::GivesBackEarly {
            drop(hold);
            nic.look(&mr);
            peer.join().unwrap();
        } else {
            peer.join().unwrap();
            drop(hold);
            nic.look(&mr);
        }
        reader.join().unwrap();
    });
}

/// Shows: REMOTE-1, REMOTE-2.
#[test]
fn a_peer_writes_under_a_hold() {
    written_by_peers("a_peer_writes_under_a_hold", Misuse::None);
}

/// Breaks: REMOTE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn remote_1_a_peer_that_writes_at_any_time() {
    written_by_peers("remote_1", Misuse::LetsPeersWriteAnyTime);
}

/// Breaks: REMOTE-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn remote_2_a_hold_that_is_given_back_early() {
    written_by_peers("remote_2", Misuse::GivesBackEarly);
}
