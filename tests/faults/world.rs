//! What a case has in all its parts: the NIC, what was told, and whether anything moves.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::Endpoint;
use rdma_mr::work::WcStatus;
use rdma_mr::{Error, LocalMr, Result};

use crate::fabric::{Fabric, LONG, Soft};
use crate::random::Random;

/// How long nothing may move on a NIC with a thread until what is outstanding counts as lost; longer than
/// any pause that was asked for.
const PATIENCE: Duration = Duration::from_millis(25);

pub type End = Endpoint<QueuePair>;

pub struct World {
    pub fabric: Soft,
    pub random: Random,
    /// What users were told that is not success.
    pub seen: BTreeSet<String>,
    /// Operations that failed, and those that had no completion.
    pub failed: usize,
    pub untold: usize,
    /// How long it took at most, from the last post of a connection to its end.
    pub turns: u64,
    pub time: Duration,
}

impl World {
    pub fn new(fabric: Soft, seed: u64) -> Self {
        World {
            fabric,
            random: Random(seed),
            seen: BTreeSet::new(),
            failed: 0,
            untold: 0,
            turns: 0,
            time: Duration::ZERO,
        }
    }

    pub fn tell(&mut self, what: impl Into<String>) {
        self.seen.insert(what.into());
    }

    pub fn tell_error(&mut self, error: &Error) {
        let name = match error {
            Error::Register(source) => format!("`Error::Register` ({:?})", source.kind()),
            Error::Deregister(source) => format!("`Error::Deregister` ({:?})", source.kind()),
            Error::Provider { call, .. } => format!("`Error::Provider` ({call})"),
            Error::UnknownCompletion { .. } => "`Error::UnknownCompletion`".into(),
            other => panic!("nobody should be told that: {other}"),
        };
        self.tell(name);
    }

    pub fn tell_status(&mut self, status: WcStatus) {
        if !status.is_success() {
            self.tell(format!("`{status:?}`"));
        }
    }

    /// What is refused now and then, in the end done.
    pub fn insist<T>(&mut self, mut call: impl FnMut(&Soft) -> Result<T>) -> T {
        for _ in 0..3 {
            match call(&self.fabric) {
                Ok(done) => return done,
                Err(error) => self.tell_error(&error),
            }
        }
        panic!("refused more often than was asked for: {:?}", self.seen);
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
            self.turns += 1;
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
        self.time = self.time.max(start.elapsed());
    }
}

pub enum Moved {
    Done,
    Something,
    Nothing,
}
