//! The suite of operations on the NIC in software, and what only that can be made to do.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "suite/faults.rs"]
mod faults;
mod suite;

suite::tests! { [] *suite::Checked::<fabric::Soft>::open() }
