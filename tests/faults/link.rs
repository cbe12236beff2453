//! One connection: messages, WRITEs and READs, and what becomes of each.

use rdma_mr::op::{Begin, Done, Drain, OpId};
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{Error, LocalMrReadAccess, LocalMrWriteAccess, MrPool, MrToken, PooledMr};

use crate::fabric::Fabric as _;
use crate::ground::{Cells, SLOT, at};
use crate::soft_util::pattern;
use crate::world::{End, Moved, World};

/// What is in a slot that nothing was written to.
const BLANK: u8 = 0xAA;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Send,
    Recv,
    Write { cell: usize },
    Read { cell: usize },
}

/// An operation, and its slot.
pub struct Op {
    id: OpId,
    what: What,
    /// Of the bytes that it carries.
    pattern: u8,
    length: usize,
    slot: PooledMr,
    told: Option<WcStatus>,
    /// What was in the slot when it was nobody's any more.
    left: Option<Vec<u8>>,
}

impl Op {
    fn bytes(&self) -> Vec<u8> {
        let free = self.slot.state().is_free();
        assert!(free, "{:?} is held: {}", self.what, self.slot.state());
        self.slot.try_as_slice().expect("free").to_vec()
    }

    /// It is over: nothing changes its bytes any more.
    fn leave(&mut self) {
        self.left = Some(self.bytes());
    }

    /// Nothing has changed since it was over.
    pub fn check(&self) {
        let left = self.left.as_ref().expect("it is over");
        assert!(*left == self.bytes(), "{:?} was written later", self.what);
        if matches!(self.what, What::Send | What::Write { .. }) {
            assert_eq!(
                left[..self.length],
                pattern(self.pattern, SLOT)[..self.length]
            );
        }
        let beside = left[self.length..].iter().all(|byte| *byte == BLANK);
        assert!(beside, "{:?} reached beside its hold", self.what);
    }
}

pub struct Link<'p> {
    pool: &'p MrPool,
    a: End,
    b: End,
    pub ops: Vec<Op>,
    broken: bool,
}

impl<'p> Link<'p> {
    pub fn new(world: &World, pool: &'p MrPool) -> Self {
        let (a, b) = world.fabric.pair(QpCaps::default());
        Link {
            pool,
            a,
            b,
            ops: Vec::new(),
            broken: false,
        }
    }

    fn slot(&self, world: &mut World, fill: &[u8]) -> PooledMr {
        let mut slot = world.insist(|_| self.pool.take());
        slot.as_mut_slice().fill(BLANK);
        slot.as_mut_slice()[..fill.len()].copy_from_slice(fill);
        slot
    }

    fn note(&mut self, id: OpId, what: What, pattern: u8, length: usize, slot: PooledMr) {
        self.ops.push(Op {
            id,
            what,
            pattern,
            length,
            slot,
            told: None,
            left: None,
        });
    }

    /// Posts one operation, or a message.
    pub fn post(&mut self, world: &mut World, token: MrToken, number: u8) {
        let bytes = pattern(number, SLOT);
        let cell = world.random.below(Cells::COUNT);
        let remote = at(token, (cell * SLOT) as i64);
        match world.random.below(4) {
            0 => {
                let to = self.slot(world, &[]);
                let id = self.a.read(to.begin_write().unwrap(), remote).unwrap();
                self.note(id, What::Read { cell }, number, SLOT, to);
            }
            1 => {
                let from = self.slot(world, &bytes);
                let id = self.a.write(from.begin_read().unwrap(), remote, None);
                self.note(id.unwrap(), What::Write { cell }, number, SLOT, from);
            }
            _ => {
                let length = 1 + world.random.below(SLOT);
                let to = self.slot(world, &[]);
                let hold = to.get(..length).unwrap().begin_write().unwrap();
                let id = self.b.recv(hold).unwrap();
                self.note(id, What::Recv, number, length, to);
                let from = self.slot(world, &bytes[..length]);
                let hold = from.get(..length).unwrap().begin_read().unwrap();
                let id = self.a.send(hold, None).unwrap();
                self.note(id, What::Send, number, length, from);
            }
        }
    }

