//! A fence whose price one side pays for both: `light` on the way that is taken often, `heavy` on the one
//! that is rare. Each `light` of any thread is, for each `heavy`, as a SeqCst fence is for another one (AX-8).

use std::sync::atomic::compiler_fence;

use super::{Ordering, fence};
pub(crate) use imp::prepare;

#[inline]
pub(crate) fn light() {
    if imp::is_left_to_heavy() {
        // Ordering: SeqCst, of the compiler's: what the program says is left in its order.
        compiler_fence(Ordering::SeqCst);
    } else {
        // Ordering: SeqCst pairs with `heavy`.
        fence(Ordering::SeqCst);
    }
}

#[cold]
pub(crate) fn heavy() {
    if !imp::fence_all() {
        // Ordering: SeqCst pairs with `light`.
        fence(Ordering::SeqCst);
    }
}

/// By `membarrier(2)`: the kernel has all running threads of the process pass a fence.
#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod imp {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

    static LEFT: AtomicBool = AtomicBool::new(false);

    /// Whether the kernel does it; asked once. From then on `light` may rely on that.
    static REGISTERED: LazyLock<bool> = LazyLock::new(|| {
        let needed =
            MembarrierQuery::PRIVATE_EXPEDITED | MembarrierQuery::REGISTER_PRIVATE_EXPEDITED;
        let registered = membarrier_query().contains(needed)
            && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
        // Ordering: Relaxed. Whoever does not see it has a fence.
        LEFT.store(registered, Ordering::Relaxed);
        registered
    });

    /// From now on `light` costs next to nothing, if the kernel does its part.
    pub(crate) fn prepare() {
        LazyLock::force(&REGISTERED);
    }

    #[inline]
    pub(super) fn is_left_to_heavy() -> bool {
        // Ordering: Relaxed, as above.
        LEFT.load(Ordering::Relaxed)
    }

    /// `false` if the kernel does not do that.
    pub(super) fn fence_all() -> bool {
        if *REGISTERED && let Err(error) = membarrier(MembarrierCommand::PrivateExpedited) {
            // Other threads have relied on it, and nothing else orders what they did.
            eprintln!("rdma-mr: membarrier(2) worked before and fails now: {error}");
            std::process::abort();
        }
        *REGISTERED
    }
}

/// Both sides pay.
#[cfg(any(not(target_os = "linux"), loom, shuttle))]
mod imp {
    pub(crate) fn prepare() {}

    pub(super) const fn is_left_to_heavy() -> bool {
        false
    }

    pub(super) const fn fence_all() -> bool {
        false
    }
}
