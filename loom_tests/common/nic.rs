//! A NIC that carries out what is posted, and what peers ask for, by key and address, on bytes that loom
//! watches. To post is to spawn the thread that carries it out (AX-1); the completion goes over a
//! wire, whose edge is AX-2.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use loom::sync::Mutex;
use loom::thread::{self, JoinHandle};
use rdma_mr::op::{Begin, Hold, recv_slots, send_ring};
use rdma_mr::registration::{Deregister, Registered, Registrar, StableMemory};
use rdma_mr::work::{RemoteAddr, SendFlags, WcStatus};
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, MrAccess, MrOptions};

use super::keys::parking;
use super::{Bytes, Kept, Wire};

/// What tells a remote key from the local one of the same registration.
const REMOTE: u32 = 0x100;

pub struct Nic {
    /// The registrations that there have been, by number: with what rights each is in force.
    in_force: [Mutex<Option<Access>>; 4],
    next: AtomicU32,
    /// The only ones that it reaches.
    pub bytes: Arc<Bytes>,
    fault: Option<Fault>,
    refuses: Refuses,
}

/// What the NIC and its registrar do that they must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The keys let peers write, whatever was asked for (REG-1).
    GrantsMore,
    /// Peers write without a key (REG-2).
    AsksForNoKey,
    /// What was refused is in force nevertheless (REG-3).
    RegistersOnErr,
    /// What was ended is in force (DEREG-1).
    EndsNothing,
    /// What could not be ended has ended (DEREG-2).
    EndsOnErr,
    /// A handle that is dropped frees what the NIC may use (DEREG-3).
    FreesInDrop,
}

/// What the provider refuses, as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    Nothing,
    /// All registrations but the first.
    More,
    /// All ends of registrations.
    Ends,
}

/// What an operation does to the bytes.
#[derive(Clone, Copy)]
pub enum Does {
    Read,
    Write(u64),
}

impl Does {
    fn begin(self, mr: &LocalMr) -> Hold {
        let hold = match self {
            Does::Read => mr.begin_read(),
            Does::Write(_) => mr.begin_write(),
        };
        hold.unwrap()
    }
}

impl Nic {
    pub fn new() -> Arc<Self> {
        Self::with(None, Refuses::Nothing)
    }

