//! Writing a region: the counterparts of the reading methods.

use std::time::Instant;

use super::super::forms::{self, GuardFuture};
use super::super::guard::{MrCursorMut, MrMutPtr, MrWriteGuard, WriteInnerGuard};
use super::LocalMrReadAccess;
use crate::error::Result;
use crate::gate::Holder;

/// Write access to a memory region of this side.
///
/// In the five forms of [`LocalMrReadAccess`]. "Held" means here: any operation in flight has the
/// bytes, or any thread does through a slice of the same region.
///
/// Implemented for [`LocalMr`](crate::LocalMr), [`PooledMr`](crate::PooledMr) and
/// [`LocalMrSliceMut`](crate::LocalMrSliceMut): not for what can be shared.
///
/// # Safety
/// - **ACCESS-3**: `&mut` of the implementing type is the only way to write the region's bytes from
///   the CPU while it lives.
pub unsafe trait LocalMrWriteAccess: LocalMrReadAccess {
    /// Whether [`try_as_mut_slice`](Self::try_as_mut_slice) would find the region not held, at this
    /// moment. One load.
    #[inline]
    fn is_writeable(&self) -> bool {
        self.gate().is_open_to(Holder::CpuWrite)
    }

    /// An exclusive hold of the region beside a copy of its state. Blocks the thread.
    fn write_inner(&self) -> WriteInnerGuard<'_> {
        forms::wait(self)
    }

    /// The address of the first byte, once the region is not held. Blocks the thread.
    #[inline(always)] // as `forms::attempt`
    fn as_mut_ptr(&mut self) -> MrMutPtr<'_> {
        forms::wait(self)
    }

    /// The address of the first byte; `None` if the region is held. Never waits.
    #[inline(always)] // as `forms::attempt`
    fn try_as_mut_ptr(&mut self) -> Option<MrMutPtr<'_>> {
        forms::attempt(self)
    }

    /// As [`as_mut_ptr`](Self::as_mut_ptr), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`](crate::Error::Deadline), with who held the region then.
    fn as_mut_ptr_until(&mut self, deadline: Instant) -> Result<MrMutPtr<'_>> {
        forms::until(self, deadline)
    }

    /// As [`as_mut_ptr`](Self::as_mut_ptr), calling `progress` over and over while the region is
    /// held.
    fn as_mut_ptr_with(&mut self, progress: impl FnMut()) -> MrMutPtr<'_>
    where
        Self: Sized,
    {
        forms::with(self, progress)
    }

    /// As [`as_mut_ptr`](Self::as_mut_ptr), as a future.
    fn as_mut_ptr_async(&mut self) -> GuardFuture<'_, MrMutPtr<'_>> {
        forms::future(self)
    }

    /// The address of the first byte, without a hold. Having it is harmless; for as long as it is
    /// written through:
    /// - **PTRMUT-1**: no operation in flight and no peer reads or writes the bytes that are
    ///   written;
    /// - **PTRMUT-2**: no thread reads or writes them;
    /// - **PTRMUT-3**: the region is not dropped or closed.
    #[inline]
    fn as_mut_ptr_unchecked(&mut self) -> *mut u8 {
        self.part().addr.as_ptr()
    }

    /// The bytes, once the region is not held. Blocks the thread: spins, then parks.
    #[inline(always)] // as `forms::attempt`
    fn as_mut_slice(&mut self) -> MrWriteGuard<'_> {
        forms::wait(self)
    }

    /// The bytes; `None` if the region is held. Never waits.
    #[inline(always)] // as `forms::attempt`
    fn try_as_mut_slice(&mut self) -> Option<MrWriteGuard<'_>> {
        forms::attempt(self)
    }

    /// As [`as_mut_slice`](Self::as_mut_slice), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`](crate::Error::Deadline), with who held the region then.
    fn as_mut_slice_until(&mut self, deadline: Instant) -> Result<MrWriteGuard<'_>> {
        forms::until(self, deadline)
    }

    /// As [`as_mut_slice`](Self::as_mut_slice), calling `progress` over and over while the region
    /// is held. Never parks.
    fn as_mut_slice_with(&mut self, progress: impl FnMut()) -> MrWriteGuard<'_>
    where
        Self: Sized,
    {
        forms::with(self, progress)
    }

    /// As [`as_mut_slice`](Self::as_mut_slice), as a future.
    fn as_mut_slice_async(&mut self) -> GuardFuture<'_, MrWriteGuard<'_>> {
        forms::future(self)
    }

    /// The bytes as a stream with a position, once the region is not held. Blocks the thread. The
    /// other forms: [`into_cursor`](MrWriteGuard::into_cursor) of their guards.
    #[inline]
    fn as_mut_slice_cursor(&mut self) -> MrCursorMut<'_> {
        forms::wait(self)
    }

    /// As [`as_mut_slice_cursor`](Self::as_mut_slice_cursor); `None` if the region is held. Never
    /// waits.
    #[inline]
    fn try_as_mut_slice_cursor(&mut self) -> Option<MrCursorMut<'_>> {
        forms::attempt(self)
    }

    /// The bytes, without a hold. No RMW, no load.
    ///
    /// # Safety
    /// For as long as the slice is used:
    /// - **SLICEMUT-1**: no operation in flight and no peer reads or writes the bytes (also one
    ///   whose future was dropped or forgotten, rule R9). The completion of every operation that
    ///   used them was polled, and what followed the poll happens before this call.
    /// - **SLICEMUT-2**: no thread has them as a slice, shared or not, or uses them through a
    ///   pointer.
    /// - **SLICEMUT-3**: the region is not dropped or closed; the borrow sees to that.
    #[inline]
    unsafe fn as_mut_slice_unchecked(&mut self) -> &mut [u8] {
        let part = self.part();
        // SAFETY: SLICEMUT-1, SLICEMUT-2, SLICEMUT-3, as required of the caller; ACCESS-1, ACCESS-2.
        unsafe { std::slice::from_raw_parts_mut(part.addr.as_ptr(), part.length) }
    }
}
