//! The state of a registration as an epoch-protected snapshot, and its keys as one atomic beside
//! it. Neither touches the word, so neither waits for what the NIC does (R7); the provider's own
//! structure is never read after the registration (R8).

use std::fmt;
use std::io;
use std::ptr::NonNull;

use crossbeam_epoch::{self as epoch, Atomic, Owned};

use super::{Access, Deregister, Registered};
use crate::sync::{AtomicU64, Ordering};

/// What a region is registered as: one consistent copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalMrInner {
    addr: usize,
    length: usize,
    lkey: u32,
    rkey: u32,
    access: Access,
}

impl LocalMrInner {
    /// Address of the first registered byte.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// How many bytes are registered; a slice or a part may be shorter.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The local key.
    #[must_use]
    pub fn lkey(&self) -> u32 {
        self.lkey
    }

    /// The remote key.
    #[must_use]
    pub fn rkey(&self) -> u32 {
        self.rkey
    }

    /// The rights.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }
}

/// One registration in force, as it is published.
struct Generation {
    inner: LocalMrInner,
    handle: Box<dyn Deregister>,
}

/// The published state: what `get_inner` gives in place of the seed's lock.
pub struct InnerCell {
    /// `lkey` in the upper half, `rkey` in the lower: both are of one registration.
    keys: AtomicU64,
    /// The rights' bits, to check an operation without pinning an epoch.
    rights: AtomicU64,
    generation: Atomic<Generation>,
    ended: bool,
}

impl InnerCell {
    pub(super) fn new(
        addr: NonNull<u8>,
        length: usize,
        access: Access,
        registered: Registered,
    ) -> Self {
        let inner = LocalMrInner {
            addr: addr.as_ptr() as usize,
            length,
            lkey: registered.lkey,
            rkey: registered.rkey,
            access,
        };
        let keys = u64::from(inner.lkey) << 32 | u64::from(inner.rkey);
        InnerCell {
            keys: AtomicU64::new(keys),
            rights: AtomicU64::new(access.bits().into()),
            generation: Atomic::new(Generation {
                inner,
                handle: registered.handle,
            }),
            ended: false,
        }
    }

    /// The state, copied out under an epoch's protection: never a mixture of two registrations,
    /// never waits. One epoch pin, no allocation.
    #[must_use]
    pub fn load(&self) -> LocalMrInner {
        let guard = epoch::pin();
        // Ordering: Acquire pairs with the publication of the generation, which is the hand-over
        // of the region itself for the first one.
        let generation = self
            .generation
            .load(std::sync::atomic::Ordering::Acquire, &guard);
        // SAFETY: INNER-1: never null until `drop`, which has the cell for itself; the guard keeps
        // a generation that was replaced meanwhile alive.
        unsafe { generation.deref() }.inner
    }

    /// Both keys of one registration, `(lkey, rkey)`. One load.
    #[must_use]
    #[inline]
    pub fn keys(&self) -> (u32, u32) {
        // Ordering: Relaxed. One location, so never a mixture; the keys are numbers and lead to no
        // other memory of this process.
        let keys = self.keys.load(Ordering::Relaxed);
        ((keys >> 32) as u32, keys as u32)
    }

    /// The rights. One load.
    #[must_use]
    #[inline]
    pub fn access(&self) -> Access {
        // Ordering: Relaxed, as in `keys`.
        Access::from_bits_retain(self.rights.load(Ordering::Relaxed) as u32)
    }

    /// Whether the registration has been ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Ends the registration; on `Err` it is in force as before. Once ended, nothing more is done.
    pub(super) fn deregister(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        // SAFETY: INNER-2: `&mut self`: no reader has the generation, and none is pinned on it.
        let generation = unsafe {
            let guard = epoch::unprotected();
            // Ordering: Relaxed. Exclusive access, see above.
            let mut shared = self
                .generation
                .load(std::sync::atomic::Ordering::Relaxed, guard);
            shared.deref_mut()
        };
        generation.handle.deregister()?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for InnerCell {
    fn drop(&mut self) {
        // SAFETY: INNER-2: the cell is dropped by its only owner, and the pointer was made by `new`.
        let generation: Owned<Generation> = unsafe {
            // Ordering: none needed: `into_owned` takes the value of a cell that nobody shares.
            std::mem::replace(&mut self.generation, Atomic::null()).into_owned()
        };
        drop(generation);
    }
}

impl fmt::Debug for InnerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InnerCell").field(&self.load()).finish()
    }
}
