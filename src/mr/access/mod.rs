//! The traits, with the names and the meaning that they have in the crate whose regions sit behind
//! a lock. Sealed: what they promise about memory is this crate's to keep.

mod read;
mod write;

pub use read::LocalMrReadAccess;
pub use write::LocalMrWriteAccess;

use super::local::LocalMr;
use super::slice::{LocalMrSlice, LocalMrSliceMut};
use crate::registration::Access;
use sealed::Sealed;

pub(crate) mod sealed {
    //! Keeps the traits this crate's own, and gives them what they are made of.
    use crate::gate::Gate;
    pub use crate::mr::part::Part;
    use crate::registration::InnerCell;

    /// What every region and slice is. Send and Sync, so that futures over a `dyn` of them are, too.
    pub trait Sealed: Send + Sync {
        /// The bytes, and the region that they are part of.
        fn part(&self) -> Part<'_>;

        /// The region's gate, before anything else of it is looked at.
        #[inline]
        fn gate(&self) -> &Gate {
            self.part().gate()
        }

        /// The published state of its registration.
        #[inline]
        fn inner(&self) -> &InnerCell {
            self.part().region().registration().inner()
        }
    }

    impl<T: Sealed> Sealed for &T {
        #[inline]
        fn part(&self) -> Part<'_> {
            T::part(self)
        }

        #[inline]
        fn gate(&self) -> &Gate {
            T::gate(self)
        }

        #[inline]
        fn inner(&self) -> &InnerCell {
            T::inner(self)
        }
    }
}

/// What is known of any memory region. Nothing here waits or touches the word.
///
/// Sealed: implemented for [`LocalMr`], `&LocalMr`, [`LocalMrSlice`], [`LocalMrSliceMut`],
/// [`PooledMr`](crate::PooledMr), `&PooledMr`, [`SharedMr`](crate::SharedMr), `&SharedMr`,
/// [`SharedMrSlice`](crate::SharedMrSlice).
pub trait MrAccess: Sealed {
    /// Address of the first byte.
    #[inline]
    fn addr(&self) -> usize {
        self.part().addr.as_ptr() as usize
    }

    /// How many bytes; at least 1, at most `isize::MAX`.
    #[inline]
    fn length(&self) -> usize {
        self.part().length
    }

    /// The remote key. One load; never waits (rule R7).
    #[inline]
    fn rkey(&self) -> u32 {
        self.inner().keys().1
    }

    /// The rights of the registration. One load; never waits.
    #[inline]
    fn access(&self) -> Access {
        self.inner().access()
    }
}

impl MrAccess for LocalMr {}
impl MrAccess for &LocalMr {}
impl MrAccess for LocalMrSlice<'_> {}
impl MrAccess for LocalMrSliceMut<'_> {}

// SAFETY: ACCESS-1, ACCESS-2: these are the regions and slices of this crate; their bytes are
// initialised (MEM-2) and no longer than `isize::MAX`, and they use the provided methods.
unsafe impl LocalMrReadAccess for LocalMr {}
// SAFETY: as above.
unsafe impl LocalMrReadAccess for &LocalMr {}
// SAFETY: as above.
unsafe impl LocalMrReadAccess for LocalMrSlice<'_> {}
// SAFETY: as above.
unsafe impl LocalMrReadAccess for LocalMrSliceMut<'_> {}

// SAFETY: ACCESS-3: the handle is the only one of its region.
unsafe impl LocalMrWriteAccess for LocalMr {}
// SAFETY: ACCESS-3: the slice borrows the handle mutably.
unsafe impl LocalMrWriteAccess for LocalMrSliceMut<'_> {}
