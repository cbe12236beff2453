//! Operations in flight: who owns a region between the post of a work request and its completion.
//!
//! - [`Hold`] is the ownership itself, [`Begin`] how it begins, [`Gather`] the same for several regions
//!   at once.
//! - For those who keep their own queues: the hold as the work request's id
//!   ([`Hold::into_wr_id`]), or a ring beside each queue ([`send_ring`], [`recv_ring`], [`recv_slots`]),
//!   which knows selective signalling, lists, and completions that are none; [`Dispatch`] finds the
//!   ring of a completion.
//! - For those who use a backend of ours: [`Endpoint`] posts, [`Poller`] polls, [`AsyncQueuePair`] is
//!   both as futures, [`Drain`] the orderly end; [`SharedRecv`] for shared receive queues. A [`Watch`] reports
//!   what takes too long.

mod begin;
mod endpoint;
mod gather;
mod hold;
mod number;
mod poll;
mod queue;

pub use begin::{Begin, HoldFuture};
pub(crate) use begin::{begin_part, begin_part_with, try_begin_part};
pub use endpoint::Endpoint;
pub use endpoint::drain::{Drain, Drained};
pub use endpoint::future::AsyncQueuePair;
pub use endpoint::list::PartlyPosted;
pub use endpoint::request::SendRequest;
pub use endpoint::shared::SharedRecv;
pub use gather::{Gather, GatherFuture, Holding, Holds};
pub use hold::Hold;
pub(crate) use hold::require;
pub use number::OpId;
pub use poll::dispatch::{Dispatch, Rings};
pub use poll::poller::Poller;
pub use poll::thread::PollerThread;
pub use poll::watch::{Limits, Overdue, Watch};
pub use queue::completer::Completer;
pub use queue::done::{Done, Over};
pub use queue::look::Held;
pub use queue::poster::{Chain, Poster, recv_ring, send_ring};
pub use queue::prepared::Prepared;
pub use queue::slots::{SlotCompleter, SlotPoster, recv_slots};
