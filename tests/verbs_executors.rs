//! Operations as futures on executors, on a real device. `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

#[path = "executors/suite.rs"]
mod executors;
mod fabric;

executors::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    <fabric::Device as fabric::Fabric>::open()
}
