//! Regions that other code has registered: their memory, and who registers it no more.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{
    Access, Adoption, Memory, Registered, Registrar, Registration, RegistrationRef, StableMemory,
};
use crate::error::Rejected;

/// The memory of an adopted region, with what keeps it. Not public: who has the keepalive back has no
/// way to call it memory of this crate's.
pub(super) struct Adopted<K> {
    addr: *mut u8,
    length: usize,
    pub(super) keepalive: K,
}

// SAFETY: ADOPT-1: an address of bytes that the keepalive, which is Send, keeps; it is used as
// `StableMemory` says.
unsafe impl<K: Send> Send for Adopted<K> {}
// SAFETY: as above; a shared one gives no access to the bytes.
unsafe impl<K: Sync> Sync for Adopted<K> {}

// SAFETY: MEM-1, MEM-2, MEM-4 by ADOPT-1; MEM-3 by ADOPT-3.
unsafe impl<K: Send + Sync + 'static> StableMemory for Adopted<K> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.addr
    }

    fn length(&self) -> usize {
        self.length
    }
}

/// Stands for a registrar where there is none who could register the memory anew.
pub(crate) struct Nobody;

// SAFETY: REG-1, REG-2, REG-3: it registers nothing.
unsafe impl Registrar for Nobody {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        let why = "the region was adopted: only its owner can register it anew";
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}

impl Registration {
    /// Takes over what is registered already, with rights that were validated.
    ///
    /// # Safety
    /// - **ADOPT-1**, **ADOPT-2**, **ADOPT-3**.
    pub(crate) unsafe fn adopt<K: Send + Sync + 'static>(
        registrar: Arc<dyn Registrar>,
        adoption: Adoption,
        keepalive: K,
        access: Access,
    ) -> Result<RegistrationRef, Rejected<(Adoption, K)>> {
        let Adoption {
            addr,
            length,
            registered,
        } = adoption;
        let memory = Adopted {
            addr,
            length,
            keepalive,
        };
        match Memory::new(memory) {
            Ok(memory) => Ok(Self::in_force(registrar, memory, access, registered)),
            Err(Rejected { value, error }) => {
                let adoption = Adoption {
                    addr,
                    length,
                    registered,
                };
                Err(Rejected::new((adoption, value.keepalive), error))
            }
        }
    }
}
