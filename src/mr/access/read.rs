//! Reading a region: the seed's 14 methods, their cursor forms, and the forms beside them.

use std::time::{Duration, Instant};

use super::super::forms::{self, GuardFuture};
use super::super::guard::{MrConstPtr, MrCursor, MrReadGuard};
use super::super::token::MrToken;
use super::MrAccess;
use super::sealed::Sealed;
use crate::error::Result;
use crate::gate::Holder;
use crate::registration::{InnerCell, LocalMrInner};

/// Read access to a memory region of this side.
///
/// Every way to the bytes comes in five forms: `try_*` never waits, the plain form spins and then
/// parks the thread, `*_until` waits up to a deadline, `*_with` drives the caller's progress while
/// it waits, `*_async` is a future. "Held" means: an operation in flight lets the NIC write the
/// bytes, or a thread has them as `&mut [u8]`. Other readers and operations that only read don't
/// hold them.
///
/// A guard that is had at once costs one RMW, and one to release; a refusal one load; no allocation.
///
/// # Panics
/// The accessors panic with 2¹⁹ guards on one region at a time, most likely forgotten ones.
///
/// # Safety
/// Implementations, all of them in this crate, promise:
/// - **ACCESS-1**: the bytes of the region are allocated and initialised.
/// - **ACCESS-2**: they are no more than `isize::MAX`, and lie in one allocation.
pub unsafe trait LocalMrReadAccess: MrAccess + Sealed {
    /// The local key, for a scatter/gather element. One load; never waits (rule R7).
    #[inline]
    fn lkey(&self) -> u32 {
        self.inner().keys().0
    }

    /// The state of the registration, where the seed has its lock. Loading from it never waits.
    fn get_inner(&self) -> &InnerCell {
        self.inner()
    }

    /// The state of the registration as one consistent copy. Never waits; pins an epoch meanwhile.
    fn read_inner(&self) -> LocalMrInner {
        self.get_inner().load()
    }

    /// Whether [`try_as_slice`](Self::try_as_slice) would find the region not held, at this moment.
    /// One load.
    #[inline]
    fn is_readable(&self) -> bool {
        self.gate().is_open_to(Holder::CpuRead)
    }

