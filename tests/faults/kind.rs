//! What is made to fail.

use std::time::Duration;

use rdma_mr::backend::soft::{Distrust, Fault, Nic, When};
use rdma_mr::work::WcStatus;

use crate::random::Random;

/// Longer than a step of the work takes, shorter than its patience.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Lost,
    Twice,
    Late,
    Overtaken,
    Status,
    QueuePairError,
    QueueFull,
    Register,
    Deregister,
    Stall,
    Outside,
    NeverStops,
}

impl Kind {
    pub const ALL: [Kind; 12] = [
        Kind::Lost,
        Kind::Twice,
        Kind::Late,
        Kind::Overtaken,
        Kind::Status,
        Kind::QueuePairError,
        Kind::QueueFull,
        Kind::Register,
        Kind::Deregister,
        Kind::Stall,
        Kind::Outside,
        Kind::NeverStops,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Lost => "completion lost",
            Kind::Twice => "completion twice",
            Kind::Late => "completion late",
            Kind::Overtaken => "completion overtaken",
            Kind::Status => "error status",
            Kind::QueuePairError => "queue pair to ERR",
            Kind::QueueFull => "completion queue full",
            Kind::Register => "registration fails",
            Kind::Deregister => "deregistration fails",
            Kind::Stall => "NIC stalls",
            Kind::Outside => "peer writes outside",
            Kind::NeverStops => "peer never stops",
        }
    }

    /// Whether a peer does it, and not the NIC.
    pub fn is_a_peers(self) -> bool {
        matches!(self, Kind::Outside | Kind::NeverStops)
    }

    /// Makes it happen once, in the course of the work.
    pub fn arm(self, nic: &Nic, random: &mut Random) {
        // SAFETY: FAULT-1: endpoints poll that NIC, which do not trust it.
        let distrust = || unsafe { Distrust::new() };
        let statuses = [
            WcStatus::RemOpErr,
            WcStatus::RetryExcErr,
            WcStatus::LocProtErr,
            WcStatus::RemAccessErr,
        ];
        let (fault, most) = match self {
            Kind::Lost => (Fault::CompletionLost, 16),
            Kind::Twice => (Fault::CompletionDuplicated(distrust()), 16),
            Kind::Late => (Fault::CompletionLate(PAUSE), 16),
            Kind::Overtaken => (Fault::CompletionOvertaken(distrust()), 16),
            Kind::Status => (Fault::Completion(random.pick(&statuses)), 12),
            Kind::QueuePairError => (Fault::QueuePairError, 12),
            Kind::QueueFull => (Fault::CompletionQueueFull, 16),
            Kind::Register => (Fault::Register, 5),
            Kind::Deregister => (Fault::Deregister, 4),
            Kind::Stall => (Fault::Stall(PAUSE), 12),
            Kind::Outside | Kind::NeverStops => return,
        };
        nic.inject(fault, When::Nth(1 + random.below(most) as u64));
    }
}
