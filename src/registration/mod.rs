//! What a region is registered as: the memory, the NIC's registration over it, and its state as a
//! snapshot that readers load without ever waiting (rules R7, R8, R14).
//!
//! One registration is shared by all regions that were split from one; the last of them ends it.

mod access;
mod inner;
mod memory;
mod registrar;

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;

pub use access::Access;
pub use inner::{InnerCell, LocalMrInner};
pub use memory::{Mapping, Memory, Pages, StableMemory};
pub use registrar::{Deregister, Registered, Registrar};

use crate::error::{Error, Rejected, Result};
use crate::leaks;

/// Memory registered with a NIC. Dropped, it deregisters and then frees (R14); if the provider
/// refuses, memory and registrar are leaked and counted, because the NIC may still touch the bytes.
pub(crate) struct Registration {
    inner: InnerCell,
    memory: ManuallyDrop<Memory>,
    /// Dropped after the registration has ended: a protection domain outlives its registrations.
    registrar: ManuallyDrop<Arc<dyn Registrar>>,
}

impl Registration {
    /// Registers `memory`, with rights that were validated; hands it back with the reason if that
    /// fails.
    pub(crate) fn new(
        registrar: Arc<dyn Registrar>,
        memory: Memory,
        access: Access,
    ) -> Result<Self, Rejected<Memory>> {
        let (addr, length) = (memory.addr(), memory.length());
        // SAFETY: REG-4: `memory` is stable (MEM-1) and writable (MEM-4), and it is kept here until
        // the handle has deregistered: by `end`, or leaked for good.
        match unsafe { registrar.register(addr, length, access) } {
            Ok(registered) => Ok(Registration {
                inner: InnerCell::new(addr, length, access, registered),
                memory: ManuallyDrop::new(memory),
                registrar: ManuallyDrop::new(registrar),
            }),
            Err(error) => Err(Rejected::new(memory, Error::Register(error))),
        }
    }

    /// The state, as a snapshot.
    #[inline]
    pub(crate) fn inner(&self) -> &InnerCell {
        &self.inner
    }

    /// Deregisters; if the provider refuses, the registration is in force as before. Once ended,
    /// nothing more is done.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.inner.deregister()
    }

    /// The memory of a registration that has [ended](Self::end).
    pub(crate) fn into_memory(self) -> Memory {
        assert!(self.inner.has_ended());
        let mut ended = ManuallyDrop::new(self);
        // SAFETY: REGN-1: `ended` is not used, nor dropped, after its fields were taken.
        unsafe {
            let memory = ManuallyDrop::take(&mut ended.memory);
            std::ptr::drop_in_place(&raw mut ended.inner);
            ManuallyDrop::drop(&mut ended.registrar);
            memory
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        match self.end() {
            // SAFETY: REGN-1: the fields are not used after this; DEREG-1: nor the memory by the NIC.
            Ok(()) => unsafe {
                ManuallyDrop::drop(&mut self.memory);
                ManuallyDrop::drop(&mut self.registrar);
            },
            Err(_) => leaks::registration(self.memory.length()),
        }
    }
}