    /// The address of the first byte, once the region is not held. Blocks the thread.
    #[inline(always)] // as `forms::attempt`
    fn as_ptr(&self) -> MrConstPtr<'_> {
        forms::wait(self)
    }

    /// The address of the first byte; `None` if the region is held. Never waits.
    #[inline(always)] // as `forms::attempt`
    fn try_as_ptr(&self) -> Option<MrConstPtr<'_>> {
        forms::attempt(self)
    }

    /// As [`as_ptr`](Self::as_ptr), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`](crate::Error::Deadline), with who held the region then.
    fn as_ptr_until(&self, deadline: Instant) -> Result<MrConstPtr<'_>> {
        forms::until(self, deadline)
    }

    /// As [`as_ptr`](Self::as_ptr), calling `progress` over and over while the region is held.
    fn as_ptr_with(&self, progress: impl FnMut()) -> MrConstPtr<'_>
    where
        Self: Sized,
    {
        forms::with(self, progress)
    }

    /// As [`as_ptr`](Self::as_ptr), as a future.
    fn as_ptr_async(&self) -> GuardFuture<'_, MrConstPtr<'_>> {
        forms::future(self)
    }

    /// The address of the first byte, without a hold. Having it is harmless; for as long as it is
    /// read through:
    /// - **PTR-1**: no operation in flight and no peer writes the bytes that are read (also one
    ///   whose future was dropped: it is in flight until its completion, rule R9);
    /// - **PTR-2**: no thread writes them;
    /// - **PTR-3**: the region is not dropped or closed.
    #[inline]
    fn as_ptr_unchecked(&self) -> *const u8 {
        self.part().addr.as_ptr().cast_const()
    }

    /// The bytes, once the region is not held. Blocks the thread: spins for
    /// [`Patience::spin`](crate::gate::Patience::spin), then parks.
    ///
    /// The thread that polls the completion queue must not wait here for an operation whose
    /// completion it is itself to poll: [`as_slice_with`](Self::as_slice_with) is for that.
    #[inline(always)] // as `forms::attempt`
    fn as_slice(&self) -> MrReadGuard<'_> {
        forms::wait(self)
    }

    /// The bytes; `None` if the region is held, or if joining other readers would make an exclusive
    /// side, which already waits for them, wait longer. Never waits.
    #[inline(always)] // as `forms::attempt`
    fn try_as_slice(&self) -> Option<MrReadGuard<'_>> {
        forms::attempt(self)
    }

    /// As [`as_slice`](Self::as_slice), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`](crate::Error::Deadline), with who held the region then.
    fn as_slice_until(&self, deadline: Instant) -> Result<MrReadGuard<'_>> {
        forms::until(self, deadline)
    }

    /// As [`as_slice`](Self::as_slice), calling `progress` over and over while the region is held:
    /// `mr.as_slice_with(|| endpoint.progress())`. Never parks.
    fn as_slice_with(&self, progress: impl FnMut()) -> MrReadGuard<'_>
    where
        Self: Sized,
    {
        forms::with(self, progress)
    }

    /// As [`as_slice`](Self::as_slice), as a future: never blocks the thread, needs no runtime.
    fn as_slice_async(&self) -> GuardFuture<'_, MrReadGuard<'_>> {
        forms::future(self)
    }

    /// The bytes as a stream with a position, once the region is not held. Blocks the thread. The
    /// other forms: [`into_cursor`](MrReadGuard::into_cursor) of their guards.
    #[inline]
    fn as_slice_cursor(&self) -> MrCursor<'_> {
        forms::wait(self)
    }

    /// As [`as_slice_cursor`](Self::as_slice_cursor); `None` if the region is held. Never waits.
    #[inline]
    fn try_as_slice_cursor(&self) -> Option<MrCursor<'_>> {
        forms::attempt(self)
    }

    /// The bytes, without a hold. No RMW, no load.
    ///
    /// # Safety
    /// For as long as the slice is used:
    /// - **SLICE-1**: no operation in flight and no peer writes the bytes (also one whose future was
    ///   dropped or forgotten, rule R9). The completion of every operation that wrote them was
    ///   polled, and what followed the poll happens before this call.
    /// - **SLICE-2**: no thread has them as `&mut [u8]` or writes them through a pointer.
    /// - **SLICE-3**: the region is not dropped or closed; the borrow sees to that.
    #[inline]
    unsafe fn as_slice_unchecked(&self) -> &[u8] {
        let part = self.part();
        // SAFETY: SLICE-1, SLICE-2, SLICE-3, as required of the caller; ACCESS-1, ACCESS-2.
        unsafe { std::slice::from_raw_parts(part.addr.as_ptr(), part.length) }
    }

    /// As [`lkey`](Self::lkey), which costs the same here; kept for code written for the seed.
    ///
    /// # Safety
    /// - **LKEY-1**: the key is used for this registration only: no rotation of the keys happens
    ///   between this call and the end of its use.
    unsafe fn lkey_unchecked(&self) -> u32 {
        self.lkey()
    }

    /// As [`rkey`](MrAccess::rkey), which costs the same here; kept for code written for the seed.
    ///
    /// # Safety
    /// - **RKEY-1**: the key is used for this registration only: no rotation of the keys happens
    ///   between this call and the end of its use.
    unsafe fn rkey_unchecked(&self) -> u32 {
        self.rkey()
    }

    /// What to tell a peer about these bytes, good for `timeout` from now; `None` if the clock can't
    /// express that. Never waits. It grants what the registration grants: nothing by default.
    fn token_with_timeout(&self, timeout: Duration) -> Option<MrToken> {
        MrToken::of(self.part(), timeout)
    }

    /// As [`token_with_timeout`](Self::token_with_timeout), with
    /// [`rkey_unchecked`](Self::rkey_unchecked).
    ///
    /// # Safety
    /// - **TOKEN-1**: RKEY-1, for as long as the token is used.
    unsafe fn token_with_timeout_unchecked(&self, timeout: Duration) -> Option<MrToken> {
        self.token_with_timeout(timeout)
    }
}
