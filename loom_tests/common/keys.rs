//! Registrations that can be seen to have ended.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use rdma_mr::op::Hold;
use rdma_mr::registration::{Deregister, Registered, Registrar};
use rdma_mr::{Access, MrOptions};

/// Whoever waits parks at once.
pub fn parking() -> MrOptions {
    let patience = rdma_mr::gate::Patience {
        spin: std::time::Duration::ZERO,
        ..Default::default()
    };
    MrOptions::new().patience(patience)
}

/// The registrations that there have been, by their keys: whether each has ended.
pub struct Keys {
    ended: [UnsafeCell<bool>; 4],
    next: AtomicU32,
}

// SAFETY: that they are used in order is what loom is asked.
unsafe impl Sync for Keys {}
// SAFETY: as above.
unsafe impl Send for Keys {}

impl Keys {
    pub fn new() -> Arc<Self> {
        Arc::new(Keys {
            ended: std::array::from_fn(|_| UnsafeCell::new(false)),
            next: AtomicU32::new(0),
        })
    }

    /// What the NIC does with a work request that names the key.
    pub fn use_key(&self, hold: &Hold) {
        self.ended[hold.sge().lkey as usize].with(|ended| {
            // SAFETY: as for Sync above.
            assert!(!unsafe { *ended }, "a key that is no more");
        });
    }

    /// Whether the registration with that key has ended; for who comes after that, or has it still.
    pub fn has_ended(&self, key: u32) -> bool {
        // SAFETY: as for Sync above.
        self.ended[key as usize].with(|ended| unsafe { *ended })
    }
}

/// Registers nothing, under a key of its own each time.
pub struct Pd(pub Arc<Keys>);

// SAFETY: REG-1 to REG-3: there is no NIC.
unsafe impl Registrar for Pd {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        let key = self.0.next.fetch_add(1, Relaxed);
        Ok(Registered {
            lkey: key,
            rkey: key,
            handle: Box::new(Handle(Arc::clone(&self.0), key)),
        })
    }
}

struct Handle(Arc<Keys>, u32);

// SAFETY: DEREG-1 to DEREG-3: there is no NIC.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        self.0.ended[self.1 as usize].with_mut(|ended| {
            // SAFETY: as for Sync of `Keys`.
            let before = std::mem::replace(unsafe { &mut *ended }, true);
            assert!(!before, "it has ended already");
        });
        Ok(())
    }
}
