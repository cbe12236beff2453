//! A NIC that carries out what is posted: a thread of the model, which keeps the contracts of the
//! provider's traits, or breaks the one clause that a model is about.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread::{self, JoinHandle};
use rdma_mr::registration::{Registered, Registrar};
use rdma_mr::work::{
    CompletionQueue, QpCaps, QueuePair, RecvWr, SendFlags, SendWr, Sge, SharedRecvQueue,
    WorkCompletion,
};
use rdma_mr::{Access, Error, LocalMr, LocalMrReadAccess, Result};

use super::keys::parking;
use super::queues::{Cq, success};
use super::{Bytes, Kept, insist};

/// What the NIC does that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Goes on with the bytes after the completion (QP-1, SRQ-1).
    TouchesAfterCompletion,
    /// Carries out what it refused (QP-2).
    CarriesOutRefused,
    /// Completes twice (QP-3, SRQ-2).
    CompletesTwice,
    /// Goes on after the queue's end (QP-4, SRQ-3).
    GoesOnAfterDestroy,
    /// Takes the second before the first (QP-5).
    TakesTheSecondFirst,
    /// Completes before it has touched the bytes (CQ-1).
    CompletesBefore,
    /// Polling is no barrier (CQ-2).
    PollsWithoutBarrier,
    /// Completes under another queue pair's number; that is no clause.
    SaysAnotherNumber,
}

/// A region that several threads of a model may have.
pub type Region = Arc<Kept<LocalMr>>;

/// A work request, as the NIC has it.
#[derive(Clone, Copy)]
struct Wr {
    wr_id: u64,
    /// Which bytes: a registration's key is their number.
    bytes: u32,
    writes: bool,
    signaled: bool,
}

#[derive(Default)]
struct Posts {
    waiting: Vec<Wr>,
    destroyed: bool,
}

/// The NIC: the bytes of its registrations, and what was posted.
pub struct Nic {
    bytes: [Bytes; 3],
    posts: Mutex<Posts>,
    pub cq: Cq,
    fault: Option<Fault>,
}

impl Nic {
    pub fn new(fault: Option<Fault>) -> Arc<Self> {
        Arc::new(Nic {
            bytes: std::array::from_fn(|_| Bytes::new()),
            posts: Mutex::new(Posts::default()),
            cq: match fault {
                Some(Fault::PollsWithoutBarrier) => Cq::without_barrier(),
                _ => Cq::new(),
            },
            fault,
        })
    }

    /// Regions over its bytes, whose waiters park at once.
    pub fn regions<const N: usize>(self: &Arc<Self>) -> [Region; N] {
        std::array::from_fn(|key| {
            let pd = Arc::new(Pd(key as u32));
            Arc::new(Kept::new(parking().register(&pd, vec![0; 8]).unwrap()))
        })
    }

    /// The bytes of region `at`, for who has it.
    pub fn bytes(&self, at: usize) -> &Bytes {
        &self.bytes[at]
    }

    /// Looks at the bytes of region `at` under a guard, if it is free.
    pub fn look(&self, at: usize, mr: &LocalMr) {
        if let Some(guard) = mr.try_as_slice() {
            let guard = Kept::new(guard);
            self.bytes[at].read();
            drop(guard);
        }
    }

    /// Somebody else who looks.
    pub fn onlooker(self: &Arc<Self>, at: usize, mr: &Region) -> JoinHandle<()> {
        let (nic, mr) = (Arc::clone(self), Arc::clone(mr));
        thread::spawn(move || nic.look(at, &mr))
    }

    /// The next completion.
    pub fn poll(&self) -> WorkCompletion {
        insist(|| {
            let mut out = [WorkCompletion::EMPTY];
            (self.cq.poll(&mut out).unwrap() == 1).then_some(out[0])
        })
    }

