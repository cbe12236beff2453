//! A queue pair and a completion queue for the models: as little of a NIC as will do.
//!
//! The edges between the NIC and the threads (AX-1, AX-2) are those of the completion queue: what
//! was written before a completion was put in is seen by who takes it out, and nothing else is handed
//! on. Places and positions are loom's `UnsafeCell`: two who poll at a time are reported.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicBool, AtomicU64};
use rdma_mr::work::{
    CompletionEvents, CompletionQueue, QpCaps, QueuePair, RecvWr, SendWr, WcStatus, WorkCompletion,
};
use rdma_mr::{Error, Result};

const PLACES: usize = 4;

/// A completion queue with one who fills it and, if the crate is right, one at a time who polls it.
pub struct Queue {
    places: [UnsafeCell<WorkCompletion>; PLACES],
    filled: AtomicU64,
    /// The same, for the one who fills alone: a load of `filled` there would hide orders from loom, which
    /// goes by the last access.
    put: std::sync::atomic::AtomicU64,
    taken: UnsafeCell<u64>,
    fails: AtomicBool,
    armed: AtomicBool,
    event: Notify,
    /// Of one whose polls are no barrier (CQ-2): the completions, as loom does not see them.
    unseen: Option<Mutex<[WorkCompletion; PLACES]>>,
}

// SAFETY: accesses are meant to be ordered; loom fails the model where they are not.
unsafe impl Sync for Queue {}
// SAFETY: as above.
unsafe impl Send for Queue {}

/// A handle of it.
#[derive(Clone)]
pub struct Cq(Arc<Queue>);

impl Cq {
    pub fn new() -> Self {
        Self::with(None)
    }

    /// One that hands on completions and nothing else.
    pub fn without_barrier() -> Self {
        Self::with(Some(Mutex::new([WorkCompletion::EMPTY; PLACES])))
    }

    fn with(unseen: Option<Mutex<[WorkCompletion; PLACES]>>) -> Self {
        Cq(Arc::new(Queue {
            unseen,
            places: std::array::from_fn(|_| UnsafeCell::new(WorkCompletion::EMPTY)),
            filled: AtomicU64::new(0),
            put: std::sync::atomic::AtomicU64::new(0),
            taken: UnsafeCell::new(0),
            fails: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            event: Notify::new(),
        }))
    }

    /// From the next poll on it fails, and says so without a look at what else is there.
    pub fn break_down(&self) {
        self.0.fails.store(true, Relaxed);
    }

    /// A completion comes.
    pub fn put(&self, wc: WorkCompletion) {
        let at = self.0.put.fetch_add(1, Relaxed);
        let place = &self.0.places[at as usize % PLACES];
        // SAFETY: the one who fills is alone with it; loom would tell.
        place.with_mut(|place| unsafe { *place = wc });
        if let Some(unseen) = &self.0.unseen {
            unseen.lock().unwrap()[at as usize % PLACES] = wc;
        }
        self.0.filled.store(at + 1, Release);
        if self.0.armed.swap(false, AcqRel) {
            self.0.event.notify();
        }
    }
}

/// A successful one, with numbers in it that tell whether they arrived.
pub fn success(wr_id: u64, qp_num: u32) -> WorkCompletion {
    WorkCompletion {
        wr_id,
        qp_num,
        status: WcStatus::Success,
        byte_len: 5,
        imm: Some(7),
        ..WorkCompletion::EMPTY
    }
}

// SAFETY: CQ-1: each place is read once for each time it was filled; CQ-2 by Release and Acquire.
unsafe impl CompletionQueue for Cq {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        if self.0.fails.load(Relaxed) {
            return Err(Error::Provider {
                call: "poll",
                source: io::ErrorKind::Other.into(),
            });
        }
        self.0.taken.with_mut(|taken| {
            // SAFETY: one polls at a time; loom tells if that is not so.
            let taken = unsafe { &mut *taken };
            let mut count = 0;
            let barrier = self.0.unseen.as_ref().map_or(Acquire, |_| Relaxed);
            while count < out.len() && *taken < self.0.filled.load(barrier) {
                let at = *taken as usize % PLACES;
                out[count] = match &self.0.unseen {
                    Some(unseen) => unseen.lock().unwrap()[at],
                    // SAFETY: filled, as `filled` says.
                    None => self.0.places[at].with(|place| unsafe { *place }),
                };
                *taken += 1;
                count += 1;
            }
            Ok(count)
        })
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl CompletionEvents for Cq {
    fn req_notify(&self, _: bool) -> Result<()> {
        self.0.armed.swap(true, AcqRel);
        Ok(())
    }

    fn take_events(&self) -> Result<u32> {
        Ok(0)
    }

    fn wait_event(&self, _: Option<Duration>) -> Result<bool> {
        self.0.event.wait();
        Ok(true)
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

/// What becomes of a work request at the post.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    /// It is carried out at once, and its completion is there before the post returns.
    Completes,
    /// Whoever plays the NIC asks for it.
    Waits,
    /// The post is refused.
    Refused,
}

/// A queue pair of which one at a time posts.
pub struct Qp {
    cq: Cq,
    capacity: u32,
    fate: Fate,
    number: u32,
    /// `wr_id`s that wait.
    pub waiting: RefCell<Vec<u64>>,
}

impl Qp {
    pub fn new(cq: &Cq, capacity: u32, fate: Fate, number: u32) -> Self {
        Qp {
            cq: cq.clone(),
            capacity,
            fate,
            number,
            waiting: RefCell::default(),
        }
    }

    fn post(&self, wr_id: u64) -> Result<()> {
        match self.fate {
            Fate::Completes => self.cq.put(success(wr_id, self.number)),
            Fate::Waits => self.waiting.borrow_mut().push(wr_id),
            Fate::Refused => {
                return Err(Error::InvalidWorkRequest {
                    reason: "the provider refuses",
                });
            }
        }
        Ok(())
    }
}

// SAFETY: QP-1 to QP-5: it touches no bytes, and each work request has one completion.
unsafe impl QueuePair for Qp {
    type Cq = Cq;

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        self.post(wr.wr_id)
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        self.post(wr.wr_id)
    }

    fn send_cq(&self) -> &Cq {
        &self.cq
    }

    fn recv_cq(&self) -> &Cq {
        &self.cq
    }

    fn caps(&self) -> QpCaps {
        QpCaps {
            max_send_wr: self.capacity,
            max_recv_wr: self.capacity,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline: 0,
        }
    }

    fn qp_num(&self) -> u32 {
        self.number
    }

    fn modify_to_error(&self) -> Result<()> {
        Ok(())
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        Ok(())
    }
}
