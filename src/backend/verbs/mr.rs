//! Registrations: what ends them, and those that other code made.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_dereg_mr, ibv_mr};

use super::pd::Inner;
use super::{code, invalid, note_leak};
use crate::error::Result;
use crate::registration::{Adoption, Deregister, Registered};

/// An MR that other code registered, to be [adopted](crate::MrOptions::adopt), and deregistered
/// (`ibv_dereg_mr`) when the region ends. Its address, length and keys are read here, and never again
/// (rule R8).
///
/// # Errors
/// [`Error::Provider`](crate::Error::Provider) if `mr` is null.
///
/// # Safety
/// - **VMR-1**: `mr` is null, or points to a live MR that came from this process's libibverbs
///   (`ibv_reg_mr`).
/// - **VMR-2**: once it is adopted nobody else deregisters it, and its protection domain and device
///   context stay until that is done here: the keepalive that it is adopted with keeps them.
pub unsafe fn owned_mr(mr: *mut ibv_mr) -> Result<Adoption> {
    // SAFETY: VMR-1, as required of the caller.
    let (mr, seen) = unsafe { look_at("owned_mr", mr) }?;
    Ok(Adoption {
        addr: seen.addr.cast(),
        length: seen.length,
        registered: Registered {
            lkey: seen.lkey,
            rkey: seen.rkey,
            handle: Box::new(Registration::new(mr, None)),
        },
    })
}

/// As [`owned_mr`], for one whose owner deregisters it, after the region has ended: the keepalive that
/// it is adopted with does, as it is dropped, or who gets that back.
///
/// # Errors
/// As [`owned_mr`].
///
/// # Safety
/// - **VMR-1**; **LENT-1**, as for [`Registered::lent`].
pub unsafe fn lent_mr(mr: *mut ibv_mr) -> Result<Adoption> {
    // SAFETY: VMR-1, as required of the caller.
    let (_, seen) = unsafe { look_at("lent_mr", mr) }?;
    Ok(Adoption {
        addr: seen.addr.cast(),
        length: seen.length,
        // SAFETY: LENT-1, as required of the caller.
        registered: unsafe { Registered::lent(seen.lkey, seen.rkey) },
    })
}

/// # Safety
/// - **VMR-1**.
unsafe fn look_at<'a>(
    call: &'static str,
    mr: *mut ibv_mr,
) -> Result<(NonNull<ibv_mr>, &'a ibv_mr)> {
    let mr = NonNull::new(mr).ok_or_else(|| invalid(call, "the pointer is null"))?;
    // SAFETY: VMR-1: it is alive.
    Ok((mr, unsafe { mr.as_ref() }))
}

/// A registration in force, or one that has ended (`mr` is `None`).
pub(super) struct Registration {
    mr: Option<NonNull<ibv_mr>>,
    /// Taken out once it has ended: what is leaked keeps the protection domain. `None`: somebody else
    /// keeps it.
    pd: ManuallyDrop<Option<Arc<Inner>>>,
}

impl Registration {
    /// `mr` is in force.
    pub(super) fn new(mr: NonNull<ibv_mr>, pd: Option<Arc<Inner>>) -> Self {
        Registration {
            mr: Some(mr),
            pd: ManuallyDrop::new(pd),
        }
    }
}

// SAFETY: the verbs may deregister from any thread; through `&self` nothing is reached.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

// SAFETY: DEREG-1 is ibv_dereg_mr's promise when it returns 0. DEREG-2: the pointer is kept on any
// other value. DEREG-3: `Drop` only counts the leak.
unsafe impl Deregister for Registration {
    /// `ibv_dereg_mr`; may block in the kernel. A second call after success does nothing.
    fn deregister(&mut self) -> io::Result<()> {
        let Some(mr) = self.mr else {
            return Ok(());
        };
        // SAFETY: registered and not deregistered yet; its protection domain is alive.
        let ret = unsafe { ibv_dereg_mr(mr.as_ptr()) };
        if ret != 0 {
            return Err(code(ret));
        }
        self.mr = None;
        // SAFETY: `mr` was `Some` until now, so this runs once; `pd` is not used after it.
        unsafe { ManuallyDrop::drop(&mut self.pd) };
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.mr.is_some() {
            note_leak();
        }
    }
}
