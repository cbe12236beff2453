//! The state of a registration as an epoch-protected snapshot, and its keys as one atomic beside
//! it. Neither touches the word, so neither waits for what the NIC does (R7); the provider's own
//! structure is never read after the registration (R8).

mod state;

use std::fmt;

use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned};

use super::Access;
use crate::sync::{AtomicU64, Ordering};
use state::State;

/// What a region is registered as: one consistent copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalMrInner {
    pub(super) addr: usize,
    pub(super) length: usize,
    pub(super) lkey: u32,
    pub(super) rkey: u32,
    pub(super) access: Access,
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

/// The published state: what `get_inner` gives in place of the seed's lock.
pub struct InnerCell {
    /// `lkey` in the upper half, `rkey` in the lower: both are of one registration.
    keys: AtomicU64,
    /// `lkey` in the upper half, the rights' bits in the lower: what an operation of this side needs.
    local: AtomicU64,
    state: Atomic<State>,
}

/// What [`InnerCell::local`] is for that registration.
fn local_of(inner: &LocalMrInner) -> u64 {
    u64::from(inner.lkey) << 32 | u64::from(inner.access.bits())
}

fn keys_of(inner: &LocalMrInner) -> u64 {
    u64::from(inner.lkey) << 32 | u64::from(inner.rkey)
}

impl InnerCell {
    pub(super) fn new(inner: LocalMrInner) -> Self {
        InnerCell {
            keys: AtomicU64::new(keys_of(&inner)),
            local: AtomicU64::new(local_of(&inner)),
            state: Atomic::new(State::new(inner)),
        }
    }

    /// Puts another registration of the same bytes in its place; by one thread at a time.
    pub(super) fn publish(&self, keys: (u32, u32), access: Access) {
        self.publish_under(&epoch::pin(), keys, access);
    }

    fn publish_under(&self, guard: &Guard, keys: (u32, u32), access: Access) {
        let (lkey, rkey) = keys;
        let inner = LocalMrInner {
            lkey,
            rkey,
            access,
            ..self.load()
        };
        // Ordering: Relaxed. One location each; operations see them by the gate's word, see `retire`
        // there.
        self.local.store(local_of(&inner), Ordering::Relaxed);
        // Ordering: Relaxed, as in `keys`.
        self.keys.store(keys_of(&inner), Ordering::Relaxed);
        let state = Owned::new(State::new(inner));
        // Ordering: Release pairs with the Acquire of `load`, which has shown the old one above: one
        // thread at a time publishes.
        let old = self.state.swap(state, Ordering::Release, guard);
        // SAFETY: INNER-1: nobody finds it any more, and who has found it is pinned.
        unsafe { guard.defer_unchecked(move || State::free(old)) };
    }

    /// The state, copied out under an epoch's protection: never a mixture of two registrations,
    /// never waits. One epoch pin, no allocation.
    #[must_use]
    pub fn load(&self) -> LocalMrInner {
        let guard = epoch::pin();
        // Ordering: Acquire pairs with the publication of the state, which is the hand-over of the
        // region itself for the first one.
        let state = self.state.load(Ordering::Acquire, &guard);
        // SAFETY: INNER-1: never null until `drop`, which has the cell for itself; the guard keeps
        // a state that was replaced meanwhile alive.
        unsafe { state.deref() }.copy()
    }

    /// As [`publish`](Self::publish), but what was replaced is freed at once: for models that must fail.
    #[cfg(crossbeam_loom)]
    #[doc(hidden)]
    pub fn publish_unprotected(&self, keys: (u32, u32), access: Access) {
        // SAFETY: none: it breaks INNER-1.
        self.publish_under(unsafe { epoch::unprotected() }, keys, access);
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

    /// The local key and the rights that it comes with. One load.
    #[inline]
    pub(crate) fn local(&self) -> (u32, Access) {
        // Ordering: Relaxed, as in `keys`. For an operation that has entered the gate, its RMW there
        // comes before: see `retire` there.
        let local = self.local.load(Ordering::Relaxed);
        ((local >> 32) as u32, Access::from_bits_retain(local as u32))
    }

    /// The rights. One load.
    #[must_use]
    #[inline]
    pub fn access(&self) -> Access {
        self.local().1
    }
}

impl Drop for InnerCell {
    fn drop(&mut self) {
        // SAFETY: INNER-2: the cell is dropped by its only owner, and its pointer was made by `new` or
        // `publish`.
        unsafe {
            // Ordering: Relaxed. Nobody shares the cell any more.
            State::free(self.state.load(Ordering::Relaxed, epoch::unprotected()));
        }
    }
}

impl fmt::Debug for InnerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InnerCell").field(&self.load()).finish()
    }
}
