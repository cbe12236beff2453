//! A peer's memory as the target of operations, on a real device. `cargo xtask vm test` runs it on
//! soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
#[path = "remote/suite.rs"]
mod suite;

suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    <fabric::Device as fabric::Fabric>::open()
}
