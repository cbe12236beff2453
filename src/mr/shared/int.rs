//! Integers that are loaded and stored whole, in memory that others write meanwhile.

use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, Ordering,
};

use crate::raw::AtomicU64;

pub(super) mod sealed {
    /// What [`SharedInt`](super::SharedInt) is made of.
    pub trait Int: Copy {
        /// # Safety
        /// - **RAW-2**, for an integer of this size.
        unsafe fn load(at: *mut u8) -> Self;

        /// # Safety
        /// - **RAW-2**, for an integer of this size.
        unsafe fn store(self, at: *mut u8);
    }
}

/// What [`load`](super::SharedMrAccess::load) and [`store`](super::SharedMrAccess::store) move: the
/// integers of 1, 2, 4 and 8 bytes, in host byte order. Sealed.
pub trait SharedInt: sealed::Int {}

macro_rules! ints {
    ($($int:ty: $atomic:ty),*) => {$(
        impl sealed::Int for $int {
            #[inline]
            unsafe fn load(at: *mut u8) -> Self {
                // SAFETY: RAW-2.
                let place = unsafe { <$atomic>::from_ptr(at.cast()) };
                // Ordering: Acquire: pairs with the Release of `store` on another thread, and with a
                // device as AX-7 says.
                place.load(Ordering::Acquire)
            }

            #[inline]
            unsafe fn store(self, at: *mut u8) {
                // SAFETY: RAW-2.
                let place = unsafe { <$atomic>::from_ptr(at.cast()) };
                // Ordering: Release: pairs with the Acquire of `load`, and with a device as AX-7 says.
                place.store(self, Ordering::Release);
            }
        }

        impl SharedInt for $int {}
    )*};
}
ints!(
    u8: AtomicU8, u16: AtomicU16, u32: AtomicU32, u64: AtomicU64,
    i8: AtomicI8, i16: AtomicI16, i32: AtomicI32, i64: AtomicI64
);
