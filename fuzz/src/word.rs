//! Every reading and every transition of the word, for any of its 2⁶⁴ values, against a naive model: a struct with the
//! fields that the legend in `src/gate/word.rs` draws. And programs of holds that come and go, with retirements among
//! them, against a list of the holds.
//!
//! The word is private; its file imports nothing, so it is compiled here once more.

use arbitrary::Arbitrary;

use crate::place;

#[allow(dead_code, reason = "not all of it is for here")]
#[path = "../../src/gate/word.rs"]
mod bits;

use bits::{Entry, Holder, Kind, Owed, Stage, Word};

const HOLDERS: [Holder; 4] = [
    Holder::CpuRead,
    Holder::NicRead,
    Holder::CpuWrite,
    Holder::NicWrite,
];
const KINDS: [Kind; 6] = [
    Kind::NicRead,
    Kind::NewRead,
    Kind::SharedWrite,
    Kind::CpuRead,
    Kind::CpuWrite,
    Kind::NicWrite,
];
const STAGES: [Stage; 4] = [Stage::Start, Stage::Reads, Stage::Write, Stage::Over];
/// Steps of one program, at most: what longer ones find, short ones do, and sooner.
const STEPS: usize = 64;
/// So many of one shared kind are let in.
const FULL: u64 = 1 << 19;
/// So many new reads are.
const NEW_FULL: u64 = 1 << 12;

/// Any value, and what is done from the free gate on.
#[derive(Arbitrary, Debug)]
pub struct Program {
    bits: u64,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Enter(u8),
    Leave(u8),
    Flag(Flag),
    Retire,
}

/// What is set beside the holds.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Flag {
    WaitShared,
    WaitExclusive,
    Pending,
    Closed,
}

/// The word as its legend draws it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fields {
    readers: u64,
    new_reads: u64,
    reads: u64,
    may_bias: bool,
    wait_old: bool,
    retiring: bool,
    biased: bool,
    orphaned: bool,
    closed: bool,
    pending: bool,
    wait_exclusive: bool,
    wait_shared: bool,
    nic_writes: bool,
    cpu_writes: bool,
}

impl Fields {
    fn of(bits: u64) -> Self {
        let number = |low: u32, above: u32| bits << (64 - above) >> (64 - above + low);
        let flag = |at: u32| number(at, at + 1) == 1;
        Fields {
            readers: number(44, 64),
            new_reads: number(31, 44),
            reads: number(11, 31),
            may_bias: flag(7),
            wait_old: flag(9),
            retiring: flag(8),
            biased: flag(10),
            orphaned: flag(6),
            closed: flag(5),
            pending: flag(4),
            wait_exclusive: flag(3),
            wait_shared: flag(2),
            nic_writes: flag(1),
            cpu_writes: flag(0),
        }
    }

    fn shared(self) -> bool {
        self.readers + self.reads + self.new_reads > 0
    }

    fn exclusive(self) -> bool {
        self.cpu_writes || self.nic_writes
    }

    fn free(self) -> bool {
        !self.shared() && !self.exclusive()
    }

    fn entry(self, holder: Holder) -> Entry {
        match holder {
            Holder::NicRead | Holder::NicWrite if self.closed => Entry::Closed,
            _ if self.exclusive() => Entry::Held,
            Holder::CpuWrite | Holder::NicWrite if self.shared() => Entry::Held,
            Holder::CpuWrite | Holder::NicWrite => Entry::Open,
            Holder::CpuRead if self.readers >= FULL => Entry::Full,
            Holder::NicRead if self.reads >= FULL => Entry::Full,
            _ if self.pending => Entry::StandBack,
            _ => Entry::Open,
        }
    }

    /// Without one hold of that kind; `None` if there is none.
    fn without(mut self, kind: Kind) -> Option<Self> {
        let take = |count: &mut u64| {
            *count = count.checked_sub(1)?;
            Some(())
        };
        match kind {
            Kind::CpuRead => take(&mut self.readers)?,
            Kind::NewRead => take(&mut self.new_reads)?,
            Kind::NicRead | Kind::SharedWrite => take(&mut self.reads)?,
            Kind::CpuWrite if self.cpu_writes => self.cpu_writes = false,
            Kind::NicWrite if self.nic_writes => self.nic_writes = false,
            Kind::CpuWrite | Kind::NicWrite => return None,
        }
        Some(self)
    }

