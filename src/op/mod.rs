//! Operations in flight: who owns a region between the post of a work request and its completion.
//!
//! [`Hold`] is the ownership itself, for those who keep their own queues; [`Endpoint`] keeps the
//! holds of one queue pair beside its queues and releases them by its completions.

mod endpoint;
mod hold;

pub use endpoint::{Done, Endpoint, OpId};
pub use hold::{Begin, Hold, HoldFuture};
