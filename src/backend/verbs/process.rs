//! What a process has to know of registered memory: `fork`, and how much may be locked.

use std::io;

use rdma_sys::{IBV_FORK_ENABLED, IBV_FORK_UNNEEDED, ibv_fork_init, ibv_is_fork_initialized};

use super::check;
use crate::error::Result;

/// What becomes of registered memory when the process forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Forking {
    /// It must not fork while memory is registered, unless the child does nothing but `exec`: the pages that
    /// the parent writes to after that are new ones, and the NIC goes on with the old ones.
    Forbidden,
    /// The child does not have the pages of registered memory (`MADV_DONTFORK`): touching them there is a
    /// fault, and so is touching what shares a page with them. The parent goes on as before.
    Withheld,
    /// The kernel copies these pages for the child (since Linux 5.12): it sees what was there at the fork,
    /// as of other memory. The parent goes on as before.
    Copied,
}

/// Makes it safe to fork while memory is registered (`ibv_fork_init`), for the whole process. To be called
/// before anything is registered; costs a system call for each registration from then on. Where the kernel
/// [copies](Forking::Copied) there is nothing to do, and nothing is done: `ibv_fork_init` by itself would
/// withhold the pages there as well.
///
/// Whatever comes of it, a child must not use the parent's devices, queues, regions or gates: as of locks,
/// nobody gives back there what other threads held at the fork.
///
/// # Errors
/// [`Error::Provider`](crate::Error::Provider), for example if memory has been registered already.
///
/// ```no_run
/// use rdma_mr::backend::verbs::{Forking, fork_init, forking};
///
/// fork_init()?;
/// assert_ne!(forking(), Forking::Forbidden);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
pub fn fork_init() -> Result<()> {
    if forking() == Forking::Copied {
        return Ok(());
    }
    // SAFETY: it may be called at any time.
    check("ibv_fork_init", unsafe { ibv_fork_init() })
}

/// What was made of it (`ibv_is_fork_initialized`).
#[must_use]
pub fn forking() -> Forking {
    // SAFETY: it may be called at any time.
    match unsafe { ibv_is_fork_initialized() } {
        IBV_FORK_ENABLED => Forking::Withheld,
        IBV_FORK_UNNEEDED => Forking::Copied,
        _ => Forking::Forbidden,
    }
}

/// The error of a registration of that many bytes; if the system has not got the memory, or may not lock it,
/// with what can be done.
pub(super) fn refused(length: usize) -> io::Error {
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOMEM) {
        return error;
    }
    let limit = match memory_lock_limit() {
        Some(limit) => format!("{limit} bytes"),
        None => "no limit".to_owned(),
    };
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "{error}: {length} bytes more are too many for the device, or to be locked (RLIMIT_MEMLOCK: {limit}, for \
             all that the process has registered): raise it (`ulimit -l`, LimitMEMLOCK=), or end registrations"
        ),
    )
}

/// How much memory may be locked by a process without `CAP_IPC_LOCK`, in bytes.
fn memory_lock_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is one to a `rlimit`.
    let ret = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (ret == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
