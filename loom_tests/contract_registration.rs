//! The contracts of registrations, clause by clause: what a registrar owes, who adopts, who lets peers
//! write. A peer is a thread that asks the NIC to write; so is an operation's NIC. Each scenario passes
//! if all keep to theirs; with one clause broken, and nothing else, it fails.
#![cfg(loom)]

mod common;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use common::{Bytes, Kept, exhaust};
use loom::sync::Mutex;
use loom::thread;
use rdma_mr::op::Begin;
use rdma_mr::registration::{Adoption, Deregister, Registered, Registrar};
use rdma_mr::{Access, Error, Lend, LocalMr, LocalMrReadAccess, MrAccess, MrOptions};

const HOUR: Duration = Duration::from_secs(3600);

/// What a scenario explores at least if it does not fail.
const LEAST: usize = 3;

/// What the NIC, its registrar or the user does that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The keys let peers write, whatever was asked for.
    GrantsMore,
    /// Peers write without a key.
    AsksForNoKey,
    /// What was refused is in force nevertheless.
    RegistersOnErr,
    /// What could not be ended has ended.
    EndsOnErr,
    /// A handle that is dropped frees what the NIC may use.
    FreesInDrop,
    /// Uses, or frees, bytes that are another's.
    UsesTheBytes,
    /// Ends a registration that is another's.
    EndsTheRegistration,
    /// Lets a peer write at any time.
    LetsPeersWriteAnyTime,
    /// Gives the hold back while the peer is not done.
    GivesBackEarly,
}

/// A registration, by its key.
#[derive(Clone, Copy, Default)]
struct Entry {
    in_force: bool,
    peers_write: bool,
}

/// A NIC with one region's bytes.
struct Nic {
    entries: Mutex<[Entry; 4]>,
    bytes: Bytes,
    fault: Option<Fault>,
    /// Which registrations, and which ends of one, the provider refuses.
    refused: Refused,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    Nothing,
    AllButTheFirst,
    Ends,
}

/// The key that nobody was given.
const NO_KEY: u32 = 3;

impl Nic {
    fn new(fault: Option<Fault>, refused: Refused) -> Arc<Self> {
        Arc::new(Nic {
            entries: Mutex::new([Entry::default(); 4]),
            bytes: Bytes::new(),
            fault,
            refused,
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// What a WRITE of a peer's does that names the key. The end of a registration waits for one that is under
    /// way.
    fn peer_writes(&self, key: u32) {
        let entries = self.entries.lock().unwrap();
        let entry = entries[key as usize];
        if entry.in_force && entry.peers_write || self.has(Fault::AsksForNoKey) {
            self.bytes.add(1);
        }
    }

    /// What an operation of this side does that names the key.
    fn operation_reads(&self, key: u32) {
        let entries = self.entries.lock().unwrap();
        assert!(entries[key as usize].in_force, "a key that is no more");
        self.bytes.read();
    }

    fn end(&self, key: u32) {
        self.entries.lock().unwrap()[key as usize].in_force = false;
    }

    /// A peer that writes once.
    fn peer(self: &Arc<Self>, key: u32) -> thread::JoinHandle<()> {
        let nic = Arc::clone(self);
        thread::spawn(move || nic.peer_writes(key))
    }

    fn pd(self: &Arc<Self>) -> Arc<Pd> {
        Arc::new(Pd(Arc::clone(self)))
    }

    fn region(self: &Arc<Self>) -> Kept<LocalMr> {
        Kept::new(LocalMr::register(&self.pd(), vec![0; 8]).unwrap())
    }

    /// Looks at the bytes under a guard, if the region is free.
    fn look(&self, mr: &impl LocalMrReadAccess) {
        if let Some(guard) = mr.try_as_slice() {
            let guard = Kept::new(guard);
            self.bytes.read();
            drop(guard);
        }
    }
}

fn refusal<T>() -> io::Result<T> {
    Err(io::ErrorKind::Other.into())
}

struct Pd(Arc<Nic>);

// SAFETY: REG-1 to REG-3: the NIC sees to it, or breaks one, as the model wants it to.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, access: Access) -> io::Result<Registered> {
        let nic = &self.0;
        let mut entries = nic.entries.lock().unwrap();
        let count = entries.iter().filter(|entry| entry.in_force).count();
        let refused = nic.refused == Refused::AllButTheFirst && count > 0;
        if !refused || nic.has(Fault::RegistersOnErr) {
            entries[count] = Entry {
                in_force: true,
                peers_write: access.lets_peers_write() || nic.has(Fault::GrantsMore),
            };
        }
        if refused {
            return refusal();
        }
        let key = count as u32;
        Ok(Registered {
            lkey: key,
            rkey: key,
            handle: Box::new(Handle(Arc::clone(nic), key)),
        })
    }
}

struct Handle(Arc<Nic>, u32);

// SAFETY: DEREG-1 to DEREG-3: as above.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        let refused = self.0.refused == Refused::Ends;
        if !refused || self.0.has(Fault::EndsOnErr) {
            self.0.end(self.1);
        }
        if refused { refusal() } else { Ok(()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.0.has(Fault::FreesInDrop) && !std::thread::panicking() {
            self.0.bytes.write(0);
        }
    }
}

/// A peer that was let read tries to write, by the key that it has or by one that it has not, while
/// somebody reads.
fn reader_beside_a_lease(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault, Refused::Nothing);
        let mr = nic.region();
        let lease = Kept::new(mr.lease(.., Access::REMOTE_READ, HOUR).unwrap());
        let peer = nic.peer(lease.token().rkey());
        let stranger = nic.peer(NO_KEY);
        nic.look(&*mr);
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
        let nic = Nic::new(fault, Refused::AllButTheFirst);
        let mr = nic.region();
        let lease = mr.lease(.., Access::REMOTE_WRITE, HOUR);
        assert!(matches!(lease, Err(Error::Register(_))));
        let peer = nic.peer(1);
        nic.look(&*mr);
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
fn registered_by_hand(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(fault, Refused::Nothing);
        // SAFETY: REG-4: kept below; unless the model is about it.
        let registered = unsafe {
            nic.pd()
                .register(NonNull::dangling(), 8, Access::REMOTE_WRITE)
        };
        let mut registered = Kept::new(registered.unwrap());
        let peer = nic.peer(registered.rkey);
        if fault != Some(Fault::UsesTheBytes) {
            registered.handle.deregister().unwrap();
        }
        nic.bytes.write(0); // freed
        peer.join().unwrap();
    });
}

