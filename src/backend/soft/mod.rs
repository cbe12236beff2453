//! A NIC in software, in the process: the default backend. This file holds its documentation and
//! the public map, nothing else.
//!
//! It is a reliable-connected RNIC whose wire is a copy: protection domains, keys with bounds and
//! rights, queue pairs with the verbs' states, completion queues that can overrun, and the verbs'
//! status codes on the side where a real device reports them. Programs without RDMA hardware run on
//! it; tests, fuzzers and models decide with its [stepped mode](NicBuilder::stepped), its
//! [seed](NicBuilder::seed) and its [faults](Fault) when it acts and how it fails.
//!
//! # What it does as a device does
//! - Work requests of one queue pair are carried out in the order in which they were posted.
//!   Between queue pairs there is no order. Whoever sees bytes of a WRITE or the change of an atomic can
//!   see what the same queue pair did before.
//! - Keys and rights are checked when a work request is carried out, not when it is posted: the
//!   local key against the protection domain of the queue pair that posted
//!   ([`LocProtErr`](crate::work::WcStatus::LocProtErr)), the remote key against that of the peer
//!   ([`RemAccessErr`](crate::work::WcStatus::RemAccessErr)).
//! - Data moves in packets of [`MTU`] bytes, element by element. An operation that fails in the
//!   middle has written what came before (rule R12), and never a byte outside of what the key grants.
//! - An error moves the queue pair to `ERR`; what is outstanding there is flushed in order, the
//!   unsignalled ones too. A remote error moves the peer as well.
//! - Retries of a peer that is gone are not waited for: the work request fails with
//!   [`RetryExcErr`](crate::work::WcStatus::RetryExcErr) as soon as it is its turn.
//! - Queue pairs may take their receives from a [shared queue](SharedRecvQueue), and completion queues
//!   make [events](crate::work::CompletionEvents), with a descriptor for `epoll` on request.
//! - [`modify_to_error`](QueuePair::modify_to_error) returns while a message may still be landing.
//!   Deregistration and destruction wait for the packet under way, and only for that.
//!
//! # Memory
//! The NIC is treated as a device, as SAFETY.md says of real ones: it reads and writes registered
//! memory by volatile copies through raw pointers, never through a reference, and its 64-bit atomics
//! are real ones, so they agree with the CPU's on the same word. What a completion says is visible
//! to the thread that polled it. The NIC does not guard against a thread that touches bytes which it
//! is working on: in Rust's formal sense that would be a data race, and keeping it from happening is
//! the gate's task (and for a `SharedMr` the volatile accesses on both sides are what a CPU and a
//! device do to each other).
//!
//! # Example
//! ```
//! use rdma_mr::Access;
//! use rdma_mr::backend::soft::{Nic, QueuePair};
//! use rdma_mr::registration::{Deregister, Registrar};
//! use rdma_mr::work::{
//!     CompletionEvents as _, CompletionQueue as _, QpCaps, QueuePair as _, RemoteAddr, SendFlags,
//!     SendOp, SendWr, Sge, WcStatus, WorkCompletion,
//! };
//! use std::ptr::NonNull;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let nic = Nic::new();
//! let pd = nic.alloc_pd();
//! let cq = nic.create_cq(16)?;
//! let a = pd.create_qp(&cq, &cq, QpCaps::default())?;
//! let b = pd.create_qp(&cq, &cq, QpCaps::default())?;
//! QueuePair::connect_pair(&a, &b)?;
//!
//! // Registering by hand; a `LocalMr` does this, and keeps the rules, by itself.
//! let memory = NonNull::from(Box::leak(Box::new([7_u8; 8192]))).cast::<u8>();
//! // SAFETY: REG-4: the memory is never freed.
//! let mut mr = unsafe { pd.register(memory, 8192, Access::LOCAL_WRITE | Access::REMOTE_WRITE) }?;
//!
//! let addr = memory.as_ptr() as u64;
//! let from = [Sge { addr, length: 4096, lkey: mr.lkey }];
//! let remote = RemoteAddr { addr: addr + 4096, rkey: mr.rkey };
//! let wr = SendWr {
//!     wr_id: 1,
//!     sge: &from,
//!     op: SendOp::Write { remote, imm: None },
//!     flags: SendFlags::SIGNALED,
//! };
//! // SAFETY: POST-1: nobody touches the memory before the completion.
//! unsafe { a.post_send(&wr) }?;
//!
//! let mut done = [WorkCompletion::EMPTY];
//! loop {
//!     // What completes after this makes an event; what came before is polled.
//!     cq.req_notify(false)?;
//!     if cq.poll(&mut done)? > 0 {
//!         break;
//!     }
//!     cq.wait_event(None)?;
//! }
//! assert_eq!((done[0].wr_id, done[0].status), (1, WcStatus::Success));
//! mr.handle.deregister()?;
//! # Ok(())
//! # }
//! ```

mod channel;
mod completion;
mod config;
mod context;
mod cq;
mod delivery;
mod doorbell;
mod engine;
mod fault;
mod memory;
mod message;
#[cfg(all(test, loom))]
mod models;
mod nic;
mod pd;
mod qp;
mod ring;
mod srq;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;
mod transfer;

pub use crate::work::QpState;
pub use config::{NicBuilder, Stats};
pub use cq::CompletionQueue;
pub use fault::{Distrust, Fault, VENDOR_INJECTED, When};
pub use nic::Nic;
pub use pd::ProtectionDomain;
pub use qp::QueuePair;
pub use srq::SharedRecvQueue;

/// Bytes in a packet: what the NIC moves at once. Between two packets it looks at whether the
/// registrations and the queue pairs are still there.
pub const MTU: usize = 4096;

/// Bytes in the longest message, 2 GiB as most devices have it.
pub const MAX_MESSAGE: u64 = 1 << 31;

/// Locks and goes on with the data of a lock whose holder panicked: none of them is left half
/// changed in here.
fn lock<T>(mutex: &crate::sync::Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sleeps until the condition is signalled; `false` if that was not tried, since the deadline has
/// passed. May return early.
#[cfg(not(loom))]
fn sleep<'a, T>(
    signal: &crate::sync::Condvar,
    lock: &'a crate::sync::Mutex<T>,
    guard: crate::sync::MutexGuard<'a, T>,
    deadline: Option<std::time::Instant>,
) -> (crate::sync::MutexGuard<'a, T>, bool) {
    if deadline.is_some_and(|deadline| crate::sync::now() >= deadline) {
        return (guard, false);
    }
    (crate::sync::sleep(signal, lock, guard, deadline), true)
}
