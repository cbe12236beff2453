//! Keys that change while they are used.

use std::time::Instant;

use super::access::MrAccess;
use super::access::sealed::Sealed;
use super::local::LocalMr;
use crate::error::{Error, Result};
use crate::registration::{Access, Registration, Retire, Traits};

impl LocalMr {
    fn registration(&self) -> &Registration {
        self.part().region().registration()
    }

    /// Registers the same bytes anew (`ibv_reg_mr`), with other rights; the new keys are in force when
    /// this returns, for this region and all that were split from the same registration. Readers of keys
    /// and rights never wait, and never see a mixture. Operations that began before complete under the
    /// old keys, which are [retired](Self::retire). Waits for no operation; blocks in the kernel.
    ///
    /// Peers that have the old remote key can use it until then; a [token](crate::MrToken) names one
    /// key for good.
    ///
    /// ```
    /// use rdma_mr::op::Begin;
    /// use rdma_mr::{Access, LocalMr, LocalMrReadAccess, MrAccess, backend::soft::Nic};
    ///
    /// let mr = LocalMr::alloc(&Nic::new().alloc_pd(), 64)?;
    /// let (hold, old) = (mr.begin_read()?, mr.lkey());
    /// mr.reregister(Access::LOCAL_WRITE | Access::REMOTE_READ)?;
    /// assert!(mr.access().contains(Access::REMOTE_READ) && mr.lkey() != old);
    /// // The operation is under way under the old key.
    /// assert_eq!((hold.sge().lkey, mr.registrations()), (old, 2));
    /// drop(hold);
    /// mr.retire()?;
    /// assert_eq!(mr.registrations(), 1);
    /// # Ok::<(), rdma_mr::Error>(())
    /// ```
    ///
    /// # Errors
    /// What is in force stays so, with [`Error::Register`] and what the provider said,
    /// [`Error::RemoteWithoutLocalWrite`], or [`Error::RemoteWriteNeedsUnsafe`] if the region was not
    /// made with [`grant_remote_write`](crate::MrOptions::grant_remote_write).
    pub fn reregister(&self, access: Access) -> Result<()> {
        access.validate()?;
        let registration = self.registration();
        let granted = self
            .part()
            .region()
            .traits()
            .contains(Traits::REMOTE_WRITE_GRANTED);
        if access.lets_peers_write() && !granted {
            return Err(Error::RemoteWriteNeedsUnsafe { access });
        }
        registration.rotate(access)?;
        // What can't be ended now is left to those who ask for it, with the reason.
        let _ = registration.try_retire();
        Ok(())
    }

    /// As [`reregister`](Self::reregister), with the rights as they are.
    ///
    /// # Errors
    /// Those of [`reregister`](Self::reregister).
    pub fn rotate_keys(&self) -> Result<()> {
        self.reregister(self.access())
    }

    /// How many registrations of the memory there are: the one in force, and those before it that are
    /// not ended yet.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.registration().count()
    }

    /// Ends the registrations before the one in force (`ibv_dereg_mr`), as far as no operation uses their
    /// keys, of this region or of another that was split from the same registration. Every
    /// [`reregister`](Self::reregister) does that as well, and so does the end of the last region. Waits
    /// for no operation; blocks in the kernel. O(regions of the registration).
    ///
    /// # Errors
    /// [`Error::Held`] if an operation is in the way, with what holds its region;
    /// [`Error::Deregister`] with what the provider said: that registration stays, to be ended later.
    pub fn try_retire(&self) -> Result<()> {
        let retired = self.registration().try_retire()?;
        retired.map_err(|busy| Error::Held { state: busy.state })
    }

    /// As [`try_retire`](Self::try_retire), waiting for the operations that are in the way. Others go on
    /// beginning, are not held up, and are not waited for, but for those that begin while the operations
    /// of the retirement before still run. Blocks the thread.
    ///
    /// # Errors
    /// [`Error::Deregister`].
    pub fn retire(&self) -> Result<()> {
        self.registration().retire(None)
    }

    /// As [`retire`](Self::retire), at most until `deadline`.
    ///
    /// # Errors
    /// [`Error::Deadline`] with what holds a region then; [`Error::Deregister`].
    pub fn retire_until(&self, deadline: Instant) -> Result<()> {
        self.registration().retire(Some(deadline))
    }

    /// As [`retire`](Self::retire), calling `progress` over and over meanwhile: a thread that polls the
    /// completion queue does not wait for itself.
    ///
    /// # Errors
    /// [`Error::Deregister`].
    pub fn retire_with(&self, progress: impl FnMut()) -> Result<()> {
        self.registration().retire_with(progress)
    }

    /// As [`retire`](Self::retire), as a future. Needs no runtime.
    pub fn retire_async(&self) -> Retire<'_> {
        Retire::new(self.registration())
    }
}
