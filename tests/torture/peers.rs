//! Two queue pairs over memory that peers may write at any moment: what one end does to a board through
//! a [`RemoteMr`], and messages from and to such memory.

use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::Duration;

use rdma_mr::op::{Begin, Endpoint, Gather};
use rdma_mr::work::{QueuePair, WcStatus};
use rdma_mr::{LocalMr, LocalMrReadAccess, MrAccess, RemoteMr, Result, SharedMr, SharedMrAccess};

use super::lane::CAPS;
use super::random::Random;
use super::record::is_of_keys;
use super::report::{count, fail, failed, loses_answers_of, mismatch, progress};
use super::shared::{BODY, Board, OURS, PLACE, SUM, THEIRS, body, check_body};
use super::{Victim, World};
use crate::fabric::Fabric;

/// Memory of this side, of the one type or the other.
enum Side {
    Local(LocalMr),
    Shared(SharedMr),
}

impl Side {
    fn new<F: Fabric>(fabric: &F, bytes: &[u8], random: &mut Random) -> Self {
        if random.once_in(2) {
            return Side::Local(fabric.region(bytes));
        }
        let mr = SharedMr::alloc(fabric.pd(), bytes.len(), rdma_mr::Access::default()).unwrap();
        mr.write_from(0, bytes).unwrap();
        Side::Shared(mr)
    }

    fn mr(&self) -> &dyn MrAccess {
        match self {
            Side::Local(mr) => mr,
            Side::Shared(mr) => mr,
        }
    }

    /// All operations on it are over.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.mr().length()];
        match self {
            Side::Local(mr) => bytes.copy_from_slice(&mr.as_slice()),
            Side::Shared(mr) => mr.read_into(0, &mut bytes).unwrap(),
        }
        bytes
    }

    fn integer(&self) -> u64 {
        u64::from_ne_bytes(self.bytes().try_into().expect("8 bytes"))
    }
}

struct Round<'w, F: Victim> {
    world: &'w World<F>,
    board: &'w Board,
    ends: [Endpoint<F::Qp>; 2],
    remote: RemoteMr,
    /// What the place holds, for who has the turn.
    turn: Option<MutexGuard<'w, Option<Vec<u8>>>>,
    random: Random,
}

/// Two new queue pairs, some steps, and the end, now and then in the middle of a step.
pub fn round<F: Victim>(world: &World<F>, random: &mut Random) {
    let Some(boards) = &world.boards else { return };
    let board: Arc<Board> = boards.any(random);
    if random.once_in(10) {
        boards.replace(world.fabric.pd(), random);
    }
    let [cq_a, cq_b] = [(); 2].map(|()| world.fabric.cq(128));
    let (a, b) = world.fabric.queue_pairs(&cq_a, &cq_b, CAPS);
    let token = board.mr.token_with_timeout(Duration::from_secs(3600));
    let mut round = Round {
        world,
        board: &board,
        ends: [a, b].map(Endpoint::new),
        remote: RemoteMr::new(token.expect("an hour from now")).unwrap(),
        turn: board.turn.try_lock().ok(),
        random: Random(random.next()),
    };
    let mut steps = random.within(5..40);
    while steps > 0 && round.step().is_some() {
        steps -= 1;
    }
    if steps > 0 {
        count("shared pair broken");
    }
    let Round { ends, turn, .. } = round;
    for end in ends {
        if let Err((_, error)) = end.close() {
            fail(error);
        }
    }
    turn.into_iter().for_each(|turn| board.settle(turn));
    count("pair over shared memory");
}

