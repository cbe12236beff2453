//! Stacks that are used again. loom makes one for each thread of each execution, by `mmap`, `mprotect` and `munmap`, and
//! half of a model's time was the kernel's for that. So this program has these functions itself, before libc's: a
//! stack of loom's usual size is one of a few that are there already, with their guard pages; all else is the kernel's.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::{c_int, c_long, c_void};
use std::ptr::with_exposed_provenance_mut;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What loom's runtime asks for: 4096 words, and a page that guards them.
const SIZE: usize = 8 * 4096 + PAGE;
const PAGE: usize = 4096;
/// More than there are threads in the models that run at a time.
const COUNT: usize = u64::BITS as usize;

// The kernel's numbers of the calls, and their flags.
const SYS_MMAP: c_long = 9;
const SYS_MPROTECT: c_long = 10;
const SYS_MUNMAP: c_long = 11;
const READ_WRITE: c_long = 1 | 2;
const PRIVATE_ANONYMOUS: c_long = 0x02 | 0x20;
const STACK: c_long = 0x2_0000;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// A bit for each stack that nobody has.
static FREE: AtomicU64 = AtomicU64::new(u64::MAX);

/// Where they lie, side by side, each above its guard; `None` where there is no memory for them.
static PLACE: LazyLock<Option<usize>> = LazyLock::new(|| {
    let length = SIZE * COUNT;
    let kind = PRIVATE_ANONYMOUS | STACK;
    // SAFETY: a mapping of its own, anywhere.
    let place = unsafe {
        syscall(
            SYS_MMAP, 0_usize, length, READ_WRITE, kind, -1_isize, 0_usize,
        )
    };
    let place = usize::try_from(place).ok()?;
    let guard = |stack: usize| {
        // SAFETY: the lowest page of each, which nobody uses.
        0 == unsafe { syscall(SYS_MPROTECT, place + stack * SIZE, PAGE, 0_usize) }
    };
    (0..COUNT).all(guard).then_some(place)
});

/// Which stack lies at that address.
fn stack_at(address: usize) -> Option<usize> {
    let offset = address.checked_sub((*PLACE)?)?;
    (offset < SIZE * COUNT).then_some(offset / SIZE)
}

/// One that nobody has.
fn take() -> Option<usize> {
    let place = (*PLACE)?;
    // Ordering: Acquire, with the Release of `munmap`: whoever had it has left it. The failure only looks.
    let free = FREE.fetch_update(Acquire, Relaxed, |free| {
        (free != 0).then(|| free & (free - 1))
    });
    Some(place + free.ok()?.trailing_zeros() as usize * SIZE)
}

/// # Safety
///
/// As `mmap(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: c_long,
) -> *mut c_void {
    let [protection, flags, file] = [protection, flags, file].map(c_long::from);
    if flags & STACK != 0
        && length == SIZE
        && let Some(stack) = take()
    {
        return with_exposed_provenance_mut(stack);
    }
    // SAFETY: as required of the caller. It sets errno as the C library's `mmap` does.
    let mapped = unsafe { syscall(SYS_MMAP, address, length, protection, flags, file, offset) };
    with_exposed_provenance_mut(mapped as usize)
}

/// # Safety
///
/// As `mprotect(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mprotect(address: *mut c_void, length: usize, protection: c_int) -> c_int {
    // It has its guard.
    if stack_at(address.addr()).is_some() {
        return 0;
    }
    // SAFETY: as required of the caller.
    unsafe { syscall(SYS_MPROTECT, address, length, c_long::from(protection)) as c_int }
}

/// # Safety
///
/// As `munmap(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(address: *mut c_void, length: usize) -> c_int {
    if let Some(stack) = stack_at(address.addr()) {
        // Ordering: Release, with the Acquire of `take`.
        FREE.fetch_or(1 << stack, Release);
        return 0;
    }
    // SAFETY: as required of the caller.
    unsafe { syscall(SYS_MUNMAP, address, length) as c_int }
}
