//! A region by its address: how it comes to its place and leaves it, and who finds it there: the handle, guards
//! and slices (which borrow the handle) and holds (which don't).

use std::alloc::{Layout, dealloc};
use std::ptr::NonNull;

use super::pool;
use crate::gate::{Gate, Holder, Kind};
use crate::registration::{Region, Registration, Traits};
use crate::trace;

/// What a region lies in that has lines of its own: aligned so that a hold has room in the low bits of their
/// address, and for the region alone. It leaves the last eight bytes of them to allocators that keep a word in front
/// of each block: their blocks follow each other then, where whole lines would leave gaps longer than themselves.
const PLACE: Layout = {
    let size = Region::FRONT + size_of::<Region>();
    let whole = Region::LINES - 8;
    Region::lines(if size > whole { size } else { whole })
};

impl Region {
    /// Whether such a hold counts as [`Holder::NicRead`] in the gate. Asked before the gate is, so that
    /// on the way of an operation the kind stays a constant.
    #[inline]
    pub(super) fn counts_as_read(&self, holder: Holder) -> bool {
        holder == Holder::NicWrite && self.traits().contains(Traits::SHARED)
    }
}

/// The address of a region's lines. It lives until its handle is gone and its last hold is released:
/// whoever sees both, as told by the gate, frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionRef(NonNull<Front>);

/// What lies in front of a region.
type Front = [u8; Region::FRONT];

// SAFETY: REGION-1: a pointer to a region, which is Send and Sync.
unsafe impl Send for RegionRef {}
// SAFETY: REGION-1: as above.
unsafe impl Sync for RegionRef {}

impl RegionRef {
    /// How low the bits of [`to_bits`](Self::to_bits) are zero: a hold keeps its kind there.
    pub(crate) const ALIGN: usize = Region::LINES;
    /// How far its gate is behind them.
    pub(crate) const GATE: usize = Region::FRONT + Region::GATE;

    /// A region in lines of its own.
    pub(super) fn new(region: Region) -> Self {
        let lines = Region::allocate(PLACE).cast::<Front>();
        // SAFETY: REGION-8: room for the front and the region, of its own.
        unsafe { Self::settle(lines.add(1).cast(), region) }
    }

    /// Puts a region in its place.
    ///
    /// # Safety
    /// - **REGION-8**: the place is valid for a region, as far behind an address aligned as
    ///   [`ALIGN`](Self::ALIGN) says as its front is long, there is none in it, and it stays until
    ///   [`leave`](Self::leave).
    pub(super) unsafe fn settle(place: NonNull<Region>, region: Region) -> Self {
        // SAFETY: REGION-8.
        unsafe { place.write(region) };
        // SAFETY: written just now.
        let region = unsafe { place.as_ref() };
        trace::region(
            std::ptr::from_ref(region.gate()) as usize,
            region.addr.as_ptr() as usize,
            region.length,
        );
        // SAFETY: ROLL-1: it stays there until `strike`.
        unsafe { region.registration().enlist(place.cast()) };
        Self::at(place)
    }

    /// The region at that place, to be used while it lives.
    #[inline]
    pub(super) fn at(place: NonNull<Region>) -> Self {
        // SAFETY: REGION-8: its front is before it.
        RegionRef(unsafe { place.cast::<Front>().sub(1) })
    }

    /// Where the region lies.
    #[inline]
    pub(super) fn place(self) -> NonNull<Region> {
        // SAFETY: REGION-8: it is behind its front.
        unsafe { self.0.add(1).cast() }
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
        unsafe { self.place().as_ref() }
    }

    /// # Safety
    /// - **REGION-3**.
    #[inline]
    pub(crate) unsafe fn gate<'a>(self) -> &'a Gate {
        // SAFETY: REGION-3, as required of the caller.
        unsafe { self.get() }.gate()
    }

    /// Where its bytes start, and how many there are. Not all of the region: its gate is on the roll of
    /// the registration, and who rotates another part's keys may be looking at it.
    ///
    /// # Safety
    /// - **REGION-4**: the caller borrows the handle mutably for `'a` and has seen that the gate is
    ///   free: nobody else has a way to what is changed.
    pub(crate) unsafe fn bytes_mut<'a>(self) -> (&'a mut NonNull<u8>, &'a mut usize) {
        let region = self.place().as_ptr();
        // SAFETY: REGION-4; two fields, neither of them the gate.
        unsafe { (&mut (*region).addr, &mut (*region).length) }
    }

    /// As [`leave`](Self::leave), of a region whose lines are freed if they are its own.
    ///
    /// # Safety
    /// - **REGION-5**: the handle is gone, or given up by this call, and no hold is out; this is
    ///   done once; and the region is none of a pool.
    pub(super) unsafe fn vacate(self) -> Option<Registration> {
        // SAFETY: REGION-3 by REGION-5.
        let is_at_home = unsafe { self.get() }.registered.room() == self.place();
        // SAFETY: REGION-5, as required of the caller.
        let registration = unsafe { self.leave() };
        if !is_at_home {
            // SAFETY: REGION-5: it came from `new`, and nobody uses it any more.
            unsafe { dealloc(self.0.as_ptr().cast(), PLACE) };
        }
        registration
    }

    /// The region is no more; gives its registration, if it was the last one. There is nothing to drop of it: a
    /// gate's end would be of concern to guards that were forgotten, but those hold it for ever. Its place is
    /// not touched any more: if that is in the registration, it may be gone.
    ///
    /// # Safety
    /// - **REGION-5**, but for the pool.
    pub(super) unsafe fn leave(self) -> Option<Registration> {
        // SAFETY: REGION-3 by REGION-5.
        let registered = unsafe { self.get() }.registered;
        // SAFETY: REGN-2 by REGION-5.
        unsafe { registered.strike(self.place().cast()) }
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
        if unsafe { self.get() }.traits().contains(Traits::POOLED) {
            // SAFETY: POOL-1 by REGION-5: who frees has it alone.
            return unsafe { pool::reuse(self) };
        }
        // SAFETY: REGION-5, as required of the caller.
        drop(unsafe { self.vacate() });
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
