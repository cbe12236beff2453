//! Histories of what threads asked of a gate and were answered, and whether there is an order of all of it, one after
//! the other, that gives the same answers (Wing and Gong's search, with what was seen before remembered).

use std::collections::HashSet;

/// How somebody wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    CpuRead,
    NicRead,
    CpuWrite,
    NicWrite,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::CpuRead, Kind::NicRead, Kind::CpuWrite, Kind::NicWrite];

    pub fn is_shared(self) -> bool {
        matches!(self, Kind::CpuRead | Kind::NicRead)
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Now or not at all.
    Try(Kind),
    /// However long it takes.
    Wait(Kind),
    /// Gives a hold back.
    Release(Kind),
}

/// What was asked and answered. The times are numbers that only grow: that of the question was drawn before it, that of
/// the answer after it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub asked: u64,
    pub answered: u64,
    pub ask: Ask,
    /// Whether who asked was let in.
    pub granted: bool,
}

impl Call {
    fn overlaps(&self, other: &Call) -> bool {
        self.asked < other.answered && other.asked < self.answered
    }
}

/// What a gate is: who is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    shared: [u8; 2],
    exclusive: Option<Kind>,
}

impl State {
    fn admits(&self, kind: Kind) -> bool {
        self.exclusive.is_none() && (kind.is_shared() || self.shared == [0, 0])
    }

    fn count(&mut self, kind: Kind) -> &mut u8 {
        &mut self.shared[usize::from(kind == Kind::NicRead)]
    }

    fn enter(mut self, kind: Kind) -> Self {
        match kind.is_shared() {
            true => *self.count(kind) += 1,
            false => self.exclusive = Some(kind),
        }
        self
    }

    fn leave(mut self, kind: Kind) -> Self {
        match kind.is_shared() {
            true => *self.count(kind) -= 1,
            false => self.exclusive = None,
        }
        self
    }

    /// What comes of that call, if it can be answered so.
    fn after(self, call: &Call, may_be_refused: bool) -> Option<Self> {
        match call.ask {
            Ask::Release(kind) => Some(self.leave(kind)),
            Ask::Try(kind) | Ask::Wait(kind) if call.granted => {
                self.admits(kind).then(|| self.enter(kind))
            }
            Ask::Try(kind) => (!self.admits(kind) || may_be_refused).then_some(self),
            Ask::Wait(_) => None,
        }
    }
}

/// Whether a `try` may be refused although the way is open. A shared one, while an exclusive side waits for others to
/// leave; an exclusive one, while somebody shared who was too late takes a count back, and so is refused, or waits. With
/// read bias an exclusive side bars the way before it looks whom it would meet, and a reader who was too late may come in
/// by the other way in the same call.
fn may_be_refused(calls: &[Call], at: usize, biased: bool) -> bool {
    let Ask::Try(kind) = calls[at].ask else {
        return false;
    };
    let excuses = |other: &Call| match other.ask {
        Ask::Wait(other) => other.is_shared() != kind.is_shared(),
        Ask::Try(exclusive) if kind.is_shared() => !exclusive.is_shared() && biased,
        Ask::Try(shared) => shared.is_shared() && (biased || !other.granted),
        Ask::Release(_) => false,
    };
    calls
        .iter()
        .any(|other| other.overlaps(&calls[at]) && excuses(other))
}

/// Whether some order explains all answers. At most 64 calls.
pub fn is_linearizable(calls: &[Call], biased: bool) -> bool {
    let lenient: Vec<bool> = (0..calls.len())
        .map(|at| may_be_refused(calls, at, biased))
        .collect();
    let mut seen = HashSet::new();
    let mut open = vec![(0_u64, State::default())];
    while let Some((done, state)) = open.pop() {
        if done.count_ones() as usize == calls.len() {
            return true;
        }
        if !seen.insert((done, state)) {
            continue;
        }
        let left = || (0..calls.len()).filter(|at| done & 1 << at == 0);
        let first_answer = left().map(|at| calls[at].answered).min();
        for at in left().filter(|at| Some(calls[*at].asked) < first_answer) {
            if let Some(next) = state.after(&calls[at], lenient[at]) {
                open.push((done | 1 << at, next));
            }
        }
    }
    false
}
