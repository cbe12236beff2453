//! Leases given, used by a peer, and ended in every way, while their bytes are wanted here.

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdma_mr::backend::soft::{CompletionQueue, ProtectionDomain};
use rdma_mr::lease::{Reaper, reap};
use rdma_mr::op::{AsyncQueuePair, Done, Poller};
use rdma_mr::registration::{Deregister, Registered, Registrar};
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, Error, Lease, Lend, LocalMr, LocalMrReadAccess, MrToken, RemoteMr};
use shuttle::future::block_on;
use shuttle::thread::yield_now;

use crate::place::{Place, WORDS};
use crate::run::{bytes_are, chance, explore, explore_wrong};
use crate::transfers::{look, threads};
use crate::world::{Polling, World, some_day};

/// A token on its way to the peer, and what it is to write.
type Letter = (MrToken, u64);

/// An hour: past when the model's clock has nothing else to wait for.
const HOUR: Duration = Duration::from_secs(3600);

fn lend(mr: &LocalMr, access: Access) -> Lease {
    let lease = match chance(4) {
        0 => block_on(mr.lease_async(.., access, HOUR)),
        1 => mr.lease_with(.., access, HOUR, yield_now),
        2 => mr.lease_until(.., access, HOUR, some_day()),
        _ => mr.lease(.., access, HOUR),
    };
    match lease {
        Err(Error::Deadline { .. }) => lend(mr, access),
        lease => lease.unwrap(),
    }
}

fn end(lease: Lease, there_is_a_reaper: bool) {
    match chance(4) {
        0 => lease.revoke().unwrap(),
        1 => block_on(lease.revoke_async()).unwrap(),
        2 if there_is_a_reaper => {
            while !lease.is_revoked() {
                reap();
                yield_now();
            }
        }
        _ => drop(lease),
    }
}

/// A peer that WRITEs turns between two.
fn two(tag: u64) -> [u64; 2] {
    [tag, tag + 1000]
}

/// A READ of the peer's, or WRITEs until its lease is over, which it may be from the start.
fn use_token(world: &World, poller: &Poller<CompletionQueue>, (token, tag): Letter, place: &Place) {
    let (a, _b) = world.ends(poller);
    let a = AsyncQueuePair::new(a);
    let mut remote = RemoteMr::new(token).unwrap();
    let mine = two(tag).map(|tag| {
        let mine = Place::new(LocalMr::alloc(&world.pd, WORDS * 8).unwrap());
        mine.write(tag);
        mine.into_mr()
    });
    if !token.access().contains(Access::REMOTE_WRITE) {
        if is_over(block_on(a.read(&mine[0], &remote))) {
            return;
        }
        let tag = Place::whole(&mine[0].as_slice());
        bytes_are(place.had(tag));
        return assert!(place.had(tag), "bytes: nobody's");
    }
    for n in 0..6 {
        if is_over(block_on(a.write(&mine[n % 2], &mut remote))) {
            return;
        }
        place.has_arrived(two(tag)[n % 2]);
    }
}

