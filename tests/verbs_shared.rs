//! Memory that peers may write at any moment (R3) on a real device. `cargo xtask vm test` runs it on
//! soft-RoCE; `RDMA_MR_RECORD_SECONDS` makes the runs over records longer.
#![cfg(feature = "verbs")]

mod fabric;
mod shared_suite;

shared_suite::tests! {
    [#[ignore = "needs an RDMA device: cargo xtask vm test"]]
    *fabric::Checked::<fabric::Device>::open()
}

/// What the device says is what decides over the CPU's atomics.
#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r3_atomics_are_what_the_device_says() {
    use fabric::Fabric;
    use rdma_mr::SharedMrAccess;

    let device = fabric::Device::open();
    let mr = shared_suite::shared(&device, 8);
    assert_eq!(mr.atomic_cap(), device.context.limits().atomic_cap);
}
