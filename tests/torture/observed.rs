//! A queue pair that says afterwards whether it was destroyed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdma_mr::Result;
use rdma_mr::work::{BadWr, QpCaps, QueuePair, RecvWr, SendWr};

use super::report::count;

pub struct Observed<Q> {
    inner: Q,
    destroyed: Arc<AtomicBool>,
}

impl<Q> Observed<Q> {
    pub fn new(inner: Q) -> (Self, Arc<AtomicBool>) {
        let destroyed = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&destroyed);
        (Observed { inner, destroyed }, flag)
    }
}

// SAFETY: QP-1 to QP-5: each call is handed on as it is.
unsafe impl<Q: QueuePair> QueuePair for Observed<Q> {
    type Cq = Q::Cq;

    unsafe fn post_send(&self, wr: &SendWr<'_>) -> Result<()> {
        // SAFETY: POST-1, POST-3: as required of the caller.
        unsafe { self.inner.post_send(wr) }
    }

    unsafe fn post_send_list(&self, wrs: &[SendWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-1, POST-3: as required of the caller.
        unsafe { self.inner.post_send_list(wrs) }
    }

    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        // SAFETY: POST-2, POST-3: as required of the caller.
        unsafe { self.inner.post_recv(wr) }
    }

    unsafe fn post_recv_list(&self, wrs: &[RecvWr<'_>]) -> Result<(), BadWr> {
        // SAFETY: POST-2, POST-3: as required of the caller.
        unsafe { self.inner.post_recv_list(wrs) }
    }

    fn send_cq(&self) -> &Q::Cq {
        self.inner.send_cq()
    }

    fn recv_cq(&self) -> &Q::Cq {
        self.inner.recv_cq()
    }

    fn caps(&self) -> QpCaps {
        self.inner.caps()
    }

    fn qp_num(&self) -> u32 {
        self.inner.qp_num()
    }

    fn modify_to_error(&self) -> Result<()> {
        self.inner.modify_to_error()
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        let Observed { inner, destroyed } = self;
        match inner.destroy() {
            Ok(()) => {
                destroyed.store(true, Ordering::SeqCst);
                Ok(())
            }
            Err((inner, error)) => {
                count("fault destruction refused");
                Err((Observed { inner, destroyed }, error))
            }
        }
    }
}
