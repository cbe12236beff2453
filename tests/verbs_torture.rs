//! A minute's worth of random operations, cancellations and failures on a real device, from a seed: no
//! byte is wrong at any release, and no hold is lost (R9 to R16).
#![cfg(all(feature = "verbs", not(loom)))]

mod fabric;
#[path = "torture/mod.rs"]
mod torture;

use std::time::Duration;

use fabric::{Device, Fabric};
use torture::random::Random;
use torture::{Role, Victim};

impl Victim for Device {
    const PATIENCE: Duration = Duration::from_millis(200);
    const KINDS: &'static [&'static str] = &[];

    fn devices(_: u64) -> Vec<(Role, Self)> {
        vec![(Role::Plain, Device::open())]
    }

    /// None but those that queue pairs make by themselves.
    fn trouble(&self, _: Role, _: &mut Random) {}

    fn calm(&self) {}

    fn registrations(&self) -> Option<usize> {
        None
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r9_to_r16_no_byte_is_wrong_and_no_hold_is_lost() {
    torture::run::<Device>(60);
}