/// Shows: REG-4, DEREG-1.
#[test]
fn what_is_registered_is_freed_after_the_end() {
    registered_by_hand("what_is_registered_is_freed_after_the_end", None);
}

/// Breaks: REG-4.
#[test]
#[should_panic(expected = "Causality violation")]
fn reg_4_bytes_that_are_freed_while_registered() {
    registered_by_hand("reg_4", Some(Fault::UsesTheBytes));
}

/// A region that can't be closed is used again.
fn close_that_is_refused(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, 1, move || {
        let nic = Nic::new(fault, Refused::Ends);
        let mr = nic.region().take();
        let (mr, _error) = mr.close().expect_err("refused");
        let mr = Kept::new(mr);
        let hold = Kept::new(mr.begin_read().unwrap());
        let device = {
            let (nic, key) = (Arc::clone(&nic), hold.sge().lkey);
            thread::spawn(move || nic.operation_reads(key))
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

/// A region is dropped that can't be ended, and that a peer may write still.
fn drop_that_is_refused(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, 1, move || {
        let nic = Nic::new(fault, Refused::Ends);
        // SAFETY: REMOTE-1, REMOTE-2: nobody else looks at the bytes.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let options = options.access(Access::REMOTE_WRITE | Access::LOCAL_WRITE);
        let mr = Kept::new(options.register(&nic.pd(), vec![0; 8]).unwrap());
        let peer = nic.peer(mr.rkey());
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
fn adopted(name: &str, how: How, fault: Option<Fault>) {
    exhaust(name, 2, LEAST, move || {
        let nic = Nic::new(fault, Refused::Nothing);
        let memory = vec![0_u64; 1].leak();
        let start = NonNull::from(&mut *memory).cast();
        // SAFETY: REG-4: it is never freed.
        let mut registered = unsafe { nic.pd().register(start, 8, Access::LOCAL_WRITE) }.unwrap();
        let key = registered.lkey;
        if how == How::Lent {
            // SAFETY: LENT-1: unless the model is about it.
            registered = unsafe { Registered::lent(key, key) };
        }
        let adoption = Adoption {
            addr: start.as_ptr(),
            length: 8,
            registered,
        };
        let (gone, wait) = loom::sync::mpsc::channel();
        let keepalive = Keepalive(Some(gone));
        // SAFETY: ADOPT-1 to ADOPT-3: unless the model is about one of them.
        let mr = unsafe { MrOptions::new().adopt(adoption, keepalive) }.unwrap();
        let mr = Kept::new(mr);
        let owner = {
            let nic = Arc::clone(&nic);
            thread::spawn(move || {
                match fault {
                    Some(Fault::UsesTheBytes) => nic.bytes.write(0),
                    Some(Fault::EndsTheRegistration) => nic.end(key),
                    _ => {}
                }
                wait.recv().unwrap();
                nic.end(key);
                nic.bytes.write(0);
            })
        };
        let peer = nic.peer(key);
        let hold = Kept::new(mr.begin_read().unwrap());
        nic.operation_reads(hold.sge().lkey);
        drop(hold);
        nic.look(&*mr);
        peer.join().unwrap();
        drop(mr);
        owner.join().unwrap();
        // SAFETY: it was leaked above.
        drop(unsafe { Box::from_raw(start.as_ptr().cast::<u64>()) });
    });
}

/// Says when it is dropped.
struct Keepalive(Option<loom::sync::mpsc::Sender<()>>);

impl Drop for Keepalive {
    fn drop(&mut self) {
        if let Some(gone) = self.0.take() {
            gone.send(()).unwrap();
        }
    }
}

/// Shows: ADOPT-1, ADOPT-2, ADOPT-3, MEM-3.
#[test]
fn what_was_adopted_is_its_owners_after_the_region() {
    adopted(
        "what_was_adopted_is_its_owners_after_the_region",
        How::Owned,
        None,
    );
}

/// Shows: LENT-1.
#[test]
fn what_was_lent_is_ended_by_its_owner_after_the_region() {
    adopted(
        "what_was_lent_is_ended_by_its_owner_after_the_region",
        How::Lent,
        None,
    );
}

/// The owner frees the bytes.
/// Breaks: ADOPT-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn adopt_1_bytes_that_their_owner_frees() {
    adopted("adopt_1", How::Owned, Some(Fault::UsesTheBytes));
}

/// Breaks: ADOPT-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn adopt_2_keys_with_more_rights_than_was_said() {
    adopted("adopt_2", How::Owned, Some(Fault::GrantsMore));
}

/// Breaks: ADOPT-3.
#[test]
#[should_panic(expected = "a key that is no more")]
fn adopt_3_a_registration_that_somebody_else_ends() {
    adopted("adopt_3", How::Owned, Some(Fault::EndsTheRegistration));
}

/// Breaks: LENT-1.
#[test]
#[should_panic(expected = "a key that is no more")]
fn lent_1_a_registration_that_its_owner_ends_early() {
    adopted("lent_1", How::Lent, Some(Fault::EndsTheRegistration));
}

/// Memory of a user's own type, registered, while somebody else has a pointer to it.
fn memory_of_ones_own(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(None, Refused::Nothing);
        let mr = Arc::new(nic.region());
        let other = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || match fault {
                Some(_) => nic.bytes.write(1),
                None => nic.look(&**mr),
            })
        };
        nic.look(&**mr);
        other.join().unwrap();
    });
}

