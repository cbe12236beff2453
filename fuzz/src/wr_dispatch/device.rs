//! A device that does nothing: it takes posts, or refuses them, and its completions are what it is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use rdma_mr::work::{
    CompletionQueue, QpCaps, QueuePair, RecvWr, SendWr, SharedRecvQueue, WorkCompletion,
};
use rdma_mr::{Error, Result};

/// Work requests that a queue takes.
pub const CAPACITY: usize = 4;

/// The completion queue.
#[derive(Clone, Default)]
pub struct Cq(Rc<RefCell<VecDeque<WorkCompletion>>>);

impl Cq {
    /// This one is polled next but those that are there.
    pub fn come(&self, wc: WorkCompletion) {
        self.0.borrow_mut().push_back(wc);
    }

    /// Those that are there.
    pub fn waiting(&self) -> Vec<WorkCompletion> {
        self.0.borrow().iter().copied().collect()
    }
}

// SAFETY: CQ-1, CQ-2: no NIC touches anything. It breaks what is said of `wr_id`s on purpose, as a broken device
// would; nobody turns one back here.
unsafe impl CompletionQueue for Cq {
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        let mut waiting = self.0.borrow_mut();
        let count = out.len().min(waiting.len());
        for (to, from) in out.iter_mut().zip(waiting.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A queue pair.
pub struct Qp {
    number: u32,
    cq: Cq,
    /// Whether the next post is refused.
    pub fails: Cell<bool>,
}

impl Qp {
    pub fn new(number: u32, cq: Cq) -> Self {
        let fails = Cell::new(false);
        Qp { number, cq, fails }
    }

    fn post(&self) -> Result<()> {
        match self.fails.get() {
            true => Err(Error::Provider {
                call: "post",
                source: io::ErrorKind::OutOfMemory.into(),
            }),
            false => Ok(()),
        }
    }
}

// SAFETY: QP-1, QP-2, QP-4: no NIC touches anything. QP-3 and QP-5 are broken on purpose; they are what is to be
// survived.
unsafe impl QueuePair for Qp {
    type Cq = Cq;

    unsafe fn post_send(&self, _: &SendWr<'_>) -> Result<()> {
        self.post()
    }

    unsafe fn post_recv(&self, _: &RecvWr<'_>) -> Result<()> {
        self.post()
    }

    fn send_cq(&self) -> &Cq {
        &self.cq
    }

    fn recv_cq(&self) -> &Cq {
        &self.cq
    }

    fn caps(&self) -> QpCaps {
        QpCaps {
            max_send_wr: CAPACITY as u32,
            max_recv_wr: CAPACITY as u32,
            ..QpCaps::default()
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

/// A shared receive queue.
pub struct Srq;

// SAFETY: SRQ-1, SRQ-3: no NIC touches anything. SRQ-2 is broken on purpose.
unsafe impl SharedRecvQueue for Srq {
    unsafe fn post_recv(&self, _: &RecvWr<'_>) -> Result<()> {
        Ok(())
    }

    fn capacity(&self) -> u32 {
        CAPACITY as u32
    }

    fn max_sge(&self) -> u32 {
        1
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        Ok(())
    }
}
