//! What is held by one or by several, each with its two ways in: ours, those that would be used instead,
//! and the floors under them.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures_lite::future::block_on;
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;

/// Waits for the hold, does what is to be done under it, gives it back.
pub trait Rival: Sync {
    /// As an operation that writes, or who writes.
    fn exclusive(&self, held: impl FnOnce());
    /// As who reads.
    fn shared(&self, held: impl FnOnce());
}

/// A NIC write, and readers on the CPU.
impl Rival for LocalMr {
    fn exclusive(&self, held: impl FnOnce()) {
        let _hold = self.begin_write().unwrap();
        held();
    }

    fn shared(&self, held: impl FnOnce()) {
        let bytes = self.as_slice();
        black_box(bytes[0]);
        held();
    }
}

/// With readers that are futures.
pub struct Async<T>(pub T);

impl Rival for Async<LocalMr> {
    fn exclusive(&self, held: impl FnOnce()) {
        self.0.exclusive(held);
    }

    fn shared(&self, held: impl FnOnce()) {
        let bytes = block_on(self.0.as_slice_async());
        black_box(bytes[0]);
        held();
    }
}

impl Rival for parking_lot::RwLock<u64> {
    fn exclusive(&self, held: impl FnOnce()) {
        let _guard = self.write();
        held();
    }

    fn shared(&self, held: impl FnOnce()) {
        let value = self.read();
        black_box(*value);
        held();
    }
}

impl Rival for std::sync::RwLock<u64> {
    fn exclusive(&self, held: impl FnOnce()) {
        let _guard = self.write().unwrap();
        held();
    }

    fn shared(&self, held: impl FnOnce()) {
        let value = self.read().unwrap();
        black_box(*value);
        held();
    }
}

impl Rival for tokio::sync::RwLock<u64> {
    fn exclusive(&self, held: impl FnOnce()) {
        let _guard = self.blocking_write();
        held();
    }

    fn shared(&self, held: impl FnOnce()) {
        let value = self.blocking_read();
        black_box(*value);
        held();
    }
}

/// A word that writers exchange for a mark once no reader is counted in it, and try again until then. No
/// waiting, no fairness.
#[derive(Default)]
pub struct Exchanged(AtomicU64);

const WRITER: u64 = 1;
const READER: u64 = 2;

impl Rival for Exchanged {
    fn exclusive(&self, held: impl FnOnce()) {
        let Exchanged(word) = self;
        while word
            .compare_exchange_weak(0, WRITER, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            spin_loop();
        }
        held();
        word.fetch_and(!WRITER, Ordering::Release);
    }

    fn shared(&self, held: impl FnOnce()) {
        let Exchanged(word) = self;
        loop {
            if word.load(Ordering::Relaxed) & WRITER == 0 {
                if word.fetch_add(READER, Ordering::Acquire) & WRITER == 0 {
                    break;
                }
                word.fetch_sub(READER, Ordering::Relaxed);
            }
            spin_loop();
        }
        held();
        word.fetch_sub(READER, Ordering::Release);
    }
}

/// A word with one writer, which readers look at, and which nothing is counted in.
#[derive(Default)]
pub struct Looked(AtomicU32);

impl Rival for Looked {
    fn exclusive(&self, held: impl FnOnce()) {
        let Looked(word) = self;
        let free = word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        assert!(free.is_ok(), "there is one writer");
        held();
        word.store(0, Ordering::Release);
    }

    fn shared(&self, held: impl FnOnce()) {
        while self.0.load(Ordering::Acquire) != 0 {
            spin_loop();
        }
        held();
    }
}

/// As [`Looked`], but who finds it held sleeps in the kernel at once.
#[derive(Default)]
pub struct Futex(AtomicU32);

const FREE: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

impl Futex {
    fn call(&self, operation: libc::c_int, value: u32) {
        let flags = operation | libc::FUTEX_PRIVATE_FLAG;
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the word lives as long as the call, and the time is none.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), flags, value, forever) };
    }
}

impl Rival for Futex {
    fn exclusive(&self, held: impl FnOnce()) {
        let free = self
            .0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
        assert!(free.is_ok(), "there is one writer");
        held();
        if self.0.swap(FREE, Ordering::Release) == AWAITED {
            self.call(libc::FUTEX_WAKE, 1);
        }
    }

    fn shared(&self, held: impl FnOnce()) {
        loop {
            let seen = self
                .0
                .compare_exchange(HELD, AWAITED, Ordering::Acquire, Ordering::Acquire);
            match seen {
                Err(FREE) => break,
                _ => self.call(libc::FUTEX_WAIT, AWAITED),
            }
        }
        held();
    }
}