impl<F: Victim> Round<'_, F> {
    /// `None` if that was the last one: the queue pairs are broken, or are to be.
    fn step(&mut self) -> Option<()> {
        match self.random.below(8) {
            0 | 1 if self.turn.is_some() => self.write_record(),
            2 if self.turn.is_some() => self.write_place(),
            3 => self.read_record(OURS),
            4 => self.read_record(THEIRS),
            5 => self.add(),
            6 => {
                // As readers do, and against them.
                self.world.boards.as_ref()?.look(&mut self.random);
                Some(())
            }
            _ => self.message(),
        }
    }

    fn side(&mut self, bytes: &[u8]) -> Side {
        Side::new(&self.world.fabric, bytes, &mut self.random)
    }

    /// Looks at the peers' record until so many operations of both ends are over; `None` if one has failed.
    fn finish(&mut self, mut left: usize) -> Option<()> {
        let mut broken = false;
        while left > 0 {
            for end in &mut self.ends {
                let polled = end.poll(|done| {
                    progress();
                    left -= 1;
                    broken |= done.status != WcStatus::Success;
                    if is_of_keys(done.status) {
                        fail(format_args!("over shared memory: {done:?}"));
                    }
                });
                if let Err(error) = polled {
                    fail(error);
                }
            }
            // What has not completed is held.
            if broken || failed() {
                return None;
            }
            // While the NIC writes it, maybe.
            self.board.look(THEIRS);
            thread::yield_now();
        }
        Some(())
    }

    /// Writes the peers' record, in one of the two ways, or breaks off in the middle.
    fn write_record(&mut self) -> Option<()> {
        let before: u64 = self.board.mr.load(THEIRS).unwrap();
        let new = self.side(&body(before / 2 + 1));
        let by_atomics = self.random.once_in(2);
        self.change_version(before + 1, by_atomics);
        if self.random.once_in(15) {
            count("failure queue pair to ERR");
            let _ = self.ends[0].qp().modify_to_error();
            return None;
        }
        if by_atomics {
            self.finish(1)?;
        }
        let to = self.remote.get_mut(THEIRS + 8..THEIRS + 8 + BODY).unwrap();
        let hold = new.mr().begin_read().unwrap();
        posted(self.ends[0].write(hold, to, None));
        if self.random.once_in(30) {
            return None;
        }
        self.change_version(before + 2, by_atomics);
        self.drop_in_flight(new);
        self.finish(if by_atomics { 2 } else { 3 })?;
        count(match by_atomics {
            true => "shared record by atomics",
            false => "shared record by WRITEs",
        });
        Some(())
    }

    fn change_version(&mut self, version: u64, by_atomics: bool) {
        let side = self.side(&version.to_ne_bytes());
        let mut to = self.remote.get_mut(THEIRS..THEIRS + 8).unwrap();
        let end = &mut self.ends[0];
        posted(match by_atomics {
            true => end.fetch_add(side.mr().begin_write().unwrap(), &to, 1),
            false => end.write(side.mr().begin_read().unwrap(), &mut to, None),
        });
        self.drop_in_flight(side);
    }

    /// The operation goes on, which was in nobody's way.
    fn drop_in_flight(&self, side: Side) {
        let Side::Shared(mr) = side else { return };
        if let Err(error) = mr.try_begin_write() {
            fail(format_args!("shared memory excludes somebody: {error}"));
        }
        if !mr.state().is_free() {
            count("shared dropped in flight");
        }
    }

    /// Version, body, version.
    fn read_record(&mut self, record: usize) -> Option<()> {
        let sides = [8, BODY, 8].map(|length| self.side(&vec![0; length]));
        for (side, at) in sides.iter().zip([record, record + 8, record]) {
            let from = self.remote.get(at..).unwrap();
            posted(self.ends[0].read(side.mr().begin_write().unwrap(), from));
            self.finish(1)?;
        }
        let [before, body, after] = sides;
        let version = before.integer();
        match version == after.integer() && version % 2 == 0 {
            true if loses_answers_of(BODY) => count("shared record not to be trusted"),
            true => check_body(record, version, &body.bytes()),
            false => count("shared record changed between READs"),
        }
        count("shared record READ");
        Some(())
    }

    /// The peer, and now and then this side at once.
    fn add(&mut self) -> Option<()> {
        let side = self.side(&[0; 8]);
        let sum = self.remote.get(SUM..SUM + 8).unwrap();
        posted(self.ends[0].fetch_add(side.mr().begin_write().unwrap(), sum, 1));
        if self.random.once_in(2) {
            self.board.add();
        }
        let finished = self.finish(1);
        self.board.has_added(finished.is_some());
        count("shared integer");
        finished
    }

    /// What is there is what went there last.
    fn write_place(&mut self) -> Option<()> {
        let (turn, board) = (self.turn.as_deref_mut()?, self.board);
        let mut bytes = turn.take()?;
        let mut there = vec![0; bytes.len()];
        board.mr.read_into(PLACE, &mut there).unwrap();
        if there != bytes {
            mismatch("a place in shared memory has changed");
        }
        self.random.fill(&mut bytes);
        let from = self.side(&bytes);
        let to = self.remote.get_mut(PLACE..).unwrap();
        let hold = from.mr().begin_read().unwrap();
        posted(self.ends[0].write(hold, to, None));
        self.finish(1)?;
        *self.turn.as_deref_mut()? = Some(bytes);
        count("shared place written");
        Some(())
    }

    /// A message from memory of both types into memory of both types.
    fn message(&mut self) -> Option<()> {
        let mut bytes = vec![0; self.random.within(2..1500)];
        self.random.fill(&mut bytes);
        let (front, back) = bytes.split_at(self.random.within(1..bytes.len()));
        let from = [front, back].map(|bytes| self.side(bytes));
        let to = [front, back].map(|bytes| self.side(&vec![0; bytes.len()]));
        let into = Gather::new([to[0].mr(), to[1].mr()]);
        posted(self.ends[1].recv(into.begin_write().unwrap()));
        let out = Gather::new([from[0].mr(), from[1].mr()]);
        posted(self.ends[0].send(out.begin_read().unwrap(), None));
        for side in from {
            self.drop_in_flight(side);
        }
        self.finish(2)?;
        if to.map(|side| side.bytes()).concat() != bytes {
            mismatch("a message into shared memory is wrong");
        }
        count("shared message");
        Some(())
    }
}

/// It was: there is room, and all of it is in order.
fn posted<T, H>(result: Result<T, rdma_mr::Rejected<H>>) {
    if let Err(rejected) = result {
        fail(format_args!("over shared memory: {}", rejected.error));
    }
}
