//! How a region comes to be: rights, pages, patience, and where the memory comes from.

use std::sync::Arc;

use super::local::LocalMr;
use super::region::{Region, RegionRef};
use super::shared::SharedMr;
use crate::error::{Error, Rejected, Result};
use crate::gate::{Gate, Patience};
use crate::registration::{
    Access, Mapping, Member, Memory, Pages, Registrar, Registration, StableMemory,
};

/// How to register a region.
///
/// ```
/// use rdma_mr::{Access, MrAccess, MrOptions, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let mr = MrOptions::new()
///     .access(Access::LOCAL_WRITE | Access::REMOTE_READ)
///     .alloc(&pd, 1 << 20)?;
/// assert_eq!(mr.length(), 1 << 20);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct MrOptions {
    access: Access,
    pages: Pages,
    patience: Patience,
    remote_write_granted: bool,
}

impl MrOptions {
    /// [`Access::LOCAL_WRITE`], the system's pages, the default [`Patience`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The rights. Those with which peers write need
    /// [`grant_remote_write`](Self::grant_remote_write) as well.
    ///
    /// [`Access::REMOTE_READ`] is safe: peers may see bytes of which some are old and some new.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The pages that [`alloc`](Self::alloc) maps.
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = pages;
        self
    }

    /// How long those who find the region held spin, and stand back.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Lets [`access`](Self::access) contain [`Access::REMOTE_WRITE`] and
    /// [`Access::REMOTE_ATOMIC`]: peers can then write the bytes at any time, and the gate does not
    /// see it (rule R6). A remote key that is held open only while the bytes are is the better way
    /// wherever there is the choice.
    ///
    /// # Safety
    /// For as long as the region is registered:
    /// - **REMOTE-1**: no peer writes the bytes while a guard of the region, or a reference from an
    ///   unchecked accessor, lives, except bytes for which it was let write by an operation's hold
    ///   that is still out ([`begin_write`](crate::op::Begin::begin_write)).
    /// - **REMOTE-2**: no peer writes the bytes once such a hold is given back, so the hold is kept
    ///   until the peer is known to have finished: by a completion on this side (WRITE_WITH_IMM, a
    ///   message sent after the writes on the same queue pair), or by the end of the queue pair.
    pub unsafe fn grant_remote_write(mut self) -> Self {
        self.remote_write_granted = true;
        self
    }

    /// Maps `length` zeroed bytes and registers them (`mmap`, `ibv_reg_mr`). Blocks in the kernel.
    ///
    /// # Errors
    /// [`Error::ZeroLength`], [`Error::TooLong`], [`Error::Memory`]; those of
    /// [`register`](Self::register).
    pub fn alloc<R: Registrar>(&self, registrar: &Arc<R>, length: usize) -> Result<LocalMr> {
        self.check()?;
        let mapping = Mapping::new(length, self.pages)?;
        Ok(self.register(registrar, mapping)?)
    }

    /// Registers `memory` (`ibv_reg_mr`). Blocks in the kernel.
    ///
    /// # Errors
    /// The memory, as it was, with [`Error::ZeroLength`], [`Error::TooLong`],
    /// [`Error::ReadOnlyMemory`], [`Error::RemoteWithoutLocalWrite`],
    /// [`Error::RemoteWriteNeedsUnsafe`], [`Error::AddressOverflow`], or [`Error::Register`] with
    /// what the provider said.
    pub fn register<R: Registrar, T: StableMemory>(
        &self,
        registrar: &Arc<R>,
        memory: T,
    ) -> Result<LocalMr, Rejected<T>> {
        if let Err(error) = self.check() {
            return Err(Rejected::new(memory, error));
        }
        self.make(registrar, memory, false)
    }

    /// Maps `length` zeroed bytes and registers them as memory that peers may write at any moment
    /// (rule R3), with any [`access`](Self::access): no [`grant`](Self::grant_remote_write) is needed,
    /// since a [`SharedMr`] never gives out a reference that a peer's write could break. Blocks in the
    /// kernel. [`patience`](Self::patience) is of no use to it.
    ///
    /// # Errors
    /// [`Error::ZeroLength`], [`Error::TooLong`], [`Error::Memory`],
    /// [`Error::RemoteWithoutLocalWrite`], or [`Error::Register`] with what the provider said.
    pub fn alloc_shared<R: Registrar>(
        &self,
        registrar: &Arc<R>,
        length: usize,
    ) -> Result<SharedMr> {
        self.access.validate()?;
        let mapping = Mapping::new(length, self.pages)?;
        Ok(SharedMr::new(self.make(registrar, mapping, true)?))
    }

    /// Registers `memory` with rights that were checked.
    fn make<R: Registrar, T: StableMemory>(
        &self,
        registrar: &Arc<R>,
        memory: T,
        shared: bool,
    ) -> Result<LocalMr, Rejected<T>> {
        let memory = Memory::new(memory)?;
        let (addr, length) = (memory.addr(), memory.length());
        let registrar: Arc<dyn Registrar> = Arc::clone(registrar) as _;
        match Registration::new(registrar, memory, self.access, self.remote_write_granted) {
            Ok(registration) => Ok(LocalMr::new(RegionRef::new(Region {
                member: Member::new(Gate::with_patience(self.patience)),
                addr,
                length,
                registration: Arc::new(registration),
                shared,
            }))),
            Err(Rejected { value, error }) => {
                let memory = value.downcast().expect("it was made of a T");
                Err(Rejected::new(memory, error))
            }
        }
    }

    fn check(&self) -> Result<()> {
        self.access.validate()?;
        if self.access.lets_peers_write() && !self.remote_write_granted {
            return Err(Error::RemoteWriteNeedsUnsafe {
                access: self.access,
            });
        }
        Ok(())
    }
}
