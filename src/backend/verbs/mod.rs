//! Real devices through `rdma-sys`: what the verbs and the connection manager offer, as owned
//! types. Knows nothing of regions or gates; every call into libibverbs or librdmacm is here.
//!
//! | type | verbs behind it |
//! |---|---|
//! | [`devices`], [`Context`] | `ibv_get_device_list`, `ibv_open_device`, `ibv_query_device` |
//! | [`ProtectionDomain`] | `ibv_alloc_pd`, `ibv_reg_mr`, `ibv_dereg_mr`; or adopted |
//! | [`owned_mr`], [`lent_mr`] | an `ibv_mr` that other code registered; `ibv_dereg_mr` |
//! | [`CompletionQueue`] | `ibv_create_cq`, `ibv_poll_cq`, completion channels |
//! | [`QueuePair`] | `ibv_create_qp` (RC), `ibv_modify_qp`, `ibv_post_send`, `ibv_post_recv` |
//! | [`SharedRecvQueue`] | `ibv_create_srq`, `ibv_post_srq_recv` |
//! | [`fork_init`], [`forking`] | `ibv_fork_init`, `ibv_is_fork_initialized` |
//! | [`cm`] | `rdma_listen`, `rdma_connect` and what lies between them |
//!
//! # Who keeps what alive
//! A [`QueuePair`] keeps its queues (a shared one as well) and its protection domain, those keep the [`Context`]: things
//! are destroyed in the order that the verbs demand whatever order they are dropped in. What the
//! provider refuses to destroy in a `Drop` is leaked, together with what it stands on, and counted
//! in [`leaked`]; nothing panics there.
//!
//! # Threads
//! All types are `Send` and `Sync`: the verbs may be called from any thread at the same time, the
//! providers lock their queues (unless told not to, as by `MLX5_SINGLE_THREADED`: don't). Nothing
//! here blocks except where the docs say so. A process that forks while memory is registered calls
//! [`fork_init`] first.
//!
//! ```no_run
//! use rdma_mr::backend::verbs::Context;
//!
//! # fn main() -> rdma_mr::Result<()> {
//! let context = Context::open(None)?;
//! println!("{}: {:?}", context.name(), context.limits());
//! let pd = context.alloc_pd()?; // registers memory: it is a `Registrar`
//! # let _ = pd; Ok(()) }
//! ```

pub mod cm;
mod connect;
mod cq;
mod device;
mod mr;
mod os;
mod pd;
mod port;
mod post;
mod process;
mod qp;
mod srq;
mod wr;

pub use crate::registration::AtomicCap;
pub use crate::work::QpState;
pub use cq::CompletionQueue;
pub use device::{AsyncEvent, Context, DeviceInfo, Limits, devices};
pub use mr::{lent_mr, owned_mr};
pub use pd::ProtectionDomain;
pub use port::Port;
pub use process::{Forking, fork_init, forking};
pub use qp::{QpAddress, QueuePair};
/// The sys crate whose types the `as_raw` methods speak.
pub use rdma_sys as sys;
pub use srq::SharedRecvQueue;

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

static LEAKED: AtomicU64 = AtomicU64::new(0);

/// How many objects (device contexts, protection domains, registrations, queues, connections) this
/// process has leaked because the provider refused to destroy them, or because a registration's
/// handle was dropped without being deregistered. Only ever grows; 0 in a program that is well.
#[must_use]
pub fn leaked() -> u64 {
    // Ordering: Relaxed, a statistic; it orders nothing.
    LEAKED.load(Ordering::Relaxed)
}

/// Counts one leaked object.
fn note_leak() {
    // Ordering: Relaxed, a statistic; it orders nothing.
    LEAKED.fetch_add(1, Ordering::Relaxed);
}

/// The error in a verbs call's return value: an errno, or -1 with the real one in `errno`.
fn code(ret: c_int) -> io::Error {
    if ret > 0 {
        io::Error::from_raw_os_error(ret)
    } else {
        io::Error::last_os_error()
    }
}

/// Turns a return value in which 0 means success into a result.
fn check(call: &'static str, ret: c_int) -> Result<()> {
    if ret == 0 {
        Ok(())
    } else {
        Err(Error::Provider {
            call,
            source: code(ret),
        })
    }
}

/// The error of a call that sets `errno`.
fn last_error(call: &'static str) -> Error {
    Error::Provider {
        call,
        source: io::Error::last_os_error(),
    }
}

/// An error that was noticed here, about arguments of `call`.
fn invalid(call: &'static str, why: impl Into<String>) -> Error {
    failed(call, io::ErrorKind::InvalidInput, why)
}

/// An error of `call` in our own words.
fn failed(call: &'static str, kind: io::ErrorKind, why: impl Into<String>) -> Error {
    Error::Provider {
        call,
        source: io::Error::new(kind, why.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_go_between_threads() {
        fn both<T: Send + Sync>() {}
        both::<Context>();
        both::<ProtectionDomain>();
        both::<CompletionQueue>();
        both::<QueuePair>();
        both::<SharedRecvQueue>();
        both::<cm::Listener>();
        both::<cm::Request>();
        both::<cm::Pending>();
        both::<cm::Connection>();
    }

    #[test]
    fn the_error_is_the_return_value_or_errno() {
        let busy = check("ibv_dealloc_pd", libc::EBUSY).unwrap_err();
        let text = busy.to_string();
        assert!(text.starts_with("ibv_dealloc_pd: "), "{text}");
        assert_eq!(io::Error::from(busy).kind(), io::ErrorKind::ResourceBusy);
        assert!(check("ibv_dealloc_pd", 0).is_ok());
    }
}
