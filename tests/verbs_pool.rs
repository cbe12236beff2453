//! Pools of slots on a real device. `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
mod pool_suite;

pool_suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    *fabric::Checked::<fabric::Device>::open()
}
