//! Leases on a real device: the NIC refuses what is not lent, or not any more. `cargo xtask vm test` runs it
//! on soft-RoCE.
#![cfg(feature = "verbs")]

#[path = "lease/ends.rs"]
mod ends;
mod fabric;
#[path = "lease/peers.rs"]
mod peers;
#[path = "lease/suite.rs"]
mod suite;

suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    *fabric::Checked::<fabric::Device>::open()
}