    /// Polls both ends; how many operations were over.
    pub fn poll(&mut self, world: &mut World, cells: &Cells) -> usize {
        let mut all = Vec::new();
        for end in [&mut self.a, &mut self.b] {
            match end.poll(|done| all.push(done)) {
                Ok(_) => {}
                Err(error) => {
                    self.broken |= !matches!(error, Error::UnknownCompletion { .. });
                    world.tell_error(&error);
                }
            }
        }
        for done in &all {
            self.over(world, cells, done);
        }
        all.len()
    }

    fn over(&mut self, world: &mut World, cells: &Cells, done: &Done) {
        world.found.tell_status(done.status);
        self.broken |= !done.status.is_success();
        let at = self.ops.iter().position(|op| op.id == done.id);
        let at = at.expect("one of these");
        let (before, from) = self.ops.split_at_mut(at);
        let op = &mut from[0];
        assert_eq!(op.told.replace(done.status), None, "told twice");
        op.leave();
        if !done.status.is_success() {
            return;
        }
        let got = op.left.as_ref().expect("it is over");
        match op.what {
            What::Recv => {
                assert_eq!(done.byte_len as usize, op.length);
                let sent = pattern(op.pattern, SLOT);
                assert!(got[..op.length] == sent[..op.length], "another message");
            }
            What::Read { cell } => {
                let mut possible = cells.possible(cell).to_vec();
                // Those before it on the same queue are done, if it is.
                for earlier in before {
                    if earlier.what == (What::Write { cell }) {
                        possible = vec![earlier.pattern];
                    }
                }
                assert!(cells.is_one_of(got, &possible), "a READ of something else");
            }
            What::Send | What::Write { .. } => {}
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn outstanding(&self) -> usize {
        let (sends, recvs) = self.a.outstanding();
        let (more_sends, more_recvs) = self.b.outstanding();
        sends + recvs + more_sends + more_recvs
    }

    /// Waits for what comes, then ends both queue pairs: all is accounted for.
    pub fn finish(mut self, world: &mut World, cells: &mut Cells) -> Vec<Op> {
        world.wait(|world| match self.poll(world, cells) {
            _ if self.broken || self.outstanding() == 0 => Moved::Done,
            0 => Moved::Nothing,
            _ => Moved::Something,
        });
        let held = self.ops.iter().filter(|op| !op.slot.state().is_free());
        assert_eq!(
            held.count(),
            self.outstanding(),
            "held without an operation"
        );
        let Link { a, b, mut ops, .. } = self;
        let mut drains = [a.drain(), b.drain()];
        let outstanding = drains.each_ref().map(Drain::outstanding);
        let mut told = [0; 2];
        world.wait(|world| {
            let before = told;
            let mut done = true;
            for (drain, told) in drains.iter_mut().zip(&mut told) {
                done &= drain.advance(|over| {
                    *told += 1;
                    world.found.tell_status(over.status);
                    let op = ops
                        .iter_mut()
                        .find(|op| op.id == over.id)
                        .expect("of these");
                    assert_eq!(op.told.replace(over.status), None, "told twice");
                    op.leave();
                });
            }
            match done {
                true => Moved::Done,
                false if told != before => Moved::Something,
                false => Moved::Nothing,
            }
        });
        for ((drain, outstanding), told) in drains.into_iter().zip(outstanding).zip(told) {
            let drained = drain.finish();
            let sum = drained.completed + drained.released + drained.leaked;
            assert_eq!(sum, outstanding, "{drained:?}");
            assert_eq!(
                (drained.completed, drained.leaked),
                (told, 0),
                "{drained:?}"
            );
            if let Some(error) = drained.error {
                world.tell_error(&error);
            }
            if drained.released > 0 {
                world.found.tell("`Drained::released`");
            }
        }
        for op in &mut ops {
            world.found.untold += usize::from(op.told.is_none());
            world.found.failed += usize::from(op.told.is_some_and(|status| !status.is_success()));
            if op.left.is_none() {
                op.leave();
            }
            if let What::Write { cell } = op.what {
                cells.written(cell, op.pattern, op.told == Some(WcStatus::Success));
            }
        }
        ops
    }
}
