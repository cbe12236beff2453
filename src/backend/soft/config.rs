//! How a NIC is set up, and the numbers that it reports.

use std::time::Duration;

use super::Nic;
use super::fault::{Fault, When};

/// What the builder has collected.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) latency: Duration,
    pub(super) reorder: Option<f64>,
    pub(super) seed: u64,
    pub(super) stepped: bool,
    pub(super) max_mr_size: usize,
    pub(super) faults: Vec<(Fault, When)>,
}

/// Sets up a [`Nic`]; [`Nic::builder`] makes one.
///
/// ```
/// use rdma_mr::backend::soft::{Fault, Nic, When};
/// use rdma_mr::work::WcStatus;
/// use std::time::Duration;
///
/// let nic = Nic::builder()
///     .name("soft1")
///     .latency(Duration::from_micros(30))
///     .seed(7)
///     .inject(Fault::Completion(WcStatus::RemOpErr), When::Probability(0.01))
///     .build();
/// assert_eq!(nic.name(), "soft1");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before build()"]
pub struct NicBuilder {
    config: Config,
}

impl NicBuilder {
    pub(super) fn new() -> Self {
        NicBuilder {
            config: Config {
                name: "soft0".to_owned(),
                latency: Duration::ZERO,
                reorder: None,
                seed: 0,
                stepped: cfg!(loom),
                max_mr_size: isize::MAX as usize,
                faults: Vec::new(),
            },
        }
    }

    /// The device's name; `soft0` if not set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// How long a message takes from the post to its arrival, at least; messages that were posted
    /// together travel together. Zero if not set. Without effect in stepped mode, which knows no
    /// time.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.config.latency = latency;
        self
    }

    /// How probable it is (0.0 to 1.0) that the next work request comes from a queue pair that the
    /// seed picks, rather than from the next one in turn. Within one queue pair the order is kept.
    /// If not set: 0.0 with a thread, 1.0 in stepped mode.
    pub fn reorder(mut self, probability: f64) -> Self {
        self.config.reorder = Some(probability);
        self
    }

    /// What the random choices (order, faults) start from; 0 if not set. A stepped NIC with the same
    /// seed and the same calls does the same in the same order.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// No thread: the NIC acts only inside [`Nic::step`] and [`Nic::run_until_idle`]. Always so
    /// under `--cfg loom`; under `--cfg shuttle` the thread is one of the model's.
    pub fn stepped(mut self) -> Self {
        self.config.stepped = true;
        self
    }

    /// The longest registration in bytes (`max_mr_size` of the device); `isize::MAX` if not set.
    pub fn max_mr_size(mut self, bytes: usize) -> Self {
        self.config.max_mr_size = bytes;
        self
    }

    /// Makes something fail, from the start; [`Nic::inject`] does so later. May be called more than
    /// once.
    pub fn inject(mut self, fault: Fault, when: When) -> Self {
        self.config.faults.push((fault, when));
        self
    }

    /// The NIC. Its thread starts with the first queue pair.
    #[must_use]
    pub fn build(self) -> Nic {
        Nic::from_config(self.config)
    }
}

/// What a NIC has done and what lives on it; [`Nic::stats`] reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Registrations in force, the leaked ones too.
    pub registrations: usize,
    /// Work requests of send queues that succeeded.
    pub messages: u64,
    /// Bytes that they carried.
    pub bytes: u64,
    /// Queue pairs alive.
    pub queue_pairs: usize,
    /// Completion queues alive.
    pub completion_queues: usize,
    /// Faults that have struck.
    pub faults: u64,
}
