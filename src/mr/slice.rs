//! Borrowed bytes of a region, which share its gate.

use std::fmt;
use std::ops::RangeBounds;

use super::access::sealed::Sealed;
use super::part::Part;
use super::pool;
use crate::error::Result;

/// Some bytes of a [`LocalMr`](crate::LocalMr), to read. Shares the region's gate.
///
/// ```
/// use rdma_mr::{LocalMr, LocalMrReadAccess, MrAccess, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let mr = LocalMr::register(&pd, (0..100).collect::<Vec<u8>>())?;
/// let slice = mr.get(10..20)?.get(..3)?;
/// assert_eq!(*slice.as_slice(), [10, 11, 12]);
/// assert_eq!(slice.addr(), mr.addr() + 10);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct LocalMrSlice<'a>(Part<'a>);

impl<'a> LocalMrSlice<'a> {
    pub(super) fn new(part: Part<'a>) -> Self {
        LocalMrSlice(part)
    }

    /// The bytes in `range` of these.
    ///
    /// # Errors
    /// [`Error::RangeOutside`](crate::Error::RangeOutside),
    /// [`Error::EmptyRange`](crate::Error::EmptyRange).
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<LocalMrSlice<'a>> {
        self.0.slice(range).map(LocalMrSlice::new)
    }
}

/// Some bytes of a [`LocalMr`](crate::LocalMr), to read and write. Shares the region's gate.
///
/// ```
/// use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, backend::soft::Nic};
///
/// let mut mr = LocalMr::alloc(&Nic::new().alloc_pd(), 8)?;
/// mr.get_mut(2..4)?.as_mut_slice().fill(9);
/// assert_eq!(*mr.as_slice(), [0, 0, 9, 9, 0, 0, 0, 0]);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct LocalMrSliceMut<'a>(Part<'a>);

impl<'a> LocalMrSliceMut<'a> {
    pub(super) fn new(part: Part<'a>) -> Self {
        LocalMrSliceMut(part)
    }

    /// The bytes in `range` of these, to read.
    ///
    /// # Errors
    /// [`Error::RangeOutside`](crate::Error::RangeOutside),
    /// [`Error::EmptyRange`](crate::Error::EmptyRange).
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<LocalMrSlice<'_>> {
        self.0.slice(range).map(LocalMrSlice::new)
    }

    /// The bytes in `range` of these, to read and write.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_mut(&mut self, range: impl RangeBounds<usize>) -> Result<LocalMrSliceMut<'_>> {
        self.0.slice(range).map(LocalMrSliceMut::new)
    }
}

impl Sealed for LocalMrSlice<'_> {
    #[inline]
    fn part(&self) -> Part<'_> {
        self.0
    }
}

impl Sealed for LocalMrSliceMut<'_> {
    #[inline]
    fn part(&self) -> Part<'_> {
        self.0
    }
}

impl Part<'_> {
    /// By which an operator knows the region: its gate's, which is one region's alone, where bytes may be
    /// several's.
    pub(crate) fn gate_address(self) -> usize {
        std::ptr::from_ref(self.gate()) as usize
    }

    /// Where it is, and who has it as far as that is known. Waits for nobody.
    pub(super) fn describe(self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.region();
        let registration = region.registration();
        let (lkey, rkey) = registration.inner().keys();
        let mut f = f.debug_struct(name);
        f.field("addr", &self.addr)
            .field("length", &self.length)
            .field("gate", &format_args!("{:#x}", self.gate_address()))
            .field("lkey", &format_args!("{lkey:#x}"))
            .field("rkey", &format_args!("{rkey:#x}"))
            .field("state", &format_args!("{}", self.gate().state()))
            .field("waits", &self.gate().waits());
        if let Some(number) = pool::slot_number(self) {
            f.field("slot", &number);
        }
        match registration.try_count() {
            Some(count) => f.field("registrations", &count),
            None => f.field("registrations", &format_args!("being changed")),
        };
        f.finish()
    }
}

impl fmt::Debug for LocalMrSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("LocalMrSlice", f)
    }
}

impl fmt::Debug for LocalMrSliceMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("LocalMrSliceMut", f)
    }
}
