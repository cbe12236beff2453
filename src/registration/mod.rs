//! What a region is registered as: the memory, the NIC's registration over it, and its state as a
//! snapshot that readers load without ever waiting (rules R7, R8, R14).
//!
//! One registration is shared by all regions that were split from one; the last of them ends it.

mod access;
mod adopt;
mod inner;
mod memory;
mod place;
mod region;
mod regions;
mod registrar;
mod retire;
mod roll;

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

pub use access::Access;
pub use inner::{InnerCell, LocalMrInner};
pub use memory::{Mapping, Memory, Pages, StableMemory};
pub use registrar::{Adoption, AtomicCap, Deregister, Registered, Registrar};
pub use retire::Retire;

pub(crate) use adopt::Nobody;
pub(crate) use place::RegistrationRef;
use place::Room;
pub(crate) use region::{Region, Traits};
use regions::Regions;
use roll::Member;

use crate::counts;
use crate::error::{Error, Rejected, Result};
use crate::gate::Busy;
use crate::trace;

/// Memory registered with a NIC. Dropped, it deregisters and then frees (R14); if the provider
/// refuses, memory and registrar are leaked and counted, because the NIC may still touch the bytes.
///
/// Its first region lies in it: what is rarely used is in front of that one's lines and behind them, and
/// the keys are in the second line.
#[repr(C)]
pub(crate) struct Registration {
    /// Dropped after the registration has ended: a protection domain outlives its registrations.
    registrar: ManuallyDrop<Arc<dyn Registrar>>,
    room: Room,
    inner: InnerCell,
    regions: Regions,
}

const _: () = assert!(std::mem::offset_of!(Registration, room) == Region::FRONT);

impl Registration {
    /// Registers `memory`, with rights that were validated; hands it back with the reason if that
    /// fails.
    pub(crate) fn of(
        registrar: Arc<dyn Registrar>,
        memory: Memory,
        access: Access,
    ) -> Result<RegistrationRef, Rejected<Memory>> {
        let (addr, length) = (memory.addr(), memory.length());
        // SAFETY: REG-4: `memory` is stable (MEM-1) and writable (MEM-4), and it is kept here until
        // the handle has deregistered: by `end`, or leaked for good.
        match unsafe { registrar.register(addr, length, access) } {
            Ok(registered) => Ok(Self::in_force(registrar, memory, access, registered)),
            Err(error) => {
                trace::registration_refused(addr.as_ptr() as usize, length, &error);
                Err(Rejected::new(memory, Error::Register(error)))
            }
        }
    }

    fn in_force(
        registrar: Arc<dyn Registrar>,
        memory: Memory,
        access: Access,
        registered: Registered,
    ) -> RegistrationRef {
        let Registered { lkey, rkey, handle } = registered;
        let (addr, length) = (memory.addr().as_ptr() as usize, memory.length());
        trace::registered(addr, length, lkey, rkey, access);
        RegistrationRef::new(Registration {
            registrar: ManuallyDrop::new(registrar),
            room: Room::new(),
            inner: InnerCell::new(memory, (lkey, rkey), access),
            regions: Regions::new(handle),
        })
    }

    /// Address and length of the memory.
    pub(crate) fn bytes(&self) -> (NonNull<u8>, usize) {
        let memory = &self.inner.memory;
        (memory.addr(), memory.length())
    }

    /// The state, as a snapshot.
    #[inline]
    pub(crate) fn inner(&self) -> &InnerCell {
        &self.inner
    }

    /// How the NIC's atomics relate to the CPU's.
    pub(crate) fn atomic_cap(&self) -> AtomicCap {
        self.registrar.atomic_cap()
    }

    /// A region of this registration.
    ///
    /// # Safety
    /// - **ROLL-1**: the member stays where it is until it is [struck off](RegistrationRef::strike).
    pub(crate) unsafe fn enlist(&self, member: NonNull<Member>) {
        // SAFETY: ROLL-1, as required of the caller.
        unsafe { self.regions.enlist(member) };
    }

    /// How many regions it has beside the caller's. None: nobody else uses it, and what they did is visible.
    pub(crate) fn others(&self) -> usize {
        self.regions.others()
    }

