//! The state of a registration as an epoch-protected snapshot, and its keys as one atomic beside
//! it. Neither touches the word, so neither waits for what the NIC does (R7); the provider's own
//! structure is never read after the registration (R8).

mod state;

use std::fmt;
use std::mem::ManuallyDrop;

use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned};

use super::{Access, Memory};
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
// The keys come first: they are in the second line of the region that lies in the registration.
#[repr(C)]
pub struct InnerCell {
    /// `lkey` in the upper half, `rkey` in the lower: both are of one registration.
    keys: AtomicU64,
    /// `lkey` in the upper half, the rights' bits in the lower: what an operation of this side needs.
    local: AtomicU64,
    /// Null as long as the first registration is in force: then the two above say it all.
    state: Atomic<State>,
    /// What is registered: the same bytes by all registrations. Taken out or dropped by the registration,
    /// or never.
    pub(super) memory: ManuallyDrop<Memory>,
}

fn halves(of: u64) -> (u32, u32) {
    ((of >> 32) as u32, of as u32)
}

/// What [`InnerCell::local`] is for that registration.
fn local_of((lkey, _): (u32, u32), access: Access) -> u64 {
    u64::from(lkey) << 32 | u64::from(access.bits())
}

fn keys_of((lkey, rkey): (u32, u32)) -> u64 {
    u64::from(lkey) << 32 | u64::from(rkey)
}

impl InnerCell {
    pub(super) fn new(memory: Memory, keys: (u32, u32), access: Access) -> Self {
        InnerCell {
            keys: AtomicU64::new(keys_of(keys)),
            local: AtomicU64::new(local_of(keys, access)),
            state: Atomic::null(),
            memory: ManuallyDrop::new(memory),
        }
    }

    fn inner(&self, (lkey, rkey): (u32, u32), access: Access) -> LocalMrInner {
        LocalMrInner {
            addr: self.memory.addr().as_ptr() as usize,
            length: self.memory.length(),
            lkey,
            rkey,
            access,
        }
    }

    /// Puts another registration of the same bytes in its place; by one thread at a time.
    pub(super) fn publish(&self, keys: (u32, u32), access: Access) {
        self.publish_under(&epoch::pin(), keys, access);
    }

    fn publish_under(&self, guard: &Guard, keys: (u32, u32), access: Access) {
        let state = Owned::new(State::new(self.inner(keys, access)));
        // Ordering: Release pairs with the Acquire of `load`; the state before is known to who publishes,
        // which one thread at a time does.
        let old = self.state.swap(state, Ordering::Release, guard);
        // Ordering: Release pairs with the Acquire of `first`: who sees these finds the state above.
        // Operations see them by the gate's word, see `retire` there.
        self.local.store(local_of(keys, access), Ordering::Release);
        // Ordering: Release, as above.
        self.keys.store(keys_of(keys), Ordering::Release);
        if !old.is_null() {
            // SAFETY: INNER-1: nobody finds it any more, and who has found it is pinned.
            unsafe { guard.defer_unchecked(move || State::free(old)) };
        }
    }

    /// The state, copied out under an epoch's protection: never a mixture of two registrations,
    /// never waits. Three loads until the keys are rotated for the first time; then an epoch pin. No
    /// allocation.
    #[must_use]
    pub fn load(&self) -> LocalMrInner {
        if let Some(first) = self.first() {
            return first;
        }
        let guard = epoch::pin();
        // Ordering: Acquire pairs with the publication of the state.
        let state = self.state.load(Ordering::Acquire, &guard);
        // SAFETY: INNER-1: not null, for it was not before, until `drop`, which has the cell for itself;
        // the guard keeps a state that was replaced meanwhile alive.
        unsafe { state.deref() }.copy()
    }

    /// What is in force, if that is the first registration.
    fn first(&self) -> Option<LocalMrInner> {
        // Ordering: Acquire pairs with the stores of `publish`: if one of these is of another
        // registration, its state is there for the look below.
        let keys = self.keys.load(Ordering::Acquire);
        // Ordering: Acquire, as above.
        let local = self.local.load(Ordering::Acquire);
        // SAFETY: INNER-1: it is looked at, and not followed.
        let guard = unsafe { epoch::unprotected() };
        // Ordering: Relaxed. Only whether there is one; after the two above, by their Acquire.
        let state = self.state.load(Ordering::Relaxed, guard);
        let access = Access::from_bits_retain(local as u32);
        state.is_null().then(|| self.inner(halves(keys), access))
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
        halves(self.keys.load(Ordering::Relaxed))
    }

    /// The local key and the rights that it comes with. One load.
    #[inline]
    pub(crate) fn local(&self) -> (u32, Access) {
        // Ordering: Relaxed, as in `keys`. For an operation that has entered the gate, its RMW there
        // comes before: see `retire` there.
        let (lkey, access) = halves(self.local.load(Ordering::Relaxed));
        (lkey, Access::from_bits_retain(access))
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
        // SAFETY: INNER-2: the cell is dropped by its only owner, and its pointer was made by `publish`.
        unsafe {
            // Ordering: Relaxed. Nobody shares the cell any more.
            let state = self.state.load(Ordering::Relaxed, epoch::unprotected());
            if !state.is_null() {
                State::free(state);
            }
        }
    }
}

impl fmt::Debug for InnerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InnerCell").field(&self.load()).finish()
    }
}
