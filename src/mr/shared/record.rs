//! Records with a version: how a reader tells that what it copied is of one write. The layout, who may
//! write and in which order are in the documentation of
//! [`try_read_record`](super::SharedMrAccess::try_read_record).

use super::int::sealed::Int;
use crate::error::{Error, Result};
use crate::mr::part::Part;
use crate::raw::{self, Whole};

/// Bytes before the body.
pub(super) const VERSION: usize = size_of::<u64>();

/// A place for a version and a body, inside of a region and aligned.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    version: Part<'a>,
    body: Part<'a>,
    offset: usize,
}

impl<'a> Record<'a> {
    pub(super) fn at(part: Part<'a>, offset: usize, body: usize) -> Result<Self> {
        let version = part.int_at::<u64>(offset)?;
        let start = offset + VERSION; // inside of the region, so no overflow
        let body = part.slice(start..start.saturating_add(body))?;
        Ok(Record {
            version,
            body,
            offset,
        })
    }

    fn version(self) -> u64 {
        // SAFETY: RAW-2 by SHARED-2: `int_at` has looked.
        unsafe { u64::load(self.version.addr.as_ptr()) }
    }

    pub(super) fn busy(self) -> Error {
        Error::RecordBusy {
            offset: self.offset,
        }
    }

    /// Copies the body out; gives its version, or `None` if it is not of one write.
    ///
    /// Whoever writes makes the version odd, then writes, then makes it even, in this order also for
    /// those who look. If a byte that is copied here is of a write later than `before`, then the odd
    /// version of that write can be seen, and `after` is no less. If one is of an earlier write, then
    /// `before` could not be seen yet.
    pub(super) fn look(self, to: &mut [u8]) -> Option<u64> {
        let before = self.version();
        if before % 2 == 1 {
            return None;
        }
        raw::barrier();
        self.body.copy_out(to);
        raw::barrier();
        let after = self.version();
        (before == after).then_some(before)
    }

    /// Writes the body; gives its version, or `None` if somebody else is writing.
    pub(super) fn write(self, from: &[u8]) -> Option<u64> {
        let at = self.version.addr.as_ptr();
        let before = self.version();
        let odd = before.wrapping_add(1);
        // SAFETY: RAW-2 by SHARED-2: `int_at` has looked.
        if before % 2 == 1 || unsafe { raw::compare_swap(at, before, odd) } != before {
            return None;
        }
        raw::barrier();
        self.body.copy_in(from);
        raw::barrier();
        let even = odd.wrapping_add(1);
        // SAFETY: RAW-2, as above.
        unsafe { even.store(at) };
        Some(even)
    }
}

impl Part<'_> {
    /// The integer at `offset`.
    pub(super) fn int_at<T: Int>(self, offset: usize) -> Result<Self> {
        let align = size_of::<T>();
        let place = self.slice(offset..offset.saturating_add(align))?;
        let addr = place.addr.addr().get();
        if addr % align != 0 {
            let addr = addr as u64;
            return Err(Error::Misaligned { addr, align });
        }
        Ok(place)
    }

    /// Copies all of these bytes out, which are as many.
    pub(super) fn copy_out(self, to: &mut [u8]) {
        assert_eq!(self.length, to.len());
        // SAFETY: RAW-1 by SHARED-1 and PART-1; `to` is as long.
        unsafe {
            raw::copy(
                self.addr.as_ptr(),
                to.as_mut_ptr(),
                self.length,
                Whole::From,
            );
        }
    }

    /// Copies as many bytes in.
    pub(super) fn copy_in(self, from: &[u8]) {
        assert_eq!(self.length, from.len());
        // SAFETY: RAW-1 by SHARED-1 and PART-1; `from` is as long.
        unsafe { raw::copy(from.as_ptr(), self.addr.as_ptr(), self.length, Whole::To) }
    }
}
