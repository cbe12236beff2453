//! Where regions are registered and work requests carried out. Each backend implements
//! [`Registrar`](crate::registration::Registrar) and the queue traits of [`work`](crate::work), and
//! is known to nobody above it.

#[cfg(feature = "soft")]
#[cfg_attr(
    loom,
    allow(dead_code, unused_imports, reason = "the NIC has no thread there")
)]
pub mod soft;
#[cfg(all(feature = "verbs", not(loom)))]
pub mod verbs;
