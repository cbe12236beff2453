//! What a backend is to this crate: something that registers a range of memory and gives it back.
//! Plain numbers and an owned handle; no type of any sys crate.

use std::io;
use std::ptr::NonNull;

use super::Access;

/// Registers memory with a NIC: a protection domain of some backend.
///
/// `soft::ProtectionDomain` and `verbs::ProtectionDomain` implement it. A region keeps an `Arc` of
/// the registrar for as long as it is registered, so a protection domain outlives its regions.
///
/// # Safety
/// - **REG-1**: on `Ok`, the keys cover exactly `length` bytes from `addr`, with exactly the rights
///   in `access`, and no other live registration of the same NIC has the same keys.
/// - **REG-2**: the NIC touches the bytes only for work requests or peers that name these keys.
/// - **REG-3**: on `Err`, nothing stays registered.
pub unsafe trait Registrar: Send + Sync + 'static {
    /// Registers `length` bytes from `addr` (`ibv_reg_mr`). May block in the kernel.
    ///
    /// # Errors
    /// What the provider says; nothing is registered then.
    ///
    /// # Safety
    /// - **REG-4**: the bytes stay allocated, and stay writable if `access` has a write right,
    ///   until [`Deregister::deregister`] of the handle has returned `Ok`.
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered>;

    /// How atomics of its NIC relate to other accesses of the same bytes.
    ///
    /// - **REG-5**: no more than is true. [`AtomicCap::None`], the default, promises nothing.
    fn atomic_cap(&self) -> AtomicCap {
        AtomicCap::None
    }
}

/// How atomics of a device relate to other accesses (`enum ibv_atomic_cap`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AtomicCap {
    /// No atomics.
    #[default]
    None,
    /// Atomic among the queue pairs of this device only, not towards the CPU.
    Hca,
    /// Atomic towards the CPU and other devices, too.
    Global,
}

/// A registration in force: its keys, and the handle that ends it.
pub struct Registered {
    /// Names the bytes in this side's scatter/gather elements.
    pub lkey: u32,
    /// Names the bytes for peers, within the rights that were granted.
    pub rkey: u32,
    /// Ends the registration. Dropped without [`Deregister::deregister`], the registration is
    /// leaked and stays in force.
    pub handle: Box<dyn Deregister>,
}

impl Registered {
    /// A registration that is ended by this closure; what [`Deregister::deregister`] says of the call
    /// holds for it. It is not called again once it has returned `Ok`.
    ///
    /// # Safety
    /// - **DEREG-1**, **DEREG-2** and **DEREG-3** for the closure, as for a [`Deregister`].
    pub unsafe fn ended_by(
        lkey: u32,
        rkey: u32,
        end: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let handle = Box::new(EndedBy(end));
        Registered { lkey, rkey, handle }
    }

    /// A registration that stays its owner's: nothing is done here to end it.
    ///
    /// # Safety
    /// - **LENT-1**: it stays in force until the keepalive that the region was
    ///   [adopted](crate::MrOptions::adopt) with is dropped or given back, and its owner ends it before
    ///   the bytes are freed or used for anything else.
    #[must_use]
    pub unsafe fn lent(lkey: u32, rkey: u32) -> Self {
        // SAFETY: DEREG-1 by LENT-1: nobody relies on the end of the registration before its owner
        // has seen to it. DEREG-2, DEREG-3: it never fails, and has nothing to free.
        unsafe { Self::ended_by(lkey, rkey, || Ok(())) }
    }
}

struct EndedBy<F>(F);

// SAFETY: DEREG-1, DEREG-2, DEREG-3: as was required of the caller of `ended_by`.
unsafe impl<F: FnMut() -> io::Result<()> + Send + Sync + 'static> Deregister for EndedBy<F> {
    fn deregister(&mut self) -> io::Result<()> {
        (self.0)()
    }
}

/// Memory that other code has registered: where it is, and by what keys. For
/// [`MrOptions::adopt`](crate::MrOptions::adopt). Plain numbers of any binding; `backend::verbs` makes
/// one of an `ibv_mr`.
pub struct Adoption {
    /// Address of the first byte.
    pub addr: *mut u8,
    /// How many bytes.
    pub length: usize,
    /// The keys, and what ends the registration.
    pub registered: Registered,
}

// SAFETY: ADOPT-1, ADOPT-3: an address of bytes that nobody else uses; it leads to nothing by itself.
unsafe impl Send for Adoption {}
// SAFETY: as above.
unsafe impl Sync for Adoption {}

/// The owned handle of one registration.
///
/// # Safety
/// - **DEREG-1**: once [`deregister`](Self::deregister) has returned `Ok`, the NIC touches the
///   bytes no more.
/// - **DEREG-2**: after `Err` the registration is in force as before, and the call may be repeated.
/// - **DEREG-3**: dropping the handle does not end the registration and frees nothing that the NIC
///   may use.
pub unsafe trait Deregister: Send + Sync + 'static {
    /// Ends the registration (`ibv_dereg_mr`). May block in the kernel.
    ///
    /// # Errors
    /// What the provider says (`EBUSY` with a bound window, for one); the registration stays.
    fn deregister(&mut self) -> io::Result<()>;
}
