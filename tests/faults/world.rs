//! What a case has in all its parts: the NIC, what was told, and whether anything moves.

use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::Endpoint;
use rdma_mr::{Error, LocalMr, Result};

use crate::fabric::{Fabric, LONG, Soft};
use crate::random::Random;
use crate::table::Found;

/// How long nothing may move on a NIC with a thread until what is outstanding counts as lost; longer than
/// any pause that was asked for.
const PATIENCE: Duration = Duration::from_millis(25);

pub type End = Endpoint<QueuePair>;

pub struct World {
    pub fabric: Soft,
    pub random: Random,
    pub found: Found,
}

impl World {
    pub fn new(fabric: Soft, seed: u64) -> Self {
        World {
            fabric,
            random: Random(seed),
            found: Found::default(),
        }
    }

    pub fn tell_error(&mut self, error: &Error) {
        let name = match error {
            Error::Register(source) => format!("`Error::Register` ({:?})", source.kind()),
            Error::Deregister(source) => format!("`Error::Deregister` ({:?})", source.kind()),
            Error::Provider { call, .. } => format!("`Error::Provider` ({call})"),
            Error::UnknownCompletion { .. } => "`Error::UnknownCompletion`".into(),
            other => panic!("nobody should be told that: {other}"),
        };
        self.found.tell(name);
    }

    /// What is refused now and then, in the end done.
    pub fn insist<T>(&mut self, mut call: impl FnMut(&Soft) -> Result<T>) -> T {
        for _ in 0..3 {
            match call(&self.fabric) {
                Ok(done) => return done,
                Err(error) => self.tell_error(&error),
            }
        }
        panic!(
            "refused more often than was asked for: {:?}",
            self.found.seen
        );
    }

    /// Zeroed bytes.
    pub fn alloc(&mut self, length: usize) -> LocalMr {
        self.insist(|fabric| LocalMr::alloc(fabric.pd(), length))
    }

    /// Lets the NIC do at most that much; whether it did anything, if that can be known.
    pub fn act(&self, steps: usize) -> bool {
        if !self.fabric.nic.is_stepped() {
            thread::yield_now();
            return false;
        }
        (0..steps).any(|_| self.fabric.nic.step())
    }

    /// Asks `moves` until it says that it is done or nothing moves any more.
    pub fn wait(&mut self, mut moves: impl FnMut(&mut Self) -> Moved) {
        let start = Instant::now();
        let (mut last, mut idle) = (start, 0);
        loop {
            self.found.turns += 1;
            let acted = self.act(1);
            match moves(self) {
                Moved::Done => break,
                Moved::Something => (last, idle) = (Instant::now(), 0),
                Moved::Nothing if acted => idle = 0,
                Moved::Nothing => idle += 1,
            }
            let stuck = match self.fabric.nic.is_stepped() {
                true => idle > 2,
                false => last.elapsed() > PATIENCE,
            };
            if stuck {
                break;
            }
            assert!(start.elapsed() < LONG, "it never ends");
        }
        self.found.time = self.found.time.max(start.elapsed());
    }
}

pub enum Moved {
    Done,
    Something,
    Nothing,
}
