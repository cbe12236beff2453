//! Operations as futures on executors, on the NIC in software.
#![cfg(all(feature = "soft", not(loom)))]

#[path = "executors/suite.rs"]
mod executors;
mod fabric;

executors::tests! { [] <fabric::Soft as fabric::Fabric>::open() }
