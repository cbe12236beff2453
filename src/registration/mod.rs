//! What a region is registered as.

mod access;
mod registrar;

pub use access::Access;
pub use registrar::{Deregister, Registered, Registrar};
