//! Lock-free access to RDMA memory regions (MRs), for code that cares about latency.
//!
//! Each region carries one atomic word that counts who holds it: CPU readers, a CPU writer,
//! operations in flight that read it, an operation in flight that writes it. Accessors wait while
//! the NIC has the bytes (spin, then park); `try_*` never wait. Keys, address and rights are an
//! epoch-protected snapshot beside the word: reading them never waits at all.
//!
//! ```
//! use rdma_mr::backend::soft::{Nic, QueuePair};
//! use rdma_mr::prelude::*;
//! use rdma_mr::work::QpCaps;
//!
//! let nic = Nic::new(); // a NIC in software; `backend::verbs` has the real ones
//! let pd = nic.alloc_pd();
//! let (cq_a, cq_b) = (nic.create_cq(128)?, nic.create_cq(128)?);
//! let a = pd.create_qp(&cq_a, &cq_a, QpCaps::default())?;
//! let b = pd.create_qp(&cq_b, &cq_b, QpCaps::default())?;
//! QueuePair::connect_pair(&a, &b)?;
//! let (mut a, mut b) = (Endpoint::new(a), Endpoint::new(b));
//!
//! let mut from = LocalMr::alloc(&pd, 4096)?;
//! let to = LocalMr::alloc(&pd, 4096)?;
//! from.as_mut_slice()[..5].copy_from_slice(b"hello");
//! b.recv(to.begin_write()?)?; // the operation owns `to` from here to its completion
//! a.send(from.begin_read()?, None)?;
//! let bytes = to.as_slice_with(|| drop(b.poll(|done| assert!(done.status.is_success()))));
//! assert_eq!(&bytes[..5], b"hello");
//! # Ok::<(), rdma_mr::Error>(())
//! ```
//!
//! # The map
//! | where | what |
//! |---|---|
//! | the root | [`LocalMr`] and its slices, the traits ([`LocalMrReadAccess`], [`LocalMrWriteAccess`]), guards, [`MrToken`] and [`RemoteMr`], [`Error`]; [`SharedMr`] for what a peer writes at any moment, with [`SharedMrAccess`]; [`MrPool`] for slots that come and go |
//! | [`op`] | operations in flight: [`op::Hold`] and [`op::send_ring`] for those who keep their own queues, [`op::Endpoint`], [`op::Poller`] and [`op::AsyncQueuePair`] for those who don't |
//! | [`lease`] | bytes lent to peers, with a key of their own that ends when this side says so |
//! | [`registration`] | what backends implement, where memory comes from |
//! | [`gate`] | the word itself |
//! | [`work`] | work requests and completions as plain data |
//! | [`backend`] | the NIC in software; real devices (feature `verbs`) |
//!
//! # What things cost
//! RMWs are on the region's own cache line; "0" under allocations is what a test counts, and
//! `cargo xtask instructions` counts RMWs.
//!
//! | operation | RMWs | other atomics | allocations | may wait |
//! |---|---|---|---|---|
//! | `lkey()`, `rkey()` | 0 | 1 load | 0 | never |
//! | `addr()`, `length()` | 0 | 0 | 0 | never |
//! | `access()`, `is_readable()`, `state()` | 0 | 1 load | 0 | never |
//! | `read_inner()`, `token_with_timeout()` | 0 | an epoch pin | 0 | never |
//! | `try_*` refused | 0 | 1 load | 0 | never |
//! | a guard, shared (`as_slice`, `as_ptr`), had at once | 1 + 1 to release | 1 load | 0 | if held |
//! | a guard, exclusive (`as_mut_slice`), had at once | 1 + 1 to release | 1 load | 0 | if held |
//! | an operation, `begin_read` to completion | 1 + 1 | 2 loads | 0 | if held |
//! | an operation, `begin_write` to completion | 1 + 1 | 3 loads | 0 | if held |
//! | the same over a [`op::Gather`] list of n regions | n + n | 2n loads | 0 | if one is held |
//! | `Poster::prepare` and `commit`, `Completer::complete`, beside that | 0 | 2 stores, 2 loads | 0 | never |
//! | `recv_slots` and `SharedRecv`, beside that | 0 | 2 RMWs on lines of the queue | 0 | never |
//! | `Endpoint` post, beside the ring | 0 | the provider's own | 0 | never |
//! | `Poller::poll`, a batch of up to 16 | 0 | 2 RMWs on the poller's line, a fence if something ended | 0 | never |
//! | a [`RemoteMr`] as the target, beside that | 0 | the clock, read once | 0 | never |
//! | a future of `AsyncQueuePair`, beside the endpoint | 0 | 2 RMWs on the queue pair's line, 6 on its own, a fence | 0 (1 each if it waits for region, turn or room) | as told |
//! | a wait that parks, beside that | 1 | a waiters' list's lock | 0 (thread), 1 (future) | |
//! | all of [`SharedMrAccess`] but the RMWs it names | 0 | the copy's own | 0 | never |
//! | an operation on a [`SharedMr`], `begin_*` to completion | 1 + 1 | 3 loads | 0 | never |
//! | [`MrPool::take`] and the drop of a [`PooledMr`] | 0 | 1 RMW each on the pool's line, 2 loads | 0 | if all are out |
//! | the drop of a slot under an operation, and that operation's end, beside that | 1 + 1 | | 0 | never |
//! | a pool that grows by n slots | 0 | as `register`, and n `split_to` | 7 | in the kernel |
//! | `split_to` and what is made of it | 0 | 1 load, 1 `Arc` clone, 2 RMWs for the roll | 1 | while another is put there |
//! | register, `close()` | 2, to be on the roll | – | 7 | in the kernel |
//! | `lease`, `revoke()` | 1 + 1 | 4 RMWs, not on the region | 3 | if held, and in the kernel |
//! | `reregister`, `rotate_keys`, `try_retire` | 1 or 2 for each part | – | 7 | in the kernel |
//!
//! A refused shared acquisition that lost a race by nanoseconds costs one RMW more, to undo itself.
//!
//! # Panics, threads, processes
//! - A panic gives back what unwinding drops: guards, holds, prepared posts, slots, leases; an endpoint destroys its
//!   queue pair first. What was posted goes on, and its completion releases it. Nothing is poisoned: what was
//!   written before is there.
//! - A thread that ends drops what is in its own storage, as any thread may drop anything of this crate. What it
//!   forgets stays held, for ever; nothing is freed under it.
//! - A process may end at any moment, with operations in flight and threads that poll: the kernel takes the
//!   device's access away before it takes the memory.
//! - After `fork` the child leaves regions, gates, queues and devices alone (it may `exec`, or end by `_exit`); that
//!   the parent's registered memory stays what its NIC sees is the matter of `backend::verbs::fork_init`.
//! - Registered memory is locked in place. If that is refused (`RLIMIT_MEMLOCK`, the device's own limits), the error is
//!   [`Error::Register`] with what the provider said, and the memory comes back ([`Rejected`]).
//!
//! # What an operator sees
//! [`counts()`] has the numbers of the process: waits, parks, refusals, rotations, leaks. A region's `Debug` says who
//! holds it, a poller's what is outstanding; [`op::Watch`] reports operations that take too long, [`lease::lent`] what is
//! lent. With the feature `tracing` what is rare is told to whoever subscribes to it, by targets, names and fields
//! that stay what they are:
//!
//! | target | level | event | fields |
//! |---|---|---|---|
//! | `rdma_mr::gate` | trace | span `wait` | `gate`, `wants`, `held_by` |
//! | `rdma_mr::gate` | trace | `park` | `gate`, `wants` |
//! | `rdma_mr::gate` | debug | `closed to operations` | `gate`, `addr`, `length` |
//! | `rdma_mr::registration` | debug | `region` | `gate`, `addr`, `length` |
//! | `rdma_mr::registration` | debug | `registered` | `addr`, `length`, `lkey`, `rkey`, `access` |
//! | `rdma_mr::registration` | debug | `keys rotated` | `addr`, `length`, `lkey`, `rkey`, `access` |
//! | `rdma_mr::registration` | debug | `deregistered` | `addr`, `length`, `count` |
//! | `rdma_mr::registration` | warn | `registration refused` | `addr`, `length`, `error` |
//! | `rdma_mr::registration` | warn | `deregistration refused` | `addr`, `length`, `error` |
//! | `rdma_mr::registration` | warn | `registration leaked` | `addr`, `length` |
//! | `rdma_mr::lease` | debug | `granted` | `gate`, `addr`, `length`, `rkey`, `access` |
//! | `rdma_mr::lease` | debug | `ended` | `addr`, `length`, `rkey` |
//! | `rdma_mr::lease` | info | `expired` | `addr`, `length`, `rkey` |
//! | `rdma_mr::lease` | warn | `revocation refused` | `addr`, `length`, `rkey`, `error` |
//! | `rdma_mr::lease` | warn | `lease leaked` | `addr`, `length`, `rkey` |
//! | `rdma_mr::op` | warn | `operation failed` | `wr_id`, `status`, `vendor_err` |
//! | `rdma_mr::op` | warn | `operation overdue` | `wr_id`, `qp_num`, `age_ms`, `held` |
//! | `rdma_mr::op` | warn | `unknown completion` | `wr_id` |
//! | `rdma_mr::op` | warn | `hold leaked` | `gate`, `wr_id` |
//! | `rdma_mr::op` | error | `polling failed` | `error` |
//! | `rdma_mr::op` | debug | `drained` | `qp_num`, `completed`, `released`, `leaked` |
//!
//! `gate` is the address of a region's gate, by which the region is known here: its bytes may be part of another's.
//! Addresses, keys and `wr_id`s are text, in hexadecimal. `addr` and `length` (in bytes) are those of the bytes
//! concerned: of a region, of its whole registration, of what is lent. A wait that ends while a thread spins has its
//! span, too; a future's has none, but it parks. Operations and accesses that get in at once tell nothing.
//!
//! # Features
//! - `soft` (default): [`backend::soft`].
//! - `count-refusals`: [`counts()`] tells refusals as well; each costs one RMW on a line of the thread's then.
//! - `tracing`: the events above. Off, nothing is left of them, nor of the dependency.
//! - `verbs`: `backend::verbs`, over `rdma-sys`; needs libibverbs, librdmacm and libclang to
//!   build. Off by default: two sys crates linked into one binary clash.
//!
//! # Safety
//! What the NIC writes behind the compiler's back becomes `&[u8]` only under a hold that excludes
//! it. The axioms and the clauses of every `unsafe` item are in `SAFETY.md`; the models that show
//! what they are enough for, in `loom_tests/`.
#![deny(
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks,
    missing_docs
)]

pub mod backend;
mod counts;
mod error;
pub mod gate;
pub mod lease;
mod mr;
pub mod op;
mod raw;
pub mod registration;
mod sync;
mod trace;
pub mod work;

pub use counts::{Counts, Leaks, counts, leaks};
pub use error::{Error, Rejected, Result};
pub use lease::{Lease, Lend};
pub use mr::{
    Chunks, GuardFuture, LocalMr, LocalMrReadAccess, LocalMrSlice, LocalMrSliceMut,
    LocalMrWriteAccess, MrAccess, MrConstPtr, MrCursor, MrCursorMut, MrMutPtr, MrOptions, MrPool,
    MrReadGuard, MrToken, MrWriteGuard, PoolOptions, PooledMr, Remote, RemoteMr, RemoteMrSlice,
    RemoteMrSliceMut, RemoteMut, SharedInt, SharedMr, SharedMrAccess, SharedMrSlice,
    WriteInnerGuard,
};
pub use registration::{Access, LocalMrInner, Retire};

/// What code that uses regions has in scope.
pub mod prelude {
    pub use crate::lease::{Lease, Lend};
    pub use crate::op::{Begin, Endpoint};
    pub use crate::{
        Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, SharedMr, SharedMrAccess,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
