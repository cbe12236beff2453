//! Lock-free access to RDMA memory regions.

#![allow(dead_code, unused_imports)]
pub mod backend;
mod error;
pub mod gate;
mod leaks;
mod mr;
pub mod op;
pub mod registration;
mod sync;
pub mod work;

pub use error::{Error, Rejected, Result};
pub use leaks::{Leaks, leaks};
pub use mr::*;
pub use registration::Access;