    /// A thread that [carries out](Self::carry_out) that many.
    pub fn device(self: &Arc<Self>, count: usize) -> JoinHandle<()> {
        let nic = Arc::clone(self);
        thread::spawn(move || nic.carry_out(count))
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn post(&self, wr: Wr) -> Result<()> {
        let mut posts = self.posts.lock().unwrap();
        posts.waiting.push(wr);
        if self.has(Fault::CarriesOutRefused) {
            return Err(Error::InvalidWorkRequest {
                reason: "the provider refuses",
            });
        }
        Ok(())
    }

    /// Carries out that many, or until the queue is destroyed.
    pub fn carry_out(&self, count: usize) {
        for _ in 0..count {
            let posts = insist(|| {
                let posts = self.posts.lock().unwrap();
                let over = posts.destroyed && !self.has(Fault::GoesOnAfterDestroy);
                (over || !posts.waiting.is_empty()).then_some(posts)
            });
            // What is under way is carried out before the queue's end is.
            let mut posts = posts;
            if posts.destroyed && !self.has(Fault::GoesOnAfterDestroy) {
                return;
            }
            let second = self.has(Fault::TakesTheSecondFirst) && posts.waiting.len() > 1;
            let wr = posts.waiting.remove(usize::from(second));
            if self.has(Fault::GoesOnAfterDestroy) {
                drop(posts);
                self.carry_out_one(wr);
            } else {
                self.carry_out_one(wr);
                drop(posts);
            }
        }
    }

    fn carry_out_one(&self, wr: Wr) {
        let complete = || {
            if wr.signaled {
                let other = u32::from(self.has(Fault::SaysAnotherNumber));
                self.cq.put(success(wr.wr_id, QP_NUM + other));
            }
        };
        if self.has(Fault::CompletesBefore) {
            complete();
            self.touch(wr);
            return;
        }
        self.touch(wr);
        complete();
        match self.fault {
            Some(Fault::TouchesAfterCompletion) => self.touch(wr),
            Some(Fault::CompletesTwice) => complete(),
            _ => {}
        }
    }

    fn touch(&self, wr: Wr) {
        let bytes = &self.bytes[wr.bytes as usize];
        match wr.writes {
            true => bytes.add(1),
            false => {
                bytes.read();
            }
        }
    }

    fn destroy(&self) {
        self.posts.lock().unwrap().destroyed = true;
    }
}

const QP_NUM: u32 = 1;

/// A protection domain, for one registration.
struct Pd(u32);

// SAFETY: REG-1 to REG-3: the NIC is a model.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        // SAFETY: DEREG-1 to DEREG-3: the NIC touches what is posted, and no more.
        Ok(unsafe { Registered::ended_by(self.0, self.0, || Ok(())) })
    }
}

/// A queue of the NIC's: a queue pair, or a shared receive queue.
#[derive(Clone)]
pub struct Queue(pub Arc<Nic>);

fn wr(wr_id: u64, sge: &[Sge], writes: bool, signaled: bool) -> Wr {
    Wr {
        wr_id,
        bytes: sge[0].lkey,
        writes,
        signaled,
    }
}

// SAFETY: QP-1 to QP-5: the NIC sees to it, or breaks one, as the model wants it to.
unsafe impl QueuePair for Queue {
    type Cq = Cq;

    unsafe fn post_send(&self, send: &SendWr<'_>) -> Result<()> {
        let signaled = send.flags.contains(SendFlags::SIGNALED);
        let writes = send.op.writes_locally();
        self.0.post(wr(send.wr_id, send.sge, writes, signaled))
    }

    unsafe fn post_recv(&self, recv: &RecvWr<'_>) -> Result<()> {
        self.0.post(wr(recv.wr_id, recv.sge, true, true))
    }

    fn send_cq(&self) -> &Cq {
        &self.0.cq
    }

    fn recv_cq(&self) -> &Cq {
        &self.0.cq
    }

    fn caps(&self) -> QpCaps {
        QpCaps {
            max_send_wr: 2,
            max_recv_wr: 2,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: 0,
        }
    }

    fn qp_num(&self) -> u32 {
        QP_NUM
    }

    fn modify_to_error(&self) -> Result<()> {
        Ok(())
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        self.0.destroy();
        Ok(())
    }
}

// SAFETY: SRQ-1 to SRQ-3: as above.
unsafe impl SharedRecvQueue for Queue {
    unsafe fn post_recv(&self, recv: &RecvWr<'_>) -> Result<()> {
        self.0.post(wr(recv.wr_id, recv.sge, true, true))
    }

    fn capacity(&self) -> u32 {
        2
    }

    fn max_sge(&self) -> u32 {
        1
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        self.0.destroy();
        Ok(())
    }
}
