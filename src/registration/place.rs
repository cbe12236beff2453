//! Where a registration lies, with room for its first region: most have one. It is freed by its last region,
//! wherever that lies: which one that is, the roll says.

use std::alloc::{Layout, dealloc};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::roll::Member;
use super::{Region, Registration};
use crate::gate::Locked;

/// The place of the first region, at the start of the registration's lines. Vacant if its regions lie elsewhere, or
/// when that one is gone.
pub(super) struct Room(
    #[allow(dead_code, reason = "found by address")] UnsafeCell<MaybeUninit<Region>>,
);

// SAFETY: REGION-1: what is in there is Sync; whether there is anything is known to who has it.
unsafe impl Sync for Room {}

impl Room {
    pub(super) fn new() -> Self {
        Room(UnsafeCell::new(MaybeUninit::uninit()))
    }
}

/// The address of a registration. It lives until its last region is [struck off](Self::strike); as long as there is
/// none yet it is that of who has made it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegistrationRef(NonNull<Registration>);

const PLACE: Layout = Region::lines(size_of::<Registration>());

impl RegistrationRef {
    pub(super) fn new(registration: Registration) -> Self {
        let place = Region::allocate(PLACE).cast();
        // SAFETY: REGN-2: a place of its own, aligned and large enough.
        unsafe { place.write(registration) };
        RegistrationRef(place)
    }

    /// # Safety
    /// - **REGN-2**: the registration lives for `'a`: the caller has made it, or has a region of it, that long.
    #[inline]
    pub(crate) unsafe fn get<'a>(self) -> &'a Registration {
        // SAFETY: REGN-2.
        unsafe { self.0.as_ref() }
    }

    /// The place for the first region. Not looked at.
    pub(crate) fn room(self) -> NonNull<Region> {
        // The room is as far behind the registration as a region's front is long.
        let room = self.0.as_ptr().wrapping_byte_add(Region::FRONT);
        NonNull::new(room.cast()).expect("no allocation ends at null")
    }

    /// The region is no more, and no operation on it is in flight. Gives the registration if it was the last
    /// one; if not, others may have ended it when this returns.
    ///
    /// # Safety
    /// - **REGN-2**: the member is a region of it, not used by this caller any more, nor the registration.
    pub(crate) unsafe fn strike(self, member: NonNull<Member>) -> Option<Registration> {
        // SAFETY: REGN-2, until the region is struck off.
        let roll = unsafe { self.get() }.regions.roll_place();
        let is_last = roll.is_none_or(|roll| {
            // SAFETY: LOCKED-2 by ROLL-3: the roll stays until the registration is dropped, by the last region.
            // ROLL-1: the region is on it.
            unsafe { Locked::with_at(roll, |roll| roll.strike(member.as_ref())) }
        });
        if !is_last {
            return None;
        }
        // SAFETY: REGN-2: there is no other region, so nobody uses it; it is moved out of its place, which came
        // from `new`.
        unsafe {
            let registration = self.0.read();
            dealloc(self.0.as_ptr().cast(), PLACE);
            Some(registration)
        }
    }
}
