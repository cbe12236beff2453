//! Every operation, given up at every await point: all that a future can wait for is in its way, one
//! after the other, and for each number of polls that were pending it is dropped and forgotten.

use std::task::{Poll, Waker};

use rdma_mr::gate::Writer;
use rdma_mr::op::{Begin, Hold};
use rdma_mr::{LocalMr, LocalMrReadAccess, MrReadGuard};

use super::subject::{CUTS, Count, Cut, Subject};
use super::world::{Held, Kind, TurnTaken, World, bytes, held};
use crate::fabric::Fabric;

/// What a future waits for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    /// One who reads stands back for one who wants to write: one trip through the executor.
    StandBack,
    FirstRegion,
    SecondRegion,
    Turn,
    Room,
    /// When there is room.
    TurnAgain,
    Completion,
}

/// Who is in the way of the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InTheWay {
    /// Operations that write them.
    Writes,
    /// A guard and an operation that read them.
    Reads,
    /// A guard, and one who waits for it to write.
    Wish,
}

fn cases(kind: Kind) -> [InTheWay; 2] {
    let other = if kind.reads() {
        InTheWay::Wish
    } else {
        InTheWay::Reads
    };
    [InTheWay::Writes, other]
}

/// The await points.
fn waits(kind: Kind, case: InTheWay) -> Vec<Wait> {
    let mut waits = match (case, kind.regions()) {
        (InTheWay::Wish, _) => vec![Wait::StandBack],
        (_, 1) => vec![Wait::FirstRegion],
        (_, _) => vec![Wait::FirstRegion, Wait::SecondRegion],
    };
    waits.extend([Wait::Turn, Wait::Room, Wait::TurnAgain, Wait::Completion]);
    waits
}

/// Those who are in the way of one region; dropped in this order.
#[derive(Default)]
struct Blocked<'a> {
    _wish: Option<Subject<'a, rdma_mr::Result<Hold>>>,
    _hold: Option<Hold>,
    _guard: Option<MrReadGuard<'a>>,
}

impl<'a> Blocked<'a> {
    fn new(case: InTheWay, mr: &'a LocalMr) -> Self {
        let guard = (case != InTheWay::Writes).then(|| mr.as_slice());
        Blocked {
            _wish: (case == InTheWay::Wish).then(|| Subject::new(mr.begin_write_async()).pending()),
            _hold: match case {
                InTheWay::Writes => Some(mr.begin_write().unwrap()),
                InTheWay::Reads => Some(mr.begin_read().unwrap()),
                InTheWay::Wish => None,
            },
            _guard: guard,
        }
    }

    fn as_held(case: InTheWay) -> Held {
        match case {
            InTheWay::Writes => (0, 0, Some(Writer::Nic)),
            InTheWay::Reads => (1, 1, None),
            InTheWay::Wish => (1, 0, None),
        }
    }
}

/// One run: to the end, or given up after that many pending polls.
struct Run<'a, F: Fabric> {
    world: &'a World<'a, F>,
    kind: Kind,
    case: InTheWay,
    mine: &'a [LocalMr; 2],
    blocked: [Option<Blocked<'a>>; 2],
    turn: Option<TurnTaken>,
    filled: bool,
}

impl<'a, F: Fabric> Run<'a, F> {
    fn new(world: &'a World<'a, F>, kind: Kind, case: InTheWay, mine: &'a [LocalMr; 2]) -> Self {
        world.expect(kind);
        world.fill(kind);
        let turn = Some(world.take_turn());
        let mut blocked = [None, None];
        let count = if case == InTheWay::Wish {
            1
        } else {
            kind.regions()
        };
        for (place, mr) in blocked.iter_mut().zip(&mine[..count]) {
            *place = Some(Blocked::new(case, mr));
        }
        let filled = true;
        Run {
            world,
            kind,
            case,
            mine,
            blocked,
            turn,
            filled,
        }
    }

    /// What is waited for comes.
    fn grant(&mut self, wait: Wait) {
        match wait {
            // Nobody comes and goes: it has woken itself.
            Wait::StandBack => {}
            Wait::FirstRegion => self.blocked[0] = None,
            Wait::SecondRegion => self.blocked[1] = None,
            Wait::Turn | Wait::TurnAgain => self.turn.take().unwrap().let_go(),
            Wait::Room => {
                self.make_room();
                self.turn = Some(self.world.take_turn());
            }
            Wait::Completion => {
                if self.kind.is_recv() {
                    self.world.message(8 * self.kind.regions());
                }
                self.world.finish();
            }
        }
    }

    fn make_room(&mut self) {
        if std::mem::take(&mut self.filled) && self.kind.is_recv() {
            self.world.message(8);
        }
        self.world.finish();
    }

    /// Whether the future has that region while it waits there.
    fn has(&self, region: usize, wait: Wait) -> bool {
        region < self.kind.regions()
            && (wait >= Wait::Turn || region == 0 && wait == Wait::SecondRegion)
    }

    /// Each region is held by whom it is to be: those in the way, and `mine` if that is true.
    #[track_caller]
    fn assert_held(&self, mine: impl Fn(usize) -> bool) {
        for (at, mr) in self.mine.iter().enumerate() {
            let (readers, mut nic_reads, mut writer) = match self.blocked[at] {
                Some(_) => Blocked::as_held(self.case),
                None => (0, 0, None),
            };
            match (mine(at), self.kind.reads()) {
                (false, _) => {}
                (true, true) => nic_reads += 1,
                (true, false) => writer = Some(Writer::Nic),
            }
            assert_eq!(held(mr), (readers, nic_reads, writer), "region {at}");
        }
    }

