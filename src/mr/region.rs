//! A region in memory: its gate, its bytes, its registration. Found by pointer from the handle, from
//! guards and slices (which borrow the handle) and from holds (which don't).

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;

use super::pool::{self, Place};
use crate::gate::{Gate, Holder, Kind};
use crate::registration::{Member, Registration};
use crate::trace;

/// In two lines: the gate's word is at the end of the first one, which goes from core to core with each guard
/// and operation; what those look at but never change is in the second one, which all cores keep.
#[repr(C)]
pub(crate) struct Region {
    /// Where it comes home to, if it is a slot of a pool.
    pub(crate) place: Option<Place>,
    pub(crate) member: Member,
    pub(crate) addr: NonNull<u8>,
    pub(crate) length: usize,
    pub(crate) registration: Arc<Registration>,
    /// Peers write the bytes at any time (rule R3, SHARED-1): holds keep them registered and exclude
    /// nobody.
    pub(crate) shared: bool,
}

// The border between the lines is in the gate.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(RegionRef::GATE + Gate::UNWRITTEN == LINE);

/// How many bytes go from core to core at a time.
const LINE: usize = 64;

/// What a region lies in: aligned so that a hold has room in the low bits of its address, and that it has its
/// lines for itself. It leaves the last eight bytes of them to allocators that keep a word in front of each
/// block: their blocks follow each other then, where whole lines would leave gaps longer than themselves.
const PLACE: Layout = {
    let lines = 2 * LINE;
    let size = if size_of::<Region>() > lines - 8 {
        size_of::<Region>()
    } else {
        lines - 8
    };
    match Layout::from_size_align(size, lines) {
        Ok(place) => place,
        Err(_) => panic!("128 is a power of two"),
    }
};

impl Region {
    /// Whether such a hold counts as [`Holder::NicRead`] in the gate. Asked before the gate is, so that
    /// on the way of an operation the kind stays a constant.
    #[inline]
    pub(super) fn counts_as_read(&self, holder: Holder) -> bool {
        holder == Holder::NicWrite && self.shared
    }
}

/// The address of a region. It lives until its handle is gone and its last hold is released:
/// whoever sees both, as told by the gate, frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionRef(NonNull<Region>);

// SAFETY: REGION-1: a pointer to a region whose parts are Send and Sync (the gate's atomics, the
// registration) or plain addresses of bytes that the gate guards.
unsafe impl Send for Region {}
// SAFETY: REGION-1: as above.
unsafe impl Sync for Region {}
// SAFETY: REGION-1: as above.
unsafe impl Send for RegionRef {}
// SAFETY: REGION-1: as above.
unsafe impl Sync for RegionRef {}

impl RegionRef {
    /// How low the address's bits are zero: a hold keeps its kind there.
    pub(crate) const ALIGN: usize = PLACE.align();
    /// How far its gate is behind it.
    pub(crate) const GATE: usize = offset_of!(Region, member) + offset_of!(Member, gate);

    pub(crate) fn new(region: Region) -> Self {
        // SAFETY: REGION-8: it is of some size.
        let Some(place) = NonNull::new(unsafe { alloc(PLACE) }) else {
            handle_alloc_error(PLACE)
        };
        // SAFETY: REGION-8: a place of its own.
        unsafe { Self::settle(place.cast(), region) }
    }

    /// Puts a region in its place.
    ///
    /// # Safety
    /// - **REGION-8**: the place is valid for a region and aligned as [`ALIGN`](Self::ALIGN) says, there is
    ///   none in it, and it stays until
    ///   [`into_region`](Self::into_region) or [`leave`](Self::leave).
    pub(super) unsafe fn settle(place: NonNull<Region>, region: Region) -> Self {
        // SAFETY: REGION-8.
        unsafe { place.write(region) };
        // SAFETY: written just now.
        let region = unsafe { place.as_ref() };
        trace::region(
            place.addr().get() + Self::GATE,
            region.addr.as_ptr() as usize,
            region.length,
        );
        // SAFETY: ROLL-1: it stays there until `strike`.
        unsafe { region.registration.enlist(NonNull::from(&region.member)) };
        RegionRef(place)
    }

    /// The region at that place, to be used while it lives.
    #[inline]
    pub(super) fn at(place: NonNull<Region>) -> Self {
        RegionRef(place)
    }

