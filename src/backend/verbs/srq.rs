//! Shared receive queues.

use std::fmt;
use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdma_sys::{
    ibv_create_srq, ibv_destroy_srq, ibv_post_srq_recv, ibv_srq, ibv_srq_attr, ibv_srq_init_attr,
};

use super::{Context, ProtectionDomain, code, last_error, note_leak, pd, post, wr};
use crate::error::Result;
use crate::work::{self, RecvWr};

/// A shared receive queue (`struct ibv_srq`): receives for all queue pairs that were made with it
/// ([`create_qp_with_srq`](ProtectionDomain::create_qp_with_srq)), which keep it alive. Dropped
/// before them, it is destroyed with the last of them.
///
/// A queue pair that goes into ERR leaves the receives that it has not taken to the others. One
/// that it took for a message that has not arrived whole may never complete (rule R16).
pub struct SharedRecvQueue {
    inner: Arc<Inner>,
    capacity: u32,
    max_sge: u32,
}

/// What queue pairs hold on to.
pub(super) struct Inner {
    raw: NonNull<ibv_srq>,
    destroyed: AtomicBool,
    pd: Arc<pd::Inner>,
}

// SAFETY: the verbs may be called on a shared receive queue from any thread at the same time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl fmt::Debug for SharedRecvQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRecvQueue")
            .field("capacity", &self.capacity)
            .field("max_sge", &self.max_sge)
            .finish_non_exhaustive()
    }
}

impl ProtectionDomain {
    /// Creates a shared receive queue for at least `capacity` work requests of at least `max_sge`
    /// scatter/gather elements each (`ibv_create_srq`).
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn create_srq(&self, capacity: u32, max_sge: u32) -> Result<SharedRecvQueue> {
        let mut attr = ibv_srq_init_attr {
            srq_context: ptr::null_mut(),
            attr: ibv_srq_attr {
                max_wr: capacity,
                max_sge,
                srq_limit: 0,
            },
        };
        // SAFETY: the protection domain is alive, `attr` is alive for the call.
        let raw = NonNull::new(unsafe { ibv_create_srq(self.as_raw(), &mut attr) })
            .ok_or_else(|| last_error("ibv_create_srq"))?;
        Ok(SharedRecvQueue {
            inner: Arc::new(Inner {
                raw,
                destroyed: AtomicBool::new(false),
                pd: Arc::clone(self.inner()),
            }),
            capacity: attr.attr.max_wr,
            max_sge: attr.attr.max_sge,
        })
    }
}

// SAFETY: SRQ-1 and SRQ-2 are the verbs'; an error of a post of one means that it was not posted:
// there is no doorbell. SRQ-3 is ibv_destroy_srq's promise when it returns 0.
unsafe impl work::SharedRecvQueue for SharedRecvQueue {
    unsafe fn post_recv(&self, wr: &RecvWr<'_>) -> Result<()> {
        Ok(post::in_lists::<1, _, _>(
            slice::from_ref(wr),
            |wr| wr::recv(wr, self.max_sge),
            // SAFETY: the queue is alive; the work request and what it points to are alive for the
            // call, which copies them. The bytes are the caller's duty (POST-2).
            |list, bad| unsafe { ibv_post_srq_recv(self.as_raw(), list, bad) },
            |ret, _| Err(post::refusal("ibv_post_srq_recv", ret, self.capacity)),
        )?)
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn max_sge(&self) -> u32 {
        self.max_sge
    }

    fn destroy(self) -> Result<(), (Self, io::Error)> {
        self.inner.destroy().map_err(|error| (self, error))
    }
}

impl SharedRecvQueue {
    /// The queue itself, for code that makes its own queue pairs. It is there as long as `self` is
    /// kept; it must not be destroyed.
    #[must_use]
    pub fn as_raw(&self) -> *mut ibv_srq {
        self.inner.as_raw()
    }

    /// What a queue pair holds on to.
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(super) fn as_raw(&self) -> *mut ibv_srq {
        self.raw.as_ptr()
    }

    pub(super) fn context(&self) -> &Context {
        self.pd.context()
    }

    /// `ibv_destroy_srq`, once. Of the one [`SharedRecvQueue`], or of `Drop`: never of two at a time.
    fn destroy(&self) -> io::Result<()> {
        // Ordering: Relaxed, here and below; the count of the `Arc` stands between the two callers.
        if self.destroyed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: we created it, and it has not been destroyed yet. It is refused as long as a queue
        // pair takes from it.
        match unsafe { ibv_destroy_srq(self.raw.as_ptr()) } {
            0 => {
                self.destroyed.store(true, Ordering::Relaxed);
                Ok(())
            }
            ret => Err(code(ret)),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.destroy().is_err() {
            note_leak();
            // It still uses what it stands on.
            mem::forget(Arc::clone(&self.pd));
        }
    }
}