    /// How many holds are in the field of that kind.
    fn count(self, kind: Kind) -> u64 {
        match kind {
            Kind::CpuRead => self.readers,
            Kind::NewRead => self.new_reads,
            Kind::NicRead | Kind::SharedWrite => self.reads,
            Kind::CpuWrite => self.cpu_writes.into(),
            Kind::NicWrite => self.nic_writes.into(),
        }
    }

    fn owed(self, kind: Kind) -> Option<Owed> {
        let left = self.without(kind)?;
        let emptied = left.wait_old && left.count(kind) == 0;
        let lets_in = left.free() && left.wait_exclusive;
        let wake = match kind.holder() {
            Holder::CpuRead => lets_in,
            Holder::NicRead => lets_in || emptied,
            Holder::CpuWrite | Holder::NicWrite => {
                left.wait_exclusive || left.wait_shared || left.wait_old
            }
        };
        let last = left.free() && left.orphaned;
        let make_way = kind == Kind::CpuRead && left.exclusive();
        Some(Owed {
            wake,
            last,
            make_way,
        })
    }

    /// After the release of an exclusive hold.
    fn exclusive_left(self, holder: Holder) -> Self {
        Fields {
            cpu_writes: self.cpu_writes && holder != Holder::CpuWrite,
            nic_writes: self.nic_writes && holder != Holder::NicWrite,
            wait_shared: false,
            wait_exclusive: false,
            retiring: false,
            wait_old: false,
            biased: false,
            ..self
        }
    }

    fn retire(self, stage: Stage) -> (Self, Stage) {
        let marks = |retiring, wait_old| Fields {
            retiring,
            wait_old,
            ..self
        };
        match stage {
            Stage::Over => (self, Stage::Over),
            Stage::Start if self.new_reads > 0 => (marks(false, true), Stage::Start),
            Stage::Start if self.nic_writes => (marks(true, true), Stage::Write),
            Stage::Start if self.reads > 0 => (marks(true, true), Stage::Reads),
            Stage::Start => (marks(false, false), Stage::Over),
            // An exclusive hold has ended meanwhile.
            _ if !self.retiring => (marks(false, false), Stage::Over),
            Stage::Write => (marks(true, true), Stage::Write),
            Stage::Reads if self.reads > 0 => (marks(true, true), Stage::Reads),
            Stage::Reads => (marks(false, false), Stage::Over),
        }
    }
}

/// All that can be read off one value, and all that can become of it in one step.
fn check(bits: u64) {
    let (word, fields) = (Word::from_bits(bits), Fields::of(bits));
    assert_eq!(word.bits(), bits);
    assert_eq!(word.readers(), fields.readers);
    assert_eq!(word.nic_reads(), fields.reads + fields.new_reads);
    assert_eq!(word.has_shared_holders(), fields.shared());
    assert_eq!(word.is_free(), fields.free());
    let publishes = fields.biased && !fields.exclusive() && !fields.pending;
    assert_eq!(word.lets_publish(), publishes);
    for holder in HOLDERS {
        check_entry(word, fields, holder);
    }
    for kind in KINDS {
        if let Some(owed) = fields.owed(kind) {
            assert_eq!(word.after_release(kind), owed, "{kind:?} {fields:?}");
            let done = word.release_is_done(kind.holder());
            let owes = owed.wake || owed.last || owed.make_way;
            assert!(!done || !owes, "{kind:?} {fields:?}");
        }
    }
    for stage in STAGES {
        let (next, then) = word.retire(stage);
        let got = (Fields::of(next.bits()), then);
        assert_eq!(got, fields.retire(stage), "{stage:?} {fields:?}");
    }
}

