//! The owned region.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::RangeBounds;
use std::ptr::NonNull;
use std::sync::Arc;

use super::access::sealed::Sealed;
use super::options::MrOptions;
use super::part::Part;
use super::region::RegionRef;
use super::slice::{LocalMrSlice, LocalMrSliceMut};
use crate::error::{Error, Rejected, Result};
use crate::gate::{Gate, Snapshot};
use crate::registration::{InnerCell, Memory, Registrar, StableMemory};
use crate::trace;

/// Registered memory of this side, owned: bytes that the CPU reads and writes through guards, and
/// the NIC through operations that hold the region.
///
/// `&LocalMr` is enough to read and to begin operations, from any number of threads; writing takes
/// `&mut LocalMr`. Dropping it is never late: operations in flight keep the memory registered until
/// the last of them is over.
///
/// ```
/// use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, backend::soft::Nic};
///
/// let nic = Nic::new();
/// let mut mr = LocalMr::alloc(&nic.alloc_pd(), 4096)?;
/// mr.as_mut_slice().fill(1);
/// assert!(mr.as_slice().iter().all(|byte| *byte == 1));
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub struct LocalMr {
    pub(super) region: RegionRef,
    /// The state of the region's registration, without the way over the region.
    inner: InnerRef,
}

#[derive(Clone, Copy)]
struct InnerRef(NonNull<InnerCell>);

// SAFETY: REGION-3: used as a reference, while the handle is there.
unsafe impl Send for InnerRef {}
// SAFETY: as above.
unsafe impl Sync for InnerRef {}

impl LocalMr {
    pub(super) fn new(region: RegionRef) -> Self {
        // SAFETY: REGION-3: the region has a handle from here on.
        let registration = unsafe { region.get() }.registration();
        let inner = InnerRef(NonNull::from(registration.inner()));
        LocalMr { region, inner }
    }

    /// Maps `length` zeroed bytes and registers them with LOCAL_WRITE. See [`MrOptions::alloc`].
    ///
    /// # Errors
    /// Those of [`MrOptions::alloc`].
    pub fn alloc<R: Registrar>(registrar: &Arc<R>, length: usize) -> Result<Self> {
        MrOptions::new().alloc(registrar, length)
    }

    /// Registers `memory` with LOCAL_WRITE. See [`MrOptions::register`].
    ///
    /// # Errors
    /// Those of [`MrOptions::register`], with the memory given back.
    pub fn register<R: Registrar, T: StableMemory>(
        registrar: &Arc<R>,
        memory: T,
    ) -> Result<Self, Rejected<T>> {
        MrOptions::new().register(registrar, memory)
    }

    /// The bytes in `range`, to read. Shares this region's gate: what holds one holds the other.
    ///
    /// # Errors
    /// [`Error::RangeOutside`], [`Error::EmptyRange`].
    pub fn get(&self, range: impl RangeBounds<usize>) -> Result<LocalMrSlice<'_>> {
        self.part().slice(range).map(LocalMrSlice::new)
    }

    /// The bytes in `range`, to read and write. Shares this region's gate.
    ///
    /// # Errors
    /// [`Error::RangeOutside`], [`Error::EmptyRange`].
    pub fn get_mut(&mut self, range: impl RangeBounds<usize>) -> Result<LocalMrSliceMut<'_>> {
        self.part().slice(range).map(LocalMrSliceMut::new)
    }

    /// Who holds the region, at this moment. One load.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        self.part().gate().state()
    }

    /// How many acquisitions found the region held and had to wait. One load.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.part().gate().waits()
    }

    /// Refuses operations from now on: who begins one gets [`Error::Closed`], also who already
    /// waits for it. Those in flight go on, and the CPU reads and writes as before. One RMW.
    pub fn shutdown(&self) {
        let part = self.part();
        part.gate().close();
        trace::shutdown(
            part.gate_address(),
            part.addr.as_ptr() as usize,
            part.length,
        );
    }

    /// Deregisters (`ibv_dereg_mr`) and gives the memory back. Blocks in the kernel, waits for
    /// nobody: operations in flight are an error.
    ///
    /// # Errors
    /// The region, as it was, with [`Error::Held`] if an operation is in flight,
    /// [`Error::PartsAlive`] if other regions were split from it, [`Error::Deregister`] with what the
    /// provider said; as an [`io::Error`].
    pub fn close(mut self) -> Result<Memory, (Self, io::Error)> {
        if let Err(error) = self.end() {
            return Err((self, error.into()));
        }
        let handle = ManuallyDrop::new(self);
        // SAFETY: REGION-5: the handle is given up here, and no hold is out: `end` saw none, and
        // holds begin through the handle only.
        let registration = unsafe { handle.region.vacate() };
        let registration =
            registration.expect("`end` saw the only part, and parts come from parts");
        Ok(registration.into_memory())
    }

    /// Deregisters, if nothing is in the way.
    fn end(&mut self) -> Result<()> {
        self.part().must_be_free()?;
        let registration = self.part().region().registration();
        match registration.others() {
            // SAFETY: ROLL-4: this is the only region, no hold is out, and the handle is borrowed mutably.
            0 => unsafe { registration.end() }.map_err(Error::Deregister),
            others => Err(Error::PartsAlive { others }),
        }
    }
}

impl Sealed for LocalMr {
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

    #[inline]
    fn inner(&self) -> &InnerCell {
        // SAFETY: REGION-3: the handle is borrowed; its region keeps the registration, in its place, and is
        // never given another one.
        unsafe { self.inner.0.as_ref() }
    }
}

impl Drop for LocalMr {
    fn drop(&mut self) {
        // SAFETY: REGION-7: this is the drop of the handle.
        unsafe { self.region.orphan() }
    }
}

impl fmt::Debug for LocalMr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part().describe("LocalMr", f)
    }
}
