//! Operations as futures on executors, on the NIC in software.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "executors/suite.rs"]
mod suite;

suite::tests! { [] <fabric::Soft as fabric::Fabric>::open() }
