//! Some bytes of a region: what guards and slices are made of, and how ranges of it are resolved.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::ptr::NonNull;

use super::region::RegionRef;
use crate::error::{Error, Result};
use crate::gate::{Gate, Holder, Kind};
use crate::registration::Region;

/// Some bytes of a region whose handle is borrowed for `'a`.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub(crate) region: RegionRef,
    pub(crate) addr: NonNull<u8>,
    pub(crate) length: usize,
    pub(crate) handle: PhantomData<&'a ()>,
}

// SAFETY: REGION-1: an address in a region; its bytes are reached only through the gate.
unsafe impl Send for Part<'_> {}
// SAFETY: REGION-1: as above.
unsafe impl Sync for Part<'_> {}

impl<'a> Part<'a> {
    /// # Safety
    /// - **REGION-3** for `'a`.
    #[inline]
    pub(crate) unsafe fn whole(region: RegionRef) -> Self {
        // SAFETY: REGION-3, as required of the caller.
        let seen: &'a Region = unsafe { region.get() };
        Part {
            region,
            addr: seen.addr,
            length: seen.length,
            handle: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn region(self) -> &'a Region {
        // SAFETY: REGION-3: a part borrows the handle for `'a`.
        unsafe { self.region.get() }
    }

    #[inline]
    pub(crate) fn gate(self) -> &'a Gate {
        self.region().gate()
    }

    /// What the hold of an operation that does that to the bytes enters the gate as.
    #[inline]
    pub(crate) fn counts(self, holder: Holder) -> Holder {
        match self.region().counts_as_read(holder) {
            true => Holder::NicRead,
            false => holder,
        }
    }

    /// How such a hold is told apart that entered as `kind`.
    #[inline]
    pub(crate) fn told(self, holder: Holder, kind: Kind) -> Kind {
        if !self.region().counts_as_read(holder) {
            return kind;
        }
        debug_assert_eq!(kind, Kind::NicRead, "shared regions are not rotated");
        Kind::SharedWrite
    }

    /// Enters the gate by `enter` for such an operation; in a shared region at once, as one that reads.
    #[inline]
    pub(crate) fn enter(
        self,
        holder: Holder,
        enter: impl FnOnce(&'a Gate) -> Result<Kind>,
    ) -> Result<Kind> {
        if self.region().counts_as_read(holder) {
            return self.enter_shared();
        }
        enter(self.gate())
    }

    /// Enters the gate of a shared region for an operation that writes: at once, as one that reads.
    #[cold]
    pub(crate) fn enter_shared(self) -> Result<Kind> {
        let kind = self.gate().enter(Holder::NicRead, None)?;
        Ok(self.told(Holder::NicWrite, kind))
    }

    /// Refuses if a hold is out. Nobody comes in after it only if the caller owns the handle or
    /// borrows it mutably.
    pub(crate) fn must_be_free(self) -> Result<()> {
        let gate = self.gate();
        if gate.is_free() {
            return Ok(());
        }
        Err(Error::Held {
            state: gate.state(),
        })
    }

    /// The bytes in `range` of these.
    pub(crate) fn slice(self, range: impl RangeBounds<usize>) -> Result<Self> {
        let (start, length) = resolve(range, self.length)?;
        Ok(Part {
            // SAFETY: PART-1: `start` lies within the part, which lies within one allocation.
            addr: unsafe { self.addr.add(start) },
            length,
            ..self
        })
    }
}

/// Start and length of `range` in something of `length` bytes: at least one byte, all inside.
pub(crate) fn resolve(range: impl RangeBounds<usize>, length: usize) -> Result<(usize, usize)> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => length,
    };
    if end > length || start > length {
        return Err(Error::RangeOutside { start, end, length });
    }
    if start >= end {
        return Err(Error::EmptyRange { start });
    }
    Ok((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_resolved_or_refused_with_their_numbers() {
        assert_eq!(resolve(.., 8).unwrap(), (0, 8));
        assert_eq!(resolve(2..=7, 8).unwrap(), (2, 6));
        assert_eq!(
            resolve((Bound::Excluded(2), Bound::Unbounded), 8).unwrap(),
            (3, 5)
        );
        let outside = |range: (Bound<usize>, Bound<usize>)| {
            matches!(
                resolve(range, 8),
                Err(Error::RangeOutside { length: 8, .. })
            )
        };
        assert!(outside((Bound::Included(0), Bound::Excluded(9))));
        assert!(outside((Bound::Included(0), Bound::Included(usize::MAX))));
        assert!(outside((Bound::Excluded(usize::MAX), Bound::Unbounded)));
        assert!(outside((Bound::Included(9), Bound::Unbounded)));
        for empty in [3..3, 8..8] {
            assert!(matches!(resolve(empty, 8), Err(Error::EmptyRange { .. })));
        }
        #[allow(clippy::reversed_empty_ranges, reason = "what a caller may pass")]
        let backwards = 5..3;
        assert!(matches!(
            resolve(backwards, 8),
            Err(Error::EmptyRange { start: 5 })
        ));
    }
}
