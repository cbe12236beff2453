//! Two connected ends that one thread has for itself, and what it needs with them.

use std::time::Duration;

use rdma_mr::op::{Endpoint, Hold};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};

use crate::fabric::{Fabric, LONG};
use crate::torture::random::Random;
use crate::torture::report::{fail, mismatch, progress};

/// As long as a device may take to send a packet again, over and over.
const PATIENCE: Duration = LONG;

pub struct Peers<F: Fabric> {
    pub near: Endpoint<F::Qp>,
    pub far: Endpoint<F::Qp>,
}

impl<F: Fabric> Peers<F> {
    pub fn new(fabric: &F) -> Self {
        let (near, far) = fabric.pair(QpCaps::default());
        Peers { near, far }
    }

    /// A message from the one hold to the other. Whether it arrived; if not, the ends are new ones.
    pub fn message(&mut self, fabric: &F, from: Hold, to: Hold) -> bool {
        let posted = self.far.recv(to).is_ok() && self.near.send(from, None).is_ok();
        self.settle(fabric, posted, 2)
    }

    /// As [`message`](Self::message), a WRITE.
    pub fn write(&mut self, fabric: &F, from: Hold, to: RemoteAddr) -> bool {
        let posted = self.near.write(from, to, None).is_ok();
        self.settle(fabric, posted, 1)
    }

    /// As [`message`](Self::message), a READ.
    pub fn read(&mut self, fabric: &F, to: Hold, from: RemoteAddr) -> bool {
        let posted = self.near.read(to, from).is_ok();
        self.settle(fabric, posted, 1)
    }

    /// Waits for so many to end. A queue pair that failed may tell of none (R16), so that its end is waited
    /// for then.
    fn settle(&mut self, fabric: &F, posted: bool, count: usize) -> bool {
        let start = std::time::Instant::now();
        let (mut over, mut failed) = (0, !posted);
        while over < count && !failed {
            for end in [&mut self.near, &mut self.far] {
                let polled = end.poll(|done| {
                    over += 1;
                    failed |= done.status != WcStatus::Success;
                    progress();
                });
                if let Err(error) = polled {
                    fail(error);
                    failed = true;
                }
            }
            if start.elapsed() > PATIENCE {
                fail("an operation of the soak never ends");
                return false;
            }
            if over < count {
                std::thread::yield_now();
            }
        }
        if failed {
            *self = Self::new(fabric);
        }
        !failed
    }
}

/// Random bytes, another region's worth each time.
pub fn bytes(length: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// They are what they must be.
pub fn same(expected: &[u8], actual: &[u8], what: &str) {
    if expected != actual {
        let wrong = expected.iter().zip(actual).position(|(a, b)| a != b);
        mismatch(format_args!("{what}: wrong from {wrong:?} on"));
    }
}
