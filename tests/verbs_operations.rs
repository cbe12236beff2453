//! The suite of operations on a real device. `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
mod suite;

suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    *suite::Checked::<fabric::Device>::open()
}