/// Shows: MEM-3.
#[test]
fn the_bytes_are_the_regions_alone() {
    memory_of_ones_own("the_bytes_are_the_regions_alone", None);
}

/// Breaks: MEM-3.
#[test]
#[should_panic(expected = "Causality violation")]
fn mem_3_memory_that_somebody_else_writes() {
    memory_of_ones_own("mem_3", Some(Fault::UsesTheBytes));
}

/// A region that peers may write for good: the peer writes when an operation of this side lets it, and tells
/// when it is done.
fn written_by_peers(name: &str, fault: Option<Fault>) {
    exhaust(name, 3, LEAST, move || {
        let nic = Nic::new(None, Refused::Nothing);
        // SAFETY: REMOTE-1, REMOTE-2: unless the model is about one of them.
        let options = unsafe { MrOptions::new().grant_remote_write() };
        let options = options.access(Access::REMOTE_WRITE | Access::LOCAL_WRITE);
        let mr = options.register(&nic.pd(), vec![0; 8]).unwrap();
        let mr = Arc::new(Kept::new(mr));
        let key = mr.rkey();
        let (let_write, may_write) = loom::sync::mpsc::channel();
        let peer = {
            let nic = Arc::clone(&nic);
            thread::spawn(move || {
                if fault != Some(Fault::LetsPeersWriteAnyTime) {
                    may_write.recv().unwrap();
                }
                nic.peer_writes(key);
            })
        };
        let reader = {
            let (nic, mr) = (Arc::clone(&nic), Arc::clone(&mr));
            thread::spawn(move || nic.look(&**mr))
        };
        let hold = Kept::new(mr.begin_write().unwrap());
        let_write.send(()).unwrap();
        if fault == Some(Fault::GivesBackEarly) {
            drop(hold);
            nic.look(&**mr);
            peer.join().unwrap();
        } else {
            peer.join().unwrap();
            drop(hold);
            nic.look(&**mr);
        }
        reader.join().unwrap();
    });
}

/// Shows: REMOTE-1, REMOTE-2.
#[test]
fn a_peer_writes_under_a_hold() {
    written_by_peers("a_peer_writes_under_a_hold", None);
}

/// Breaks: REMOTE-1.
#[test]
#[should_panic(expected = "Causality violation")]
fn remote_1_a_peer_that_writes_at_any_time() {
    written_by_peers("remote_1", Some(Fault::LetsPeersWriteAnyTime));
}

/// Breaks: REMOTE-2.
#[test]
#[should_panic(expected = "Causality violation")]
fn remote_2_a_hold_that_is_given_back_early() {
    written_by_peers("remote_2", Some(Fault::GivesBackEarly));
}
