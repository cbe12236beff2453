//! Leases on the NIC in software: bytes that are lent, and taken back.
#![cfg(all(feature = "soft", not(loom)))]

#[path = "lease/ends.rs"]
mod ends;
mod fabric;
#[path = "lease/peers.rs"]
mod peers;
#[path = "lease/suite.rs"]
mod suite;

suite::tests! { [] *fabric::Checked::<fabric::Soft>::open() }
