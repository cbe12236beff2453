//! Memory that peers may write at any moment (R3) on the NIC in software.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
mod shared_suite;

shared_suite::tests! { [] *fabric::Checked::<fabric::Soft>::open() }

/// Its atomics are the CPU's, and it says so.
#[test]
fn r3_atomics_of_the_nic_in_software_are_global() {
    use rdma_mr::SharedMrAccess;
    use rdma_mr::registration::AtomicCap;

    let fabric = <fabric::Soft as fabric::Fabric>::open();
    let mr = shared_suite::shared(&fabric, 8);
    assert_eq!(mr.atomic_cap(), AtomicCap::Global);
}