    /// One that keeps its contracts but for that, of a provider that refuses that.
    pub fn with(fault: Option<Fault>, refuses: Refuses) -> Arc<Self> {
        Arc::new(Nic {
            in_force: std::array::from_fn(|_| Mutex::new(None)),
            next: AtomicU32::new(0),
            bytes: Arc::new(Bytes::new()),
            fault,
            refuses,
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub fn pd(self: &Arc<Self>) -> Arc<Pd> {
        Arc::new(Pd(Arc::clone(self)))
    }

    /// A region over its bytes, which peers may read; its waiters park at once.
    pub fn region(self: &Arc<Self>) -> LocalMr {
        self.region_with(parking().access(Access::LOCAL_WRITE | Access::REMOTE_READ))
    }

    /// A region over its bytes.
    pub fn region_with(self: &Arc<Self>, options: MrOptions) -> LocalMr {
        let memory = Watched(Arc::clone(&self.bytes));
        options.register(&self.pd(), memory).unwrap()
    }

    /// Ends the registration with that key.
    pub fn end(&self, key: u32) {
        *self.in_force[(key % REMOTE) as usize].lock().unwrap() = None;
    }

    /// That to the bytes at that address, if the key is in force and lets it; whether it does. The end of a
    /// registration waits for it (DEREG-1).
    fn touch(&self, key: u32, addr: u64, does: Does, lets: impl FnOnce(Access) -> bool) -> bool {
        // Not dropped in a panic.
        let in_force = ManuallyDrop::new(self.in_force[(key % REMOTE) as usize].lock().unwrap());
        let reached = in_force.is_some_and(lets);
        match does {
            _ if !reached => {}
            Does::Read => drop(self.bytes.read_at(addr as *const u8)),
            Does::Write(value) => self.bytes.write_at(addr as *mut u8, value),
        }
        drop(ManuallyDrop::into_inner(in_force));
        reached
    }

    /// The region's bytes as a peer names them by that key.
    pub fn named(mr: &LocalMr, rkey: u32) -> RemoteAddr {
        let addr = mr.addr() as u64;
        RemoteAddr { addr, rkey }
    }

    /// The key that nobody was given.
    pub const NO_KEY: u32 = 3 | REMOTE;

    /// A READ or WRITE of a peer's, which is refused if the key is no more.
    pub fn peer(&self, at: RemoteAddr, does: Does) -> bool {
        assert!(at.rkey >= REMOTE, "no remote key");
        let granted = match does {
            Does::Read => Access::REMOTE_READ,
            Does::Write(_) => Access::REMOTE_WRITE,
        };
        if self.has(Fault::AsksForNoKey) {
            self.bytes.add(1);
        }
        self.touch(at.rkey, at.addr, does, |access| access.contains(granted))
    }

    /// As [`peer`](Self::peer), by a thread of its own.
    pub fn peer_thread(self: &Arc<Self>, at: RemoteAddr, does: Does) -> JoinHandle<()> {
        let nic = Arc::clone(self);
        thread::spawn(move || {
            nic.peer(at, does);
        })
    }

    /// Looks at the bytes under a guard, if the region is free.
    pub fn look(&self, mr: &LocalMr) {
        if let Some(guard) = mr.try_as_slice() {
            let guard = Kept::new(guard);
            self.bytes.read_at(guard.as_ptr());
            drop(guard);
        }
    }

    /// Carries out what names that local key.
    pub fn carry_out(&self, lkey: u32, addr: u64, does: Does) {
        assert!(lkey < REMOTE, "no local key");
        let reached = self.touch(lkey, addr, does, |_| true);
        assert!(reached, "a key that is no more");
    }

    /// Begins an operation that does that, and posts it by way of a send ring.
    pub fn post(self: &Arc<Self>, mr: &LocalMr, does: Does) -> InFlight {
        let hold = does.begin(mr);
        let lkey = hold.sge().lkey;
        self.post_hold(hold, lkey, does)
    }

    /// As [`post`](Self::post), with that key.
    pub fn post_with(self: &Arc<Self>, mr: &LocalMr, lkey: u32, does: Does) -> InFlight {
        self.post_hold(does.begin(mr), lkey, does)
    }

    fn post_hold(self: &Arc<Self>, hold: Hold, lkey: u32, does: Does) -> InFlight {
        let (mut poster, mut completer) = send_ring(1, 1);
        let addr = hold.sge().addr;
        let prepared = poster.prepare(hold, SendFlags::SIGNALED).unwrap();
        let carried_out = self.ring(prepared.wr_id(), lkey, addr, does);
        prepared.commit();
        InFlight::new(carried_out, move |wr_id| {
            // SAFETY: COMPLETE-1: it was polled.
            unsafe { completer.complete(wr_id, WcStatus::Success) }.unwrap();
            drop(poster);
        })
    }

    /// Begins a receive, and posts it by way of the slots of a shared queue; what comes is that value.
    pub fn receive(self: &Arc<Self>, mr: &LocalMr, value: u64) -> InFlight {
        let (mut poster, completer) = recv_slots(1, 1);
        let hold = mr.begin_write().unwrap();
        let sge = hold.sge();
        let prepared = poster.prepare(hold).unwrap();
        let carried_out = self.ring(prepared.wr_id(), sge.lkey, sge.addr, Does::Write(value));
        prepared.commit();
        InFlight::new(carried_out, move |wr_id| {
            // SAFETY: COMPLETE-1: it was polled.
            unsafe { completer.complete(wr_id, WcStatus::Success) }.unwrap();
            drop(poster);
        })
    }

    /// The doorbell.
    fn ring(self: &Arc<Self>, wr_id: u64, lkey: u32, addr: u64, does: Does) -> CarriedOut {
        let (nic, wire) = (Arc::clone(self), Wire::new(true));
        let completion = Arc::clone(&wire);
        let thread = thread::spawn(move || {
            nic.carry_out(lkey, addr, does);
            wire.put(0, wr_id);
        });
        CarriedOut { thread, completion }
    }

    /// How many registrations are in force.
    pub fn registrations(&self) -> usize {
        let in_force = |at: &&Mutex<Option<Access>>| at.lock().unwrap().is_some();
        self.in_force.iter().filter(in_force).count()
    }
}

/// The NIC's side of an operation.
struct CarriedOut {
    thread: JoinHandle<()>,
    completion: Arc<Wire>,
}

/// An operation that was posted.
#[must_use]
pub struct InFlight {
    carried_out: CarriedOut,
    release: Box<dyn FnOnce(u64) + Send>,
}

impl InFlight {
    fn new(carried_out: CarriedOut, release: impl FnOnce(u64) + Send + 'static) -> Self {
        let release = Box::new(release);
        InFlight {
            carried_out,
            release,
        }
    }

    /// Polls, once more when there has to be a completion, and releases its hold. (To poll over and over
    /// hides orders from loom.)
    pub fn complete(self) {
        let CarriedOut { thread, completion } = self.carried_out;
        let wr_id = completion.look(0).unwrap_or_else(|| {
            thread.join().unwrap();
            completion.look(0).expect("it was carried out")
        });
        (self.release)(wr_id);
    }
}

/// Bytes as the memory of a region. When it is freed loom is told, and they stay for who is late.
pub struct Watched(Arc<Bytes>);

// SAFETY: MEM-1, MEM-2: eight bytes in an `Arc`. MEM-3, MEM-4: loom is asked.
unsafe impl StableMemory for Watched {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.address()
    }

    fn length(&self) -> usize {
        size_of::<u64>()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.write(Bytes::GONE);
        }
    }
}

pub struct Pd(Arc<Nic>);

fn refusal<T>() -> io::Result<T> {
    Err(io::ErrorKind::Other.into())
}

// SAFETY: REG-1 to REG-3: the NIC is a model, and sees to it, or breaks one, as the model wants it to.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, access: Access) -> io::Result<Registered> {
        let nic = &self.0;
        let number = nic.next.fetch_add(1, Relaxed);
        let refused = nic.refuses == Refuses::More && number > 0;
        if !refused || nic.has(Fault::RegistersOnErr) {
            let more = match nic.has(Fault::GrantsMore) {
                true => Access::REMOTE_WRITE,
                false => Access::empty(),
            };
            *nic.in_force[number as usize].lock().unwrap() = Some(access | more);
        }
        if refused {
            return refusal();
        }
        Ok(Registered {
            lkey: number,
            rkey: number | REMOTE,
            handle: Box::new(Handle(Arc::clone(nic), number)),
        })
    }
}

struct Handle(Arc<Nic>, u32);

// SAFETY: DEREG-1 to DEREG-3: as above.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        let nic = &self.0;
        let refused = nic.refuses == Refuses::Ends;
        let ends = match refused {
            true => nic.has(Fault::EndsOnErr),
            false => !nic.has(Fault::EndsNothing),
        };
        if ends {
            nic.end(self.1);
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