    pub(crate) fn to_bits(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// # Safety
    /// - **REGION-2**: `bits` came from [`to_bits`](Self::to_bits) of a region that lives.
    pub(crate) unsafe fn from_bits(bits: usize) -> Self {
        let pointer = std::ptr::with_exposed_provenance_mut(bits);
        // SAFETY: REGION-2: it was the address of a region, which is not null.
        RegionRef(unsafe { NonNull::new_unchecked(pointer) })
    }

    /// # Safety
    /// - **REGION-3**: the region lives for `'a`: its handle is borrowed that long, or the caller
    ///   owns a hold that long; and nobody changes it through [`bytes_mut`](Self::bytes_mut).
    #[inline]
    pub(crate) unsafe fn get<'a>(self) -> &'a Region {
        // SAFETY: REGION-3.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    /// - **REGION-3**.
    #[inline]
    pub(crate) unsafe fn gate<'a>(self) -> &'a Gate {
        // SAFETY: REGION-3, as required of the caller.
        &unsafe { self.get() }.member.gate
    }

    /// Where its bytes start, and how many there are. Not all of the region: its gate is on the roll of
    /// the registration, and who rotates another part's keys may be looking at it.
    ///
    /// # Safety
    /// - **REGION-4**: the caller borrows the handle mutably for `'a` and has seen that the gate is
    ///   free: nobody else has a way to what is changed.
    pub(crate) unsafe fn bytes_mut<'a>(self) -> (&'a mut NonNull<u8>, &'a mut usize) {
        let region = self.0.as_ptr();
        // SAFETY: REGION-4; two fields, neither of them the member.
        unsafe { (&mut (*region).addr, &mut (*region).length) }
    }

    /// # Safety
    /// - **REGION-4**.
    pub(crate) unsafe fn registration_mut<'a>(self) -> &'a mut Arc<Registration> {
        // SAFETY: REGION-4; a field of its own.
        unsafe { &mut (*self.0.as_ptr()).registration }
    }

    /// Takes the region out of its place, one of its own.
    ///
    /// # Safety
    /// - **REGION-5**: the handle is gone, or given up by this call, and no hold is out; this is
    ///   done once; and the region is none of a pool.
    pub(crate) unsafe fn into_region(self) -> Region {
        // SAFETY: REGION-5, as required of the caller.
        let region = unsafe { self.leave() };
        // SAFETY: REGION-5: it came from `new`, and nobody uses it any more.
        unsafe { dealloc(self.0.as_ptr().cast(), PLACE) };
        region
    }

    /// Takes the region out of its place, which stays: a pool's.
    ///
    /// # Safety
    /// - **REGION-5**, but for the pool.
    pub(super) unsafe fn leave(self) -> Region {
        // SAFETY: REGION-5, as required of the caller.
        unsafe { self.strike() };
        // SAFETY: REGION-5: it is read once, and not used there any more.
        unsafe { self.0.read() }
    }

    /// # Safety
    /// - **REGION-5**.
    unsafe fn strike(self) {
        // SAFETY: REGION-3 by REGION-5.
        let Region {
            member,
            registration,
            ..
        } = unsafe { self.get() };
        registration.strike(member);
    }

    /// Gives back a hold that does not borrow the handle, and frees if it was the last one, or sends it
    /// home to its pool.
    ///
    /// # Safety
    /// - **REGION-6**: the caller owns a hold of that kind; it is given back by this call.
    #[inline]
    pub(crate) unsafe fn release(self, kind: Kind) {
        // SAFETY: REGION-3 by REGION-6, until the gate's RMW, after which the pointer is not used.
        let gate: *const Gate = unsafe { self.gate() };
        // SAFETY: GATE-1 by REGION-6.
        let last = unsafe { Gate::release(gate, kind) };
        if last {
            // SAFETY: REGION-5: the gate says so, to one caller only.
            unsafe { self.free() };
        }
    }

    /// # Safety
    /// - **REGION-5**.
    #[cold]
    unsafe fn free(self) {
        // SAFETY: REGION-3 by REGION-5.
        if unsafe { self.get() }.place.is_some() {
            // SAFETY: POOL-1 by REGION-5: who frees has it alone.
            return unsafe { pool::reuse(self) };
        }
        // SAFETY: REGION-5, as required of the caller.
        drop(unsafe { self.into_region() });
    }

    /// The handle is gone: frees now or leaves it to the last hold.
    ///
    /// # Safety
    /// - **REGION-7**: called once, by the handle as it is dropped.
    pub(crate) unsafe fn orphan(self) {
        // SAFETY: REGION-3 by REGION-7, until the gate's RMW, after which the pointer is not used.
        let gate: *const Gate = unsafe { self.gate() };
        // SAFETY: GATE-2 by REGION-7: the handle is the only way in.
        let free = unsafe { Gate::orphan(gate) };
        if free {
            // SAFETY: REGION-5: the gate says so, to one caller only.
            unsafe { self.free() };
        }
    }
}
