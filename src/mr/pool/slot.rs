//! What a pool gives: a region that goes back when it is dropped.

use std::fmt;
use std::ops::RangeBounds;

use super::super::access::sealed::Sealed;
use super::super::access::{LocalMrReadAccess, LocalMrWriteAccess, MrAccess};
use super::super::part::Part;
use super::super::region::RegionRef;
use super::super::slice::{LocalMrSlice, LocalMrSliceMut};
use super::grow;
use crate::error::Result;
use crate::gate::{Gate, Snapshot};

/// A slot of an [`MrPool`](super::MrPool): a region with a gate of its own, used as a
/// [`LocalMr`](crate::LocalMr) is. Dropped, it goes back to its pool: at once, with one RMW, or when the last
/// operation on it is over. Forgotten, it is out for ever.
///
/// It outlives its pool: then its end is that of a region.
///
/// ```
/// use rdma_mr::{LocalMrReadAccess, MrAccess, MrOptions, PoolOptions, backend::soft::Nic};
///
/// let size = PoolOptions { slot_length: 512, slots_per_registration: 2, max_registrations: 1 };
/// let pool = MrOptions::new().pool(&Nic::new().alloc_pd(), size)?;
/// let (one, two) = (pool.take()?, pool.take()?);
/// assert_eq!((one.length(), one.lkey()), (512, two.lkey()));
/// assert!(pool.try_take().is_none());
/// drop(one);
/// assert!(pool.try_take().is_some());
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[must_use = "a slot that is dropped at once goes back at once"]
pub struct PooledMr {
    region: RegionRef,
}

impl PooledMr {
    /// # Safety
    /// - **POOL-1**: the region is one of a pool's that was free, and is the caller's now.
    #[inline]
    pub(super) unsafe fn new(region: RegionRef) -> Self {
        PooledMr { region }
    }

    /// The bytes in `range`, to read. Shares this slot's gate: what holds one holds the other.
    ///
    /// # Errors
    /// [`Error::RangeOutside`](crate::Error::RangeOutside),
    /// [`Error::EmptyRange`](crate::Error::EmptyRange).
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<LocalMrSlice<'_>> {
        self.part().slice(range).map(LocalMrSlice::new)
    }

    /// The bytes in `range`, to read and write. Shares this slot's gate.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_mut(&mut self, range: impl RangeBounds<usize>) -> Result<LocalMrSliceMut<'_>> {
        self.part().slice(range).map(LocalMrSliceMut::new)
    }

    /// Who holds the slot, at this moment. One load.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        self.part().gate().state()
    }
}

impl Sealed for PooledMr {
    #[inline]
    fn part(&self) -> Part<'_> {
        // SAFETY: REGION-3: the handle is borrowed for the part's lifetime.
        unsafe { Part::whole(self.region) }
    }

    #[inline]
    fn gate(&self) -> &Gate {
        // SAFETY: REGION-3: as above.
        unsafe { self.region.gate() }
    }
}

impl MrAccess for PooledMr {}
impl MrAccess for &PooledMr {}

// SAFETY: ACCESS-1, ACCESS-2: a slot lies in one registration, whose memory lives as long as its slots.
unsafe impl LocalMrReadAccess for PooledMr {}
// SAFETY: as above.
unsafe impl LocalMrReadAccess for &PooledMr {}
// SAFETY: ACCESS-3: the handle is the only one of its region (POOL-1).
unsafe impl LocalMrWriteAccess for PooledMr {}

impl Drop for PooledMr {
    #[inline]
    fn drop(&mut self) {
        // Operations begin through the handle only: if none holds it now, none will.
        if self.part().gate().is_free() {
            // SAFETY: POOL-1: this is the drop of the handle, and no hold is out.
            unsafe { grow::give_back(self.region) };
        } else {
            // SAFETY: REGION-7: this is the drop of the handle.
            unsafe { self.region.orphan() };
        }
    }
}

impl fmt::Debug for PooledMr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part().describe("PooledMr", f)
    }
}
