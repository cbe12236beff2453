//! Operations as futures on executors, on a real device. `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
#[path = "executors/suite.rs"]
mod suite;

suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    <fabric::Device as fabric::Fabric>::open()
}