fn is_over(done: Result<Done, Error>) -> bool {
    match done {
        Ok(_) => false,
        Err(Error::OperationFailed { status, .. }) => {
            assert_eq!(status, WcStatus::RemAccessErr);
            true
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// The place is registered by the one that is made of the world's.
fn scenario<R: Registrar>(registrar: fn(&Arc<ProtectionDomain>) -> Arc<R>) {
    let world = Arc::new(World::new());
    let poller = Poller::new(world.cq());
    // Operations fail here: a key that has ended is refused.
    let polling = Polling::telling(&world, &poller, |done: Done| {
        let ends = [
            WcStatus::Success,
            WcStatus::RemAccessErr,
            WcStatus::WrFlushErr,
        ];
        assert!(ends.contains(&done.status), "{done:?}");
    });
    let reaper = (chance(2) == 0).then(|| Reaper::spawn("reaper").unwrap());
    let reaps = reaper.is_some();
    let place = Place::new(LocalMr::alloc(&registrar(&world.pd), WORDS * 8).unwrap());
    let letters = Arc::new(Mutex::new(Vec::<Letter>::new()));
    let (p, l) = (Arc::clone(&place), Arc::clone(&letters));
    let lender = move |n: usize| {
        let mr = p.mr.read().unwrap();
        let tag = 500 + n as u64;
        let lease = match chance(3) {
            0 => lend(&mr, Access::REMOTE_READ),
            _ => {
                two(tag).into_iter().for_each(|tag| p.lend(tag));
                let lease = lend(&mr, Access::REMOTE_WRITE);
                two(tag).into_iter().for_each(|tag| p.granted(tag));
                lease
            }
        };
        drop(mr);
        l.lock().unwrap().push((lease.token(), tag));
        // Mostly long enough for the peer to be in the midst of it.
        for _ in 0..chance(300) {
            yield_now();
        }
        end(lease, reaps);
    };
    let (w, q, l) = (Arc::clone(&world), poller.clone(), Arc::clone(&letters));
    let p = Arc::clone(&place);
    let peer = move |_: usize| {
        for _ in 0..20 {
            let letter = l.lock().unwrap().pop();
            if let Some(letter) = letter {
                return use_token(&w, &q, letter, &p);
            }
            yield_now();
        }
    };
    let p = Arc::clone(&place);
    let read = move |_: usize| look(&p);
    let p = Arc::clone(&place);
    let write = move |n: usize| p.write(600 + n as u64);
    // What is short leaves PCT fewer places to choose from.
    let times = 1 + chance(3);
    threads(vec![
        (times, Box::new(lender)),
        (times, Box::new(peer)),
        (1 + times, Box::new(read.clone())),
        (times, Box::new(read)),
        (times / 2, Box::new(write)),
    ]);
    look(&place);
    drop(reaper);
    polling.end();
    assert_eq!(reap().next, None, "a lease is left on the list");
    let mr = place.into_mr();
    assert!(mr.state().is_free(), "{}", mr.state());
    if chance(2) == 0 {
        // The lease outlives its region's handle.
        let lease = lend(&mr, Access::REMOTE_WRITE);
        drop(mr);
        end(lease, false);
    } else {
        drop(mr);
    }
    drop(poller);
    Arc::into_inner(world).unwrap().end();
}

/// The bytes of a lease are had when its registration has ended, whoever ends it.
///
/// Shows: LEASE-1, LOCKED-1, DEREG-1.
#[test]
fn leases_come_and_go() {
    explore("leases_come_and_go", 1500, || scenario(Arc::clone));
}

/// Says of each registration that it has ended, and ends it when there is none left.
struct Lax {
    pd: Arc<ProtectionDomain>,
    kept: Arc<Mutex<Vec<Box<dyn Deregister>>>>,
}

impl Lax {
    fn new(pd: &Arc<ProtectionDomain>) -> Arc<Self> {
        Arc::new(Lax {
            pd: Arc::clone(pd),
            kept: Arc::default(),
        })
    }
}

// SAFETY: REG-1 to REG-5 by the one beneath; but DEREG-1 does not hold, which the model is to notice. The
// regions are gone, and with them who uses tokens, when the NIC lets go of the memory.
unsafe impl Registrar for Lax {
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        // SAFETY: REG-4, as required of the caller.
        let Registered { lkey, rkey, handle } = unsafe { self.pd.register(addr, length, access) }?;
        let (mut handle, kept) = (Some(handle), Arc::clone(&self.kept));
        let later = move || {
            kept.lock().unwrap().extend(handle.take());
            Ok(())
        };
        // SAFETY: see above.
        Ok(unsafe { Registered::ended_by(lkey, rkey, later) })
    }
}

impl Drop for Lax {
    fn drop(&mut self) {
        for mut handle in self.kept.lock().unwrap().drain(..) {
            handle.deregister().unwrap();
        }
    }
}

/// What a lease is worth when its registration goes on.
///
/// Breaks: DEREG-1.
#[test]
#[should_panic(expected = "wrong bytes were noticed")]
fn where_registrations_go_on_the_bytes_are_not_had() {
    let name = "where_registrations_go_on_the_bytes_are_not_had";
    explore_wrong(name, 1500, || scenario(Lax::new));
}