fn check_entry(word: Word, fields: Fields, holder: Holder) {
    let entry = fields.entry(holder);
    assert_eq!(word.entry(holder), entry, "{holder:?} {fields:?}");
    let apart = holder == Holder::NicRead && fields.retiring;
    let counted_apart = word.kind(holder) == Kind::NewRead;
    assert_eq!(counted_apart, apart && fields.new_reads < NEW_FULL);
    let biased = holder != Holder::NicRead && fields.may_bias;
    let barred = entry != Entry::Open || apart || biased;
    assert_eq!(
        word.has(Word::bars(holder)),
        barred,
        "{holder:?} {fields:?}"
    );
    let refused = word.has(Word::refuses(holder));
    let stays = word.has(Word::bars_shared(holder));
    if holder.is_shared() {
        assert_eq!(refused, fields.exclusive());
        // Who was added stands, or takes itself back, whether or not it was asked to stand back.
        assert_eq!(!stays, matches!(entry, Entry::Open | Entry::StandBack));
        return;
    }
    assert_eq!(refused, entry != Entry::Open);
    let closed = holder == Holder::NicWrite && fields.closed;
    let others = fields.exclusive() || fields.reads + fields.new_reads > 0;
    assert_eq!(word.lets_ahead(holder), !others && !closed);
    let mut with = fields;
    (with.pending, with.cpu_writes, with.nic_writes) = (
        false,
        fields.cpu_writes || holder == Holder::CpuWrite,
        fields.nic_writes || holder == Holder::NicWrite,
    );
    assert_eq!(Fields::of(word.with_exclusive(holder).bits()), with);
    let left = Fields::of(word.bits() & Word::exclusive_release_mask(holder));
    assert_eq!(left, fields.exclusive_left(holder));
}

/// The word of a gate as it is changed by one thread, and what it stands for.
struct Gate {
    word: Word,
    /// Each hold, and when it began.
    holds: Vec<(Kind, usize)>,
    stage: Stage,
    /// When the retirement under way began.
    since: usize,
}

impl Gate {
    fn step(&mut self, step: Step, now: usize) {
        match step {
            Step::Enter(holder) => self.enter(HOLDERS[usize::from(holder) % 4], now),
            Step::Leave(at) => {
                if let Some(at) = place(at, self.holds.len()) {
                    self.leave(at);
                }
            }
            Step::Flag(flag) => {
                let bit = match flag {
                    Flag::WaitShared => Word::WAIT_SHARED,
                    Flag::WaitExclusive => Word::WAIT_EXCL,
                    Flag::Pending => Word::PENDING,
                    Flag::Closed => Word::CLOSED,
                };
                self.word = Word::from_bits(self.word.bits() | bit);
            }
            Step::Retire => self.retire(now),
        }
        check(self.word.bits());
        let fields = Fields::of(self.word.bits());
        for kind in KINDS.into_iter().filter(|kind| *kind != Kind::SharedWrite) {
            let held = self.holds.iter().filter(|(held, _)| *held == kind).count();
            assert_eq!(fields.count(kind), held as u64, "{kind:?}");
        }
    }

    fn enter(&mut self, holder: Holder, now: usize) {
        let kind = self.word.kind(holder);
        let open = matches!(self.word.entry(holder), Entry::Open | Entry::StandBack);
        let alone = self.holds.is_empty();
        let shares = self.holds.iter().all(|(held, _)| held.holder().is_shared());
        let closed = holder.is_nic() && self.word.has(Word::CLOSED);
        let free = alone || shares && holder.is_shared();
        assert_eq!(open, free && !closed, "{holder:?} beside {:?}", self.holds);
        if !open {
            return;
        }
        self.word = match holder.is_shared() {
            true => Word::from_bits(self.word.bits() + kind.unit()),
            false => self.word.with_exclusive(holder),
        };
        self.holds.push((kind, now));
    }

    fn leave(&mut self, at: usize) {
        let (kind, _) = self.holds.swap_remove(at);
        let holder = kind.holder();
        let bits = self.word.bits();
        self.word = Word::from_bits(match holder.is_shared() {
            true => bits - kind.unit(),
            false => bits & Word::exclusive_release_mask(holder),
        });
    }

    /// Over is a retirement when no operation is left that began before it.
    fn retire(&mut self, now: usize) {
        if self.stage == Stage::Over {
            (self.stage, self.since) = (Stage::Start, now);
        }
        (self.word, self.stage) = self.word.retire(self.stage);
        let old = |(kind, began): &(Kind, usize)| kind.holder().is_nic() && *began < self.since;
        let left = self.holds.iter().any(old);
        assert!(!left || self.stage != Stage::Over, "{:?}", self.holds);
        if self.holds.is_empty() {
            assert_eq!(self.stage, Stage::Over);
        }
    }
}

/// Carries it out.
///
/// # Panics
/// If the word is not what its legend says.
pub fn run(program: Program) {
    check(program.bits);
    let mut gate = Gate {
        word: Word::from_bits(0),
        holds: Vec::new(),
        stage: Stage::Over,
        since: 0,
    };
    for (now, step) in program.steps.into_iter().take(STEPS).enumerate() {
        gate.step(step, now);
    }
}
