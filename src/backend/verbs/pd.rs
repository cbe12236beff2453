//! Protection domains, our own and adopted ones.

use std::any::Any;
use std::ffi::c_int;
use std::fmt;
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_alloc_pd, ibv_dealloc_pd, ibv_pd, ibv_reg_mr};

use super::mr::Registration;
use super::{Context, invalid, last_error, note_leak, process};
use crate::error::{Error, Result};
use crate::registration::{Access, AtomicCap, Registered, Registrar};

/// A protection domain (`struct ibv_pd`): what registers memory, and what queue pairs are made in.
///
/// Its registrations and queue pairs keep it alive. The last of them to go deallocates it
/// (`ibv_dealloc_pd`), unless it was adopted.
pub struct ProtectionDomain {
    inner: Arc<Inner>,
}

/// What registrations and queue pairs hold on to.
pub(super) struct Inner {
    raw: NonNull<ibv_pd>,
    adopted: bool,
    context: Context,
}

// SAFETY: the verbs may be called on a protection domain from any thread at the same time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: we allocated it; all that we made in it held an `Arc` of this and is gone.
        if !self.adopted && unsafe { ibv_dealloc_pd(self.raw.as_ptr()) } != 0 {
            note_leak();
            // Whatever is still in it needs the device.
            mem::forget(self.context.clone());
        }
    }
}

impl Inner {
    pub(super) fn as_raw(&self) -> *mut ibv_pd {
        self.raw.as_ptr()
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("device", &self.inner.context.name())
            .field("adopted", &self.inner.adopted)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Allocates a protection domain (`ibv_alloc_pd`).
    ///
    /// # Errors
    /// [`Error::Provider`].
    pub fn alloc_pd(&self) -> Result<Arc<ProtectionDomain>> {
        // SAFETY: the context is open.
        let raw = NonNull::new(unsafe { ibv_alloc_pd(self.as_raw()) })
            .ok_or_else(|| last_error("ibv_alloc_pd"))?;
        Ok(Arc::new(ProtectionDomain {
            inner: Arc::new(Inner {
                raw,
                adopted: false,
                context: self.clone(),
            }),
        }))
    }
}

impl ProtectionDomain {
    /// Takes on a protection domain that the caller allocated, so that regions can be registered in
    /// it and used on the caller's own queues.
    ///
    /// `ibv_dealloc_pd` and `ibv_close_device` are never called on it here. `keepalive` is dropped
    /// once this `ProtectionDomain`, all registrations, and all queues and contexts made through it
    /// are gone; a registration that is leaked leaks `keepalive` with it.
    ///
    /// # Errors
    /// [`Error::Provider`] if `pd` or its context is null, or the device can't be queried; then
    /// `keepalive` has been dropped.
    ///
    /// # Safety
    /// - **VPD-1**: `pd` is null, or points to a live protection domain that came from this
    ///   process's libibverbs (`ibv_alloc_pd`, or `rdma_cm_id::pd`).
    /// - **VPD-2**: until `keepalive` is dropped, nobody deallocates `pd`, nor closes the device
    ///   context that it belongs to.
    /// - **VPD-3**: nobody deregisters by other means (`ibv_dereg_mr`, `ibv_rereg_mr`) what is
    ///   registered through the returned value.
    pub unsafe fn adopt(
        pd: *mut ibv_pd,
        keepalive: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<ProtectionDomain>> {
        let null = || invalid("ProtectionDomain::adopt", "the pointer is null");
        let raw = NonNull::new(pd).ok_or_else(null)?;
        // SAFETY: VPD-1, it is alive; the field does not change.
        let context = NonNull::new(unsafe { (*raw.as_ptr()).context }).ok_or_else(null)?;
        // SAFETY: VPD-2, the context stays open until `keepalive` is dropped, which the context
        // does last of all.
        let context = unsafe { Context::wrap(context, Some(keepalive))? };
        Ok(Arc::new(ProtectionDomain {
            inner: Arc::new(Inner {
                raw,
                adopted: true,
                context,
            }),
        }))
    }

    /// The protection domain itself, for code that makes its own queue pairs. It is allocated as
    /// long as `self` is kept; it must not be deallocated.
    #[must_use]
    pub fn as_raw(&self) -> *mut ibv_pd {
        self.inner.as_raw()
    }

    /// The device that it is of.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.inner.context()
    }

    /// What a queue pair holds on to.
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

// SAFETY: REG-1 and REG-2 are what ibv_reg_mr does: a protection domain's keys are unique in its
// device, and unknown rights are refused below. REG-3: a null return leaves nothing registered. REG-5:
// the device's word.
unsafe impl Registrar for ProtectionDomain {
    /// `ibv_reg_mr`; pins the pages and may block in the kernel for it.
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        if length == 0 {
            return Err(Error::ZeroLength.into());
        }
        access.validate()?;
        let bits = match c_int::try_from(access.bits()) {
            Ok(bits) if Access::all().contains(access) => bits,
            _ => return Err(invalid("ibv_reg_mr", format!("unknown rights in {access:?}")).into()),
        };
        // SAFETY: the protection domain is alive; REG-4, the bytes are allocated and stay so. The
        // exported function does without the optional rights (relaxed ordering) for which the
        // header's macro takes another entry; there are none in `bits`.
        let mr = unsafe { ibv_reg_mr(self.as_raw(), addr.as_ptr().cast(), length, bits) };
        let mr = NonNull::new(mr).ok_or_else(|| process::refused(length))?;
        // SAFETY: just registered, and nobody else knows it yet. It is never read again (rule R8).
        let (lkey, rkey) = unsafe { ((*mr.as_ptr()).lkey, (*mr.as_ptr()).rkey) };
        Ok(Registered {
            lkey,
            rkey,
            handle: Box::new(Registration::new(mr, Some(Arc::clone(&self.inner)))),
        })
    }

    /// What the device said when it was opened (`ibv_query_device`).
    fn atomic_cap(&self) -> AtomicCap {
        self.inner.context.limits().atomic_cap
    }
}