    /// What is outstanding beside the operation: only what is in the way.
    fn others(&self, wait: Wait) -> (usize, usize) {
        match wait {
            Wait::TurnAgain | Wait::Completion => (1, 0),
            _ if self.kind.is_recv() => (1, 1),
            _ => (2, 0),
        }
    }

    /// The operation too.
    fn outstanding(&self, wait: Wait) -> (usize, usize) {
        let (sends, recvs) = self.others(wait);
        match (wait == Wait::Completion, self.kind.is_recv()) {
            (false, _) => (sends, recvs),
            (true, false) => (sends + 1, recvs),
            (true, true) => (sends, recvs + 1),
        }
    }

    fn assert_waits(&self, wait: Wait) {
        self.assert_held(|region| self.has(region, wait));
        assert_eq!(self.world.a.outstanding(), self.outstanding(wait));
    }
}

/// Polls until it pends; twice, with another waker, if `twice`: then the first is out of the game.
fn pend<T>(subject: &mut Subject<'_, T>, twice: bool) -> Vec<std::sync::Arc<Count>> {
    let mut counts = Vec::new();
    for _ in 0..=usize::from(twice) {
        let (count, waker) = Count::new();
        assert!(subject.poll(&waker).is_pending());
        counts.push(count);
    }
    counts
}

/// Says which run it was that failed.
struct Told(Kind, InTheWay, Option<(usize, Cut)>, bool);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Told(kind, case, cut, twice) = self;
            eprintln!("{kind:?}, {case:?}, cut {cut:?}, polled twice: {twice}");
        }
    }
}

fn run<F: Fabric>(fabric: &F, kind: Kind, case: InTheWay, cut: Option<(usize, Cut)>, twice: bool) {
    let _told = Told(kind, case, cut, twice);
    let world = World::new(fabric);
    let mine = world.regions(kind);
    let (before, mine_before) = (bytes(&world.there), mine.each_ref().map(bytes));
    let mut run = Run::new(&world, kind, case, &mine);
    let mut subject = world.operation(kind, &mine);
    let waits = waits(kind, case);
    let last = cut.map_or(waits.len(), |(after, _)| after);
    for (at, wait) in waits.iter().enumerate().take(last) {
        let counts = pend(&mut subject, twice && *wait != Wait::StandBack);
        run.assert_waits(*wait);
        if at + 1 == last && cut.is_some() {
            break;
        }
        run.grant(*wait);
        let (woken, others) = counts.split_last().unwrap();
        assert!(woken.get() > 0, "not woken at {wait:?}");
        // The lists of those who wait at gates are shared with other tests, which may wake as well.
        if *wait >= Wait::Room && *wait != Wait::TurnAgain {
            assert!(
                others.iter().all(|count| count.get() == 0),
                "the wrong one woken at {wait:?}"
            );
        }
    }
    let Some((after, how)) = cut else {
        let Poll::Ready(result) = subject.poll(Waker::noop()) else {
            panic!("an await point more than those that are known");
        };
        assert!(result.unwrap().status.is_success());
        run.blocked = [None, None];
        run.assert_held(|_| false);
        return world.assert_arrived(kind, &before, &mine);
    };
    subject.cut(how);
    // Never polled, it waits for nothing.
    let wait = after.checked_sub(1).map(|at| waits[at]);
    let posted = wait == Some(Wait::Completion);
    let kept =
        |run: &Run<'_, F>, at| how == Cut::Forget && wait.is_some_and(|wait| run.has(at, wait));
    run.assert_held(|at| posted && at < kind.regions() || kept(&run, at));
    assert_eq!(
        world.a.outstanding(),
        run.outstanding(wait.unwrap_or(Wait::FirstRegion))
    );
    // The rest of the world goes on.
    run.blocked = [None, None];
    if let Some(turn) = run.turn.take() {
        turn.let_go();
    }
    if posted {
        world.fabric.act();
        run.assert_held(|at| at < kind.regions());
        run.grant(Wait::Completion);
    } else {
        run.make_room();
    }
    subject.assert_untouched();
    run.assert_held(|at| !posted && kept(&run, at));
    if posted {
        world.assert_arrived(kind, &before, &mine);
        world.expect(kind);
    } else {
        assert_eq!(bytes(&world.there), before, "posted");
        for (mr, before) in mine.iter().zip(mine_before) {
            assert!(
                mr.try_as_slice().is_none_or(|now| *now == before[..]),
                "posted"
            );
        }
    }
    let others = world.regions(kind);
    let all_free = mine.iter().all(|mr| mr.state().is_free());
    world.run(kind, if all_free { &mine } else { &others });
    if how == Cut::Drop {
        let left = mine.each_ref().map(|mr| mr.state());
        assert!(
            left.iter()
                .all(|left| left.is_free() && !left.pending && !left.waiting_exclusive)
        );
    }
}

/// For every operation and everything that it can meet: given up after 0, 1, 2, … pending polls.
pub fn r9_futures_given_up_at_every_await_point<F: Fabric>(fabric: &F) {
    for kind in Kind::ALL {
        for case in cases(kind) {
            for twice in [false, true] {
                run(fabric, kind, case, None, twice);
                for after in 0..=waits(kind, case).len() {
                    for how in CUTS {
                        run(fabric, kind, case, Some((after, how)), twice);
                    }
                }
            }
        }
    }
}
