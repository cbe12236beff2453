//! Keys that change under load, on a device. `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;
mod rotation_load;

use fabric::{Device, Fabric};

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r7_rotations_under_load_fail_no_operation_and_mix_no_keys() {
    rotation_load::run(&Device::open(), 500);
}
