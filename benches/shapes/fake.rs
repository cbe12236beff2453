//! A queue pair that does next to nothing: what is posted is complete at once. What is counted beside
//! it is ours.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use rdma_mr::Result;
use rdma_mr::work::{
    CompletionQueue, QpCaps, QueuePair, RecvWr, SendFlags, SendWr, WcStatus, WorkCompletion,
};

const CAPACITY: usize = 64;

/// The ids of what is complete.
#[derive(Clone)]
pub struct FakeCq(Rc<Ids>);

struct Ids {
    ids: [Cell<u64>; CAPACITY],
    head: Cell<usize>,
    tail: Cell<usize>,
}

// SAFETY: CQ-1, CQ-2: there is no NIC: nobody touches the bytes of a work request.
unsafe impl CompletionQueue for FakeCq {
    #[inline]
    fn poll(&self, out: &mut [WorkCompletion]) -> Result<usize> {
        let Ids { ids, head, tail } = &*self.0;
        let count = out.len().min(tail.get() - head.get());
        for wc in &mut out[..count] {
            *wc = WorkCompletion {
                wr_id: ids[head.get() % CAPACITY].get(),
                status: WcStatus::Success,
                qp_num: QP_NUM,
                ..WorkCompletion::EMPTY
            };
            head.set(head.get() + 1);
        }
        Ok(count)
    }

    fn is_same_as(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

const QP_NUM: u32 = 17;

pub struct FakeQp(FakeCq);

impl FakeQp {
    pub fn new() -> Self {
        FakeQp(FakeCq(Rc::new(Ids {
            ids: [const { Cell::new(0) }; CAPACITY],
            head: Cell::new(0),
            tail: Cell::new(0),
        })))
    }

    #[inline]
    fn push(&self, wr_id: u64) {
        let Ids { ids, tail, .. } = &*self.0.0;
        ids[tail.get() % CAPACITY].set(wr_id);
        tail.set(tail.get() + 1);
    }
}

// SAFETY: QP-1 to QP-5: there is no NIC: nobody touches the bytes of a work request. Completions come
// in order, with the only queue pair's number.
unsafe impl QueuePair for FakeQp {
    type Cq = FakeCq;

    #[inline]
    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        if wr.flags.contains(SendFlags::SIGNALED) {
            self.push(wr.wr_id);
        }
        Ok(())
    }

    #[inline]
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        self.push(wr.wr_id);
        Ok(())
    }

    fn send_cq(&self) -> &FakeCq {
        &self.0
    }

    fn recv_cq(&self) -> &FakeCq {
        &self.0
    }

    fn caps(&self) -> QpCaps {
        QpCaps::default()
    }

    fn qp_num(&self) -> u32 {
        QP_NUM
    }

    fn modify_to_error(&self) -> Result<()> {
        Ok(())
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        Ok(())
    }
}
