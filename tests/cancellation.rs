//! Futures that are given up, on a NIC that acts when the test says so.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "cancellation/stepped.rs"]
mod stepped;
#[path = "cancellation/suite.rs"]
mod suite;

suite::tests! { [] fabric::Soft::stepped() }