    /// Registers some of the memory once more, with rights that were validated. Blocks in the kernel.
    ///
    /// # Safety
    /// - **REG-4**: the bytes are of this memory, and it is not freed before the handle has
    ///   deregistered; nor is the registrar.
    pub(crate) unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> Result<Registered> {
        // SAFETY: REG-4, as required of the caller.
        unsafe { self.registrar.register(addr, length, access) }.map_err(|error| {
            trace::registration_refused(addr.as_ptr() as usize, length, &error);
            Error::Register(error)
        })
    }

    /// Registers the memory once more, with those rights, which were validated, and publishes that.
    /// What was in force before is retired. Blocks in the kernel.
    pub(crate) fn rotate(&self, access: Access) -> Result<()> {
        let (addr, length) = self.bytes();
        // SAFETY: REG-4: as in `of`.
        let Registered { lkey, rkey, handle } = unsafe { self.register(addr, length, access) }?;
        let publish = || self.inner.publish((lkey, rkey), access);
        self.regions.replace(handle, publish);
        counts::rotation();
        trace::rotated(addr.as_ptr() as usize, length, lkey, rkey, access);
        Ok(())
    }

    /// Deregisters what is retired and not used any more. Does not wait for operations; blocks in the
    /// kernel. `Err` in the inside: an operation that is waited for.
    pub(crate) fn try_retire(&self) -> Result<Result<(), Busy>> {
        let (over, advanced) = self.regions.retired();
        let count = over.len();
        let (refused, last) = end_all(over);
        self.tell_ended(count - refused.len(), last.as_ref());
        if let Some(error) = last {
            self.regions.put_back(refused);
            return Err(Error::Deregister(error));
        }
        Ok(advanced)
    }

    /// How many registrations of the memory there are: the one in force, and those that are retired
    /// and not ended yet.
    pub(crate) fn count(&self) -> usize {
        self.regions.count()
    }

    /// As [`count`](Self::count), for who may not wait.
    pub(crate) fn try_count(&self) -> Option<usize> {
        self.regions.try_count()
    }

    /// Deregisters all, the one in force last; if the provider refuses one, those that are left are in
    /// force as before. Once ended, nothing more is done.
    ///
    /// # Safety
    /// - **ROLL-4**: the caller has all regions of the registration, and no operation is in flight.
    pub(crate) unsafe fn end(&self) -> io::Result<()> {
        // SAFETY: ROLL-4, as required of the caller.
        let ended = unsafe { self.regions.end() };
        self.tell_ended(usize::from(ended.is_ok()), ended.as_ref().err());
        ended
    }

    /// So many registrations of the memory have been ended, and the provider refused to end another.
    fn tell_ended(&self, count: usize, refused: Option<&io::Error>) {
        let (addr, length) = self.bytes();
        let addr = addr.as_ptr() as usize;
        if count > 0 {
            trace::deregistered(addr, length, count);
        }
        if let Some(error) = refused {
            trace::deregistration_refused(addr, length, error);
        }
    }

    /// The memory of a registration that has [ended](Self::end).
    pub(crate) fn into_memory(self) -> Memory {
        // SAFETY: ROLL-4: it is owned. Nothing is done if it has ended.
        assert!(unsafe { self.regions.end() }.is_ok());
        let mut ended = ManuallyDrop::new(self);
        // SAFETY: REGN-1: `ended` is not used, nor dropped, after its fields were taken.
        unsafe {
            let memory = ManuallyDrop::take(&mut ended.inner.memory);
            std::ptr::drop_in_place(&raw mut ended.inner);
            std::ptr::drop_in_place(&raw mut ended.regions);
            ManuallyDrop::drop(&mut ended.registrar);
            memory
        }
    }
}

/// Ends them; gives those that the provider refuses to, and its last word.
fn end_all(handles: Vec<Box<dyn Deregister>>) -> (Vec<Box<dyn Deregister>>, Option<io::Error>) {
    let mut last = None;
    let refused = handles.into_iter().filter_map(|mut handle| {
        last = Some(handle.deregister().err()?);
        Some(handle)
    });
    (refused.collect(), last)
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: ROLL-4: the last region is gone.
        match unsafe { self.end() } {
            // SAFETY: REGN-1: the fields are not used after this; DEREG-1: nor the memory by the NIC.
            Ok(()) => unsafe {
                ManuallyDrop::drop(&mut self.inner.memory);
                ManuallyDrop::drop(&mut self.registrar);
            },
            Err(_) => {
                let (addr, length) = self.bytes();
                counts::leaked_registration(length);
                trace::leaked_registration(addr.as_ptr() as usize, length);
            }
        }
    }
}
