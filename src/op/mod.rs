//! Operations in flight: who owns a region between the post of a work request and its completion.
//!
//! - [`Hold`] is the ownership itself, [`Begin`] how it begins, [`Gather`] the same for several regions
//!   at once.
//! - For those who keep their own queues: the hold as the work request's id
//!   ([`Hold::into_wr_id`]), or a ring beside each queue ([`send_ring`], [`recv_ring`], [`recv_slots`]),
//!   which knows selective signalling, lists, and completions that are none; [`Dispatch`] finds the
//!   ring of a completion.
//! - For those who use a backend of ours: [`Endpoint`] posts, [`Poller`] polls, [`AsyncQueuePair`] is
//!   both as futures, [`Drain`] the orderly end; [`SharedRecv`] for shared receive queues.

mod completer;
mod dispatch;
mod done;
mod drain;
mod endpoint;
mod future;
mod gather;
mod hold;
mod list;
mod number;
mod poller;
mod poster;
mod prepared;
mod ring;
mod seat;
mod shared;
mod sleep;
mod slots;
mod table;
mod thread;
mod ticket;
mod turn;

pub use completer::Completer;
pub use dispatch::{Dispatch, Rings};
pub use done::{Done, Over};
pub use drain::{Drain, Drained};
pub use endpoint::Endpoint;
pub use future::AsyncQueuePair;
pub use gather::{Gather, GatherFuture, Holding, Holds};
pub use hold::{Begin, Hold, HoldFuture};
pub use list::{PartlyPosted, SendRequest};
pub use number::OpId;
pub use poller::Poller;
pub use poster::{Chain, Poster, recv_ring, send_ring};
pub use prepared::Prepared;
pub use shared::SharedRecv;
pub use slots::{SlotCompleter, SlotPoster, recv_slots};
pub use thread::PollerThread;
