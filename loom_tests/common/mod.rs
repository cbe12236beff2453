//! What the models share: how they are explored, the bytes, a registrar that counts.
#![allow(dead_code, reason = "each model uses some of it")]

pub mod device;
mod explore;
pub mod keys;
pub mod nic;
pub mod queues;
mod stacks;

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

#[allow(unused_imports, reason = "as above")]
pub use explore::{exhaust, explore};
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use rdma_mr::registration::{Deregister, Registered, Registrar as IsRegistrar};
use rdma_mr::{Access, LocalMr};

/// Dropped, unless the model has failed: a drop would ask loom once more then, and abort.
pub struct Kept<T>(ManuallyDrop<T>);

impl<T> Kept<T> {
    pub fn new(value: T) -> Self {
        Kept(ManuallyDrop::new(value))
    }

    pub fn take(self) -> T {
        let mut kept = ManuallyDrop::new(self);
        // SAFETY: it is not dropped after this.
        unsafe { ManuallyDrop::take(&mut kept.0) }
    }
}

impl<T> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: this is its only drop.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// The bytes of a region: loom reports any two accesses that race.
pub struct Bytes(UnsafeCell<u64>);

// SAFETY: accesses are meant to be ordered by a gate; loom fails the model where they are not.
unsafe impl Sync for Bytes {}

impl Bytes {
    pub fn new() -> Self {
        Bytes(UnsafeCell::new(0))
    }

    pub fn read(&self) -> u64 {
        // SAFETY: as for Sync above.
        self.0.with(|bytes| unsafe { *bytes })
    }

    pub fn write(&self, value: u64) {
        // SAFETY: as for Sync above.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }

    pub fn add(&self, value: u64) {
        // SAFETY: as for Sync above.
        self.0.with_mut(|bytes| unsafe { *bytes += value });
    }

    /// What is in memory that was freed.
    pub const GONE: u64 = u64::MAX;

    /// Where they are, for who registers them.
    pub fn address(&self) -> *mut u8 {
        self.0.with_mut(|bytes| bytes.cast())
    }

    /// What is read through a pointer that an accessor or a work request gave.
    pub fn read_at(&self, at: *const u8) -> u64 {
        self.0.with(|bytes| {
            assert_eq!(at, bytes.cast(), "a pointer to other bytes");
            // SAFETY: as for Sync above; it is a pointer to these.
            let seen = unsafe { at.cast::<u64>().read() };
            assert_ne!(seen, Self::GONE, "bytes that are no more");
            seen
        })
    }

    /// Writes through such a pointer.
    pub fn write_at(&self, at: *mut u8, value: u64) {
        self.0.with_mut(|bytes| {
            assert_eq!(at, bytes.cast(), "a pointer to other bytes");
            // SAFETY: as for Sync above; it is a pointer to these.
            let before = unsafe { at.cast::<u64>().replace(value) };
            assert_ne!(before, Self::GONE, "bytes that are no more");
        });
    }
}

/// For models that must fail: nothing is dropped in the panic, which would ask loom once more.
pub fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// Registers nothing, and counts how many registrations were ended.
pub struct Registrar {
    pub ended: Arc<AtomicUsize>,
}

impl Registrar {
    pub fn new() -> Arc<Self> {
        Arc::new(Registrar {
            ended: Arc::default(),
        })
    }
}

/// Regions that nobody has.
pub fn regions<const N: usize>() -> [LocalMr; N] {
    let registrar = Registrar::new();
    std::array::from_fn(|_| LocalMr::register(&registrar, vec![0u8; 8]).unwrap())
}

/// A way for the numbers of work requests from thread to thread. Its edge is what the model gives it:
/// that of a NIC (AX-1, AX-2), or none, so that only the crate's own edges hand anything on.
pub struct Wire {
    places: [AtomicU64; 4],
    edge: bool,
}

impl Wire {
    pub fn new(edge: bool) -> Arc<Self> {
        Arc::new(Wire {
            places: std::array::from_fn(|_| AtomicU64::new(0)),
            edge,
        })
    }

    pub fn put(&self, at: usize, wr_id: u64) {
        self.places[at].store(wr_id, if self.edge { Release } else { Relaxed });
    }

    /// The number, if it is there.
    pub fn look(&self, at: usize) -> Option<u64> {
        let wr_id = self.places[at].load(if self.edge { Acquire } else { Relaxed });
        (wr_id != 0).then_some(wr_id)
    }

    /// Waits for it.
    pub fn take(&self, at: usize) -> u64 {
        insist(|| self.look(at))
    }
}

/// Calls `attempt` until it has a result, and lets the others go on in between.
pub fn insist<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        loom::thread::yield_now();
    }
}

struct Handle(Arc<AtomicUsize>);

// SAFETY: REG-1 to REG-3: there is no NIC.
unsafe impl IsRegistrar for Registrar {
    unsafe fn register(&self, _: NonNull<u8>, _: usize, _: Access) -> io::Result<Registered> {
        Ok(Registered {
            lkey: 1,
            rkey: 2,
            handle: Box::new(Handle(Arc::clone(&self.ended))),
        })
    }
}

// SAFETY: DEREG-1 to DEREG-3: there is no NIC.
unsafe impl Deregister for Handle {
    fn deregister(&mut self) -> io::Result<()> {
        self.0.fetch_add(1, Relaxed);
        Ok(())
    }
}
