//! Ten minutes' worth of random operations, cancellations and failures on the NIC in software, from a
//! seed: no byte is wrong at any release, and no hold is lost (R9 to R16). Five seconds if nobody says
//! otherwise: `RDMA_MR_SECONDS=600 RDMA_MR_SEED=1 cargo test --release --test torture`.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;
#[path = "torture/mod.rs"]
mod torture;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fabric::Soft;
use rdma_mr::backend::soft::{Distrust, Fault, Nic, When};
use rdma_mr::work::WcStatus;
use torture::random::Random;
use torture::{Role, Victim};

/// Each refused destruction may leave a queue pair to the NIC for good, which makes it slower.
const REFUSALS: u64 = 300;

impl Victim for Soft {
    const PATIENCE: Duration = Duration::from_millis(20);
    const KINDS: &'static [&'static str] = &[
        "fault registration refused",
        "fault rotation refused",
        "fault destruction refused",
        "fault injected",
        "failure completion queue overrun",
        "told twice, released nothing",
        "end leaked",
    ];

    fn devices(seed: u64) -> Vec<(Role, Self)> {
        let mut random = Random(seed);
        [Role::Plain, Role::Refusing, Role::Lossy]
            .map(|role| {
                let nic = Nic::builder().seed(random.next()).reorder(0.3).build();
                (role, Soft::on(nic))
            })
            .into()
    }

    fn trouble(&self, role: Role, random: &mut Random) {
        static REFUSED: AtomicU64 = AtomicU64::new(0);
        let mut statuses = vec![WcStatus::RemInvReqErr, WcStatus::RetryExcErr];
        if role != Role::Plain {
            // There these would say that a key was none.
            statuses.extend([
                WcStatus::LocProtErr,
                WcStatus::RemAccessErr,
                WcStatus::RemOpErr,
            ]);
        }
        let status = random.pick(&statuses);
        // SAFETY: FAULT-1: of the devices that repeat completions only endpoints and shared receive
        // queues poll, which do not trust them.
        let distrust = unsafe { Distrust::new() };
        let pause = Duration::from_micros(random.below(2000) as u64);
        let fault = match (role, random.below(8)) {
            (Role::Refusing, 0) | (Role::Lossy, 3)
                if REFUSED.fetch_add(1, Ordering::Relaxed) < REFUSALS =>
            {
                Fault::Destroy
            }
            (Role::Refusing, 1) => Fault::Deregister,
            (Role::Refusing, 2) => Fault::Register,
            (Role::Lossy, 0) => Fault::CompletionLost,
            (Role::Lossy, 1) => Fault::CompletionDuplicated(distrust),
            (Role::Lossy, 2) => Fault::CompletionOvertaken(distrust),
            (_, 4) => Fault::CompletionLate(pause),
            (_, 5) => Fault::Stall(pause),
            (_, 6) => Fault::QueuePairError,
            _ => Fault::Completion(status),
        };
        torture::report::count("fault injected");
        let nth = random.below(20) as u64;
        self.nic.inject(fault, When::Nth(nth));
    }

    fn calm(&self) {
        self.nic.clear_faults();
    }

    fn registrations(&self) -> Option<usize> {
        Some(self.nic.stats().registrations)
    }
}

#[test]
fn r9_to_r16_no_byte_is_wrong_and_no_hold_is_lost() {
    torture::run::<Soft>(5);
}
