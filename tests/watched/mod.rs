//! A registrar whose registrations are seen, for tests that have to know what ends, and when.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mr::Access;
use rdma_mr::registration::{AtomicCap, Registered, Registrar};

/// What happens to a registration, which is told apart by its local key.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Registered {
        key: u32,
        addr: usize,
        length: usize,
    },
    /// It is about to be ended. An error is the provider's refusal: it stays in force.
    Ends { key: u32 },
    /// The provider has ended it.
    Ended { key: u32 },
}

type Tell = dyn Fn(Event) -> io::Result<()> + Send + Sync;

/// A protection domain that tells of its registrations.
pub struct Watched<P> {
    pd: Arc<P>,
    tell: Arc<Tell>,
}

impl<P> Watched<P> {
    /// What `tell` says counts for [`Event::Ends`] alone.
    pub fn new(
        pd: Arc<P>,
        tell: impl Fn(Event) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let tell = Arc::new(tell);
        Arc::new(Watched { pd, tell })
    }
}

// SAFETY: REG-1, REG-2, REG-3, REG-5: as of the domain.
unsafe impl<P: Registrar> Registrar for Watched<P> {
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        length: usize,
        access: Access,
    ) -> io::Result<Registered> {
        // SAFETY: REG-4, as required of the caller.
        let registered = unsafe { self.pd.register(addr, length, access) }?;
        let (key, rkey) = (registered.lkey, registered.rkey);
        let (tell, mut handle) = (self.tell.clone(), registered.handle);
        let addr = addr.as_ptr() as usize;
        let _ = tell(Event::Registered { key, addr, length });
        let end = move || {
            tell(Event::Ends { key })?;
            handle.deregister()?;
            let _ = tell(Event::Ended { key });
            Ok(())
        };
        // SAFETY: DEREG-1, DEREG-2, DEREG-3: as of the domain's own handle; refused by `tell`, nothing
        // was done.
        Ok(unsafe { Registered::ended_by(key, rkey, end) })
    }

    fn atomic_cap(&self) -> AtomicCap {
        self.pd.atomic_cap()
    }
}
