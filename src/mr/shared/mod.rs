//! Memory that a peer may write at any moment (rule R3): a type without slices. This file has the
//! region and its slices; `access` what is done with their bytes, `record` the protocol of records
//! with a version, `int` the integers that are loaded and stored whole.

mod access;
mod int;
mod record;

use std::fmt;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

pub use access::SharedMrAccess;
pub use int::SharedInt;

use super::access::sealed::Sealed;
use super::local::LocalMr;
use super::options::MrOptions;
use super::part::Part;
use crate::error::Result;
use crate::gate::Snapshot;
use crate::raw;
use crate::registration::{Access, InnerCell, Memory, Registrar};

/// Registered memory that peers may read and write at any moment, with remote rights for good.
///
/// Nobody ever has a reference to its bytes, so no rule of references can be broken by a peer: they
/// are copied in and out, loaded and stored ([`SharedMrAccess`]). That is why it takes no `unsafe`
/// to grant remote writes here, as it does for a [`LocalMr`] (rule R6). The memory comes from `mmap`,
/// zeroed, outside of Rust's allocator. **What is copied out may be anything**: bytes that arrived in
/// any order, of several writes, or of a peer that lies. Copy out, then validate the copy. There is no
/// deadline that takes the rights back and no waiting for a peer; the region's end does, or a lease
/// where that is wanted.
///
/// It is also the local side of operations of our own: [`Begin`](crate::op::Begin) works as on other
/// regions, but here a hold is about lifetime alone. It keeps the memory registered until the operation
/// is over and excludes nobody; any number of them, reading or writing, are out at a time, all counted
/// as [`nic_reads`](Snapshot::nic_reads), and no `begin_*` ever waits.
///
/// ```
/// use rdma_mr::op::Begin;
/// use rdma_mr::{Access, MrAccess, SharedMr, SharedMrAccess, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let mr = SharedMr::alloc(&pd, 4096, Access::all())?;
/// mr.store(64, 7u32)?;
/// let mut copy = [0; 4];
/// mr.read_into(64, &mut copy)?;
/// assert_eq!(u32::from_ne_bytes(copy), 7);
/// assert_eq!(mr.fetch_add(0, 2)?, 0); // agrees with the peers' FETCH_ADD, or is an error
/// let (receive, read) = (mr.get(128..256)?.begin_write()?, mr.get(128..256)?.begin_write()?);
/// assert_eq!(mr.state().nic_reads, 2);
/// # drop((receive, read));
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct SharedMr(
    /// Never given out: whoever had it could ask it for slices.
    LocalMr,
);

impl SharedMr {
    pub(super) fn new(region: LocalMr) -> Self {
        let Part { addr, length, .. } = region.part();
        raw::model(addr.as_ptr(), length);
        SharedMr(region)
    }

    /// Maps `length` zeroed bytes and registers them with the rights `access`:
    /// [`Access::LOCAL_WRITE`] and what peers may do. See [`MrOptions::alloc_shared`].
    ///
    /// # Errors
    /// Those of [`MrOptions::alloc_shared`].
    pub fn alloc<R: Registrar>(registrar: &Arc<R>, length: usize, access: Access) -> Result<Self> {
        MrOptions::new()
            .access(access)
            .alloc_shared(registrar, length)
    }

    /// The bytes in `range`; offsets count from its start.
    ///
    /// # Errors
    /// [`Error::RangeOutside`](crate::Error::RangeOutside),
    /// [`Error::EmptyRange`](crate::Error::EmptyRange).
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<SharedMrSlice<'_>> {
        self.part().slice(range).map(SharedMrSlice)
    }

    /// Which operations of this side hold the region, at this moment. One load. Peers are not seen.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        self.0.state()
    }

    /// Refuses operations of this side from now on ([`Error::Closed`](crate::Error::Closed)); those in
    /// flight go on, and peers do as they like. One RMW.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// Deregisters (`ibv_dereg_mr`) and gives the memory back, a
    /// [`Mapping`](crate::registration::Mapping): peers can't reach it any more, whatever key they
    /// have. Blocks in the kernel, waits for nobody.
    ///
    /// # Errors
    /// The region, as it was, with [`Error::Held`](crate::Error::Held) if an operation of this side is
    /// in flight, [`Error::Deregister`](crate::Error::Deregister) with what the provider said; as an
    /// [`io::Error`].
    pub fn close(self) -> Result<Memory, (Self, io::Error)> {
        self.0.close().map_err(|(mr, error)| (SharedMr(mr), error))
    }
}

impl Sealed for SharedMr {
    #[inline]
    fn part(&self) -> Part<'_> {
        self.0.part()
    }

    #[inline]
    fn inner(&self) -> &InnerCell {
        self.0.inner()
    }
}

impl fmt::Debug for SharedMr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part().describe("SharedMr", f)
    }
}

/// Some bytes of a [`SharedMr`].
///
/// ```
/// use rdma_mr::{Access, SharedMr, SharedMrAccess, backend::soft::Nic};
///
/// let mr = SharedMr::alloc(&Nic::new().alloc_pd(), 4096, Access::all())?;
/// let slot = mr.get(1024..2048)?;
/// slot.write_from(8, b"abc")?;
/// assert_eq!(mr.load::<u8>(1024 + 8)?, b'a');
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct SharedMrSlice<'a>(Part<'a>);

impl<'a> SharedMrSlice<'a> {
    /// The bytes in `range` of these.
    ///
    /// # Errors
    /// As for [`SharedMr::get`].
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<SharedMrSlice<'a>> {
        self.0.slice(range).map(SharedMrSlice)
    }
}

impl Sealed for SharedMrSlice<'_> {
    #[inline]
    fn part(&self) -> Part<'_> {
        self.0
    }
}

impl fmt::Debug for SharedMrSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe("SharedMrSlice", f)
    }
}
