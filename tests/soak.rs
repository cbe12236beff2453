//! Everything at once for as long as one likes: the torture's threads, and beside them leases, slots of pools,
//! biased readers and parts. No byte is wrong, nothing is leaked, no hold is unaccounted for at the end, and
//! memory does not grow. `cargo xtask soak --minutes 20`; by itself a few seconds.
#![cfg(all(any(feature = "soft", feature = "verbs"), not(loom)))]

mod fabric;
#[path = "soak/mod.rs"]
mod soak;
#[path = "torture/mod.rs"]
mod torture;

#[cfg(feature = "verbs")]
use std::sync::atomic::Ordering;
use std::time::Duration;

use torture::random::Random;
use torture::{Role, Victim};

#[cfg(feature = "soft")]
impl Victim for fabric::Soft {
    const PATIENCE: Duration = Duration::from_millis(20);
    const KINDS: &'static [&'static str] = &[];

    fn devices(seed: u64) -> Vec<(Role, Self)> {
        let nic = rdma_mr::backend::soft::Nic::builder();
        let nic = nic.seed(seed).reorder(0.3).build();
        vec![(Role::Plain, fabric::Soft::on(nic))]
    }

    /// What a device may do that refuses nothing and loses nothing.
    fn trouble(&self, _: Role, random: &mut Random) {
        use rdma_mr::backend::soft::{Fault, When};
        let pause = Duration::from_micros(random.below(2000) as u64);
        let fault = match random.below(3) {
            0 => Fault::CompletionLate(pause),
            1 => Fault::Stall(pause),
            _ => Fault::QueuePairError,
        };
        self.nic.inject(fault, When::Nth(random.below(20) as u64));
    }

    fn calm(&self) {
        self.nic.clear_faults();
    }

    fn registrations(&self) -> Option<usize> {
        Some(self.nic.stats().registrations)
    }
}

#[cfg(feature = "verbs")]
impl Victim for fabric::Device {
    const PATIENCE: Duration = Duration::from_millis(200);
    const KINDS: &'static [&'static str] = &[];

    /// The first one; over the network if there is one, between the GIDs that `RDMA_MR_GIDS` names.
    fn devices(_: u64) -> Vec<(Role, Self)> {
        let gids = std::env::var("RDMA_MR_GIDS").ok();
        let numbers = gids.map(|gids| {
            let (near, far) = gids.split_once(',').expect("two numbers");
            (near.parse().unwrap(), far.parse().unwrap())
        });
        let device = match numbers {
            Some((near, far)) => {
                torture::report::LOSES_ANSWERS.store(true, Ordering::SeqCst);
                fabric::Device::between(near, far)
            }
            None => fabric::Fabric::open(),
        };
        vec![(Role::Plain, device)]
    }

    /// None but those that queue pairs make by themselves, and the network.
    fn trouble(&self, _: Role, _: &mut Random) {}

    fn calm(&self) {}

    fn registrations(&self) -> Option<usize> {
        None
    }
}

#[cfg(feature = "soft")]
#[test]
fn all_at_once_on_the_nic_in_software() {
    soak::run::<fabric::Soft>();
}

#[cfg(feature = "verbs")]
#[test]
#[ignore = "needs an RDMA device: cargo xtask soak --verbs"]
fn all_at_once_on_a_device() {
    soak::run::<fabric::Device>();
}
