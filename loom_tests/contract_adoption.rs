//! The contracts of adoption, clause by clause: of regions over what another binding has registered. Each
//! scenario passes if all keep to theirs; with one clause broken, and nothing else, it fails.
#![cfg(not(crossbeam_loom))]

use std::ptr::NonNull;
use std::sync::Arc;

use crate::common::nic::{Does, Fault, Nic, Refuses};
use crate::common::{Kept, exhaust};
use loom::sync::mpsc::{Sender, channel};
use loom::thread;
use rdma_mr::op::Begin;
use rdma_mr::registration::{Adoption, Registered, Registrar};
use rdma_mr::{Access, MrOptions};

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 3;

const WRITES: Does = Does::Write(7);

/// What the owner does that breaks a clause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misuse {
    None,
    /// Uses, or frees, the bytes.
    UsesTheBytes,
    /// Ends the registration.
    EndsTheRegistration,
}

/// How a region was adopted.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// The region ends the registration.
    Owned,
    /// Its owner does.
    Lent,
}

/// What another binding has registered, and adopted: an operation reads it, somebody looks at it, and a peer
/// tries to write. The memory's owner is another thread, which ends it when it gets the keepalive back.
fn adopted(name: &str, how: How, misuse: Misuse, fault: Option<Fault>) {
    exhaust(name, 2, LEAST, move || {
        let nic = Nic::with(fault, Refuses::Nothing);
        let addr = nic.bytes.address();
        let start = NonNull::new(addr).unwrap();
        // SAFETY: REG-4: the NIC keeps the bytes.
        let registered = unsafe { nic.pd().register(start, 8, Access::LOCAL_WRITE) };
        let mut registered = registered.unwrap();
        let (lkey, rkey) = (registered.lkey, registered.rkey);
        if how == How::Lent {
            // SAFETY: LENT-1: unless the model is about it.
            registered = unsafe { Registered::lent(lkey, rkey) };
        }
        let adoption = Adoption {
            addr,
            length: 8,
            registered,
        };
        let (gone, wait) = channel();
        // SAFETY: ADOPT-1 to ADOPT-3: unless the model is about one of them.
        let mr = unsafe { MrOptions::new().adopt(adoption, Keepalive(gone)) }.unwrap();
        let mr = Kept::new(mr);
        let owner = {
            let nic = Arc::clone(&nic);
            thread::spawn(move || {
                match misuse {
                    Misuse::UsesTheBytes => nic.bytes.write(0),
                    Misuse::EndsTheRegistration => nic.end(lkey),
                    _ => {}
                }
                wait.recv().unwrap();
                nic.end(lkey);
                nic.bytes.write(0);
            })
        };
        let peer = nic.peer_thread(Nic::named(&mr, rkey), WRITES);
        let hold = Kept::new(mr.begin_read().unwrap());
        nic.carry_out(hold.sge().lkey, hold.sge().addr, Does::Read);
        drop(hold);
        nic.look(&mr);
        peer.join().unwrap();
        drop(mr);
        owner.join().unwrap();
    });
}

/// Says when it is dropped.
struct Keepalive(Sender<()>);

impl Drop for Keepalive {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

/// Shows: ADOPT-1, ADOPT-2, ADOPT-3, MEM-3.
#[test]
fn what_was_adopted_is_its_owners_after_the_region() {
    adopted(
        "what_was_adopted_is_its_owners_after_the_region",
        How::Owned,
        Misuse::None,
        None,
    );
}

/// Shows: LENT-1.
#[test]
fn what_was_lent_is_ended_by_its_owner_after_the_region() {
    adopted(
        "what_was_lent_is_ended_by_its_owner_after_the_region",
        How::Lent,
        Misuse::None,
        None,
    );
}

/// The owner frees the bytes.
/// Breaks: ADOPT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn adopt_1_bytes_that_their_owner_frees() {
    adopted("adopt_1", How::Owned, Misuse::UsesTheBytes, None);
}

/// Breaks: ADOPT-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn adopt_2_keys_with_more_rights_than_was_said() {
    adopted("adopt_2", How::Owned, Misuse::None, Some(Fault::GrantsMore));
}

/// Breaks: ADOPT-3.
#[test]
#[should_panic(expected = "a key that is no more")]
fn adopt_3_a_registration_that_somebody_else_ends() {
    adopted("adopt_3", How::Owned, Misuse::EndsTheRegistration, None);
}

/// Breaks: LENT-1.
#[test]
#[should_panic(expected = "a key that is no more")]
fn lent_1_a_registration_that_its_owner_ends_early() {
    adopted("lent_1", How::Lent, Misuse::EndsTheRegistration, None);
}
