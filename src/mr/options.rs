//! How a region comes to be: rights, pages, patience, and where the memory comes from.

use std::sync::Arc;

use super::local::LocalMr;
use super::region::RegionRef;
use super::shared::SharedMr;
use crate::error::{Error, Rejected, Result};
use crate::gate::{Gate, Patience, ReadBias};
use crate::registration::{
    Access, Adoption, Mapping, Memory, Nobody, Pages, Region, Registrar, Registration,
    RegistrationRef, StableMemory, Traits,
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
    pub(super) patience: Patience,
    read_bias: Option<ReadBias>,
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

    /// Readers on many threads get by without the region's own line, at the cost of those who write: see
    /// [`ReadBias`]. Parts of the region, and slots of a pool, are biased each by itself.
    pub fn read_bias(mut self, bias: ReadBias) -> Self {
        self.read_bias = Some(bias);
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
        let registrar: Arc<dyn Registrar> = Arc::clone(registrar) as _;
        match Registration::of(registrar, memory, self.access) {
            Ok(registered) => Ok(self.region(registered, shared)),
            Err(Rejected { value, error }) => {
                let memory = value.downcast().expect("it was made of a T");
                Err(Rejected::new(memory, error))
            }
        }
    }

    /// Makes a region of memory that other code has registered, with any binding, so that its
    /// operations hold it as they do one of this crate's. [`access`](Self::access) says with what
    /// rights it was registered. Allocates; no call of the provider, blocks nowhere.
    ///
    /// When the region ends, after its last operation, the registration is ended by
    /// [`registered.handle`](crate::registration::Registered::handle), and then `keepalive` is dropped,
    /// which keeps the memory, and what the handle needs (rule R14). Its keys can't be rotated here, nor
    /// bytes of it be lent: both fail with [`Error::Register`], unless it is adopted
    /// [on](Self::adopt_on) a protection domain.
    /// [`close`](LocalMr::close) gives `keepalive` back, by
    /// [`Memory::into_keepalive`]. If the provider refuses to deregister in a drop, `keepalive` is leaked.
    ///
    /// ```
    /// use std::ptr::NonNull;
    /// use rdma_mr::backend::soft::Nic;
    /// use rdma_mr::registration::{Adoption, Registrar};
    /// use rdma_mr::{Access, LocalMrReadAccess, MrOptions};
    ///
    /// let pd = Nic::new().alloc_pd();
    /// // By another binding: memory of its own, and a registration of it.
    /// let memory = NonNull::from(Box::leak(Box::new([7_u8; 64]))).cast::<u8>();
    /// // SAFETY: REG-4: it is never freed.
    /// let registered = unsafe { pd.register(memory, 64, Access::LOCAL_WRITE) }?;
    ///
    /// let adoption = Adoption { addr: memory.as_ptr(), length: 64, registered };
    /// // SAFETY: ADOPT-1: it is never freed; ADOPT-2: registered above; ADOPT-3: nobody else has it.
    /// let mr = unsafe { MrOptions::new().adopt(adoption, pd) }?;
    /// assert_eq!(*mr.as_slice(), [7; 64]);
    /// let memory = mr.close().map_err(|(_, error)| error)?;
    /// let pd = memory.into_keepalive::<std::sync::Arc<_>>();
    /// # let _: Result<std::sync::Arc<rdma_mr::backend::soft::ProtectionDomain>, _> = pd;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Both, as they were, with [`Error::ZeroLength`], [`Error::TooLong`], [`Error::NullAddress`],
    /// [`Error::AddressOverflow`], [`Error::RemoteWithoutLocalWrite`],
    /// [`Error::RemoteWriteNeedsUnsafe`].
    ///
    /// # Safety
    /// Until `keepalive` is dropped or given back:
    /// - **ADOPT-1**: the bytes are allocated, in one allocation, initialised, and may be written
    ///   through `addr`.
    /// - **ADOPT-2**: the keys are in force and cover exactly these bytes, with exactly the rights in
    ///   `access`; the NIC touches the bytes only for who names them (AX-5).
    /// - **ADOPT-3**: nobody else reads or writes the bytes, posts work requests that name the local
    ///   key, or ends or changes the registration; none that was posted before is outstanding.
    pub unsafe fn adopt<K: Send + Sync + 'static>(
        &self,
        adoption: Adoption,
        keepalive: K,
    ) -> Result<LocalMr, Rejected<(Adoption, K)>> {
        // SAFETY: ADOPT-1, ADOPT-2, ADOPT-3, as required of the caller.
        unsafe { self.adopt_by(Arc::new(Nobody), adoption, keepalive) }
    }

    /// As [`adopt`](Self::adopt), with who can register the memory anew: for
    /// [`rotate_keys`](LocalMr::rotate_keys) and [leases](crate::Lend). Give it the protection domain that
    /// the memory was registered in, or one for the same queue pairs; an adopted one
    /// (`verbs::ProtectionDomain::adopt`) will do. The first rotation, or the region's end, ends the
    /// registration that was adopted by its own handle.
    ///
    /// # Errors
    /// Those of [`adopt`](Self::adopt).
    ///
    /// # Safety
    /// - **ADOPT-1**, **ADOPT-2**, **ADOPT-3**, as for [`adopt`](Self::adopt).
    pub unsafe fn adopt_on<R: Registrar, K: Send + Sync + 'static>(
        &self,
        registrar: &Arc<R>,
        adoption: Adoption,
        keepalive: K,
    ) -> Result<LocalMr, Rejected<(Adoption, K)>> {
        // SAFETY: ADOPT-1, ADOPT-2, ADOPT-3, as required of the caller.
        unsafe { self.adopt_by(Arc::clone(registrar) as _, adoption, keepalive) }
    }

    /// # Safety
    /// - **ADOPT-1**, **ADOPT-2**, **ADOPT-3**.
    unsafe fn adopt_by<K: Send + Sync + 'static>(
        &self,
        registrar: Arc<dyn Registrar>,
        adoption: Adoption,
        keepalive: K,
    ) -> Result<LocalMr, Rejected<(Adoption, K)>> {
        if let Err(error) = self.check() {
            return Err(Rejected::new((adoption, keepalive), error));
        }
        // SAFETY: ADOPT-1, ADOPT-2, ADOPT-3, as required of the caller.
        let adopted = unsafe { Registration::adopt(registrar, adoption, keepalive, self.access) };
        Ok(self.region(adopted?, false))
    }

    /// Memory of that length, mapped and registered.
    pub(super) fn map(
        &self,
        registrar: &Arc<dyn Registrar>,
        length: usize,
    ) -> Result<RegistrationRef> {
        let memory = Memory::new(Mapping::new(length, self.pages)?)?;
        Ok(Registration::of(
            Arc::clone(registrar),
            memory,
            self.access,
        )?)
    }

    /// A gate for a region of its own.
    pub(super) fn gate(&self) -> Gate {
        let gate = Gate::with_patience(self.patience);
        match self.read_bias {
            Some(bias) => gate.with_read_bias(bias),
            None => gate,
        }
    }

    /// The region of a registration made just now, which has room for it.
    fn region(&self, registered: RegistrationRef, shared: bool) -> LocalMr {
        let mut traits = Traits::empty();
        traits.set(Traits::SHARED, shared);
        traits.set(Traits::REMOTE_WRITE_GRANTED, self.remote_write_granted);
        // SAFETY: REGN-2: made just now.
        let bytes = unsafe { registered.get() }.bytes();
        let region = Region::new(self.gate(), traits, bytes, registered);
        // SAFETY: REGION-8: vacant, and there as long as the registration.
        LocalMr::new(unsafe { RegionRef::settle(registered.room(), region) })
    }

    pub(super) fn check(&self) -> Result<()> {
        self.access.validate()?;
        if self.access.lets_peers_write() && !self.remote_write_granted {
            return Err(Error::RemoteWriteNeedsUnsafe {
                access: self.access,
            });
        }
        Ok(())
    }
}
