//! Operations in flight: who owns a region between the post of a work request and its completion.
//!
//! [`Hold`] is the ownership itself, for those who keep their own queues; [`Endpoint`] keeps the
//! holds of one queue pair beside its queues and releases them by its completions.

mod endpoint;
mod hold;
mod outstanding;

pub use endpoint::Endpoint;
pub use hold::{Begin, Hold, HoldFuture};
pub use outstanding::{Done, OpId};
