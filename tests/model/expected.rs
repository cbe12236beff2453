//! What should come of each step, by the reference alone.

use std::ops::Range;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::reference::{Kind, Reference};

pub const LENGTH: usize = 64;

/// Parts, holds and leases are named by numbers that are taken modulo how many there are.
#[derive(Clone, Debug)]
pub enum Step {
    Read {
        part: usize,
        bytes: (usize, usize),
    },
    Write {
        part: usize,
        bytes: (usize, usize),
        byte: u8,
    },
    Begin {
        part: usize,
        bytes: (usize, usize),
        writes: bool,
    },
    /// The hold is given back; before that its operation is carried out, with these bytes on the other side.
    End {
        hold: usize,
        carried_out: Option<u8>,
    },
    Lease {
        part: usize,
        bytes: (usize, usize),
        writes: bool,
    },
    /// The peer writes, if it may; then the lease is over.
    Revoke {
        lease: usize,
        byte: Option<u8>,
    },
    Split {
        part: usize,
        at: usize,
    },
    /// With the part behind it, or any other.
    Join {
        part: usize,
        next: Option<usize>,
    },
    Rotate {
        part: usize,
        local_write: bool,
    },
    Shutdown {
        part: usize,
    },
    Drop {
        part: usize,
    },
}

/// What should be, before the step that is checked next.
#[derive(Clone, Debug)]
pub struct Expected {
    pub reference: Reference,
    /// The names of holds and of leases.
    pub holds: Vec<usize>,
    pub leases: Vec<usize>,
}

impl Expected {
    pub fn owned(&self, part: usize) -> Option<usize> {
        let owned: Vec<usize> = (0..self.reference.parts.len())
            .filter(|at| self.reference.parts[*at].owned)
            .collect();
        (!owned.is_empty()).then(|| owned[part % owned.len()])
    }

    /// Two parts that are to be joined.
    pub fn pair(&self, part: usize, next: Option<usize>) -> Option<(usize, usize)> {
        let part = self.owned(part)?;
        let parts = &self.reference.parts;
        let behind = |other: &usize| {
            parts[*other].owned && parts[*other].range.start == parts[part].range.end
        };
        let next = match next {
            Some(next) => self.owned(next)?,
            None => (0..parts.len()).find(behind)?,
        };
        (part != next).then_some((part, next))
    }

    /// The bytes of the part that are named, which are inside, from its start.
    pub fn range(&self, part: usize, (start, length): (usize, usize)) -> Range<usize> {
        let all = self.reference.parts[part].range.len();
        let start = start % all;
        start..start + 1 + length % (all - start)
    }

    pub fn place(&self, part: usize, bytes: (usize, usize)) -> Range<usize> {
        let first = self.reference.parts[part].range.start;
        let range = self.range(part, bytes);
        first + range.start..first + range.end
    }

    fn begin(&mut self, part: usize, bytes: (usize, usize), writes: bool) -> Option<usize> {
        let (part, kind) = (self.owned(part)?, kind(writes));
        let admitted = self.reference.admits(part, kind);
        let ranges = vec![self.place(part, bytes)];
        admitted.then(|| self.reference.hold(kind, &[part], ranges))
    }

    /// The name of what is given back, after bytes have come, if any did.
    fn end(&mut self, name: usize, byte: Option<u8>) {
        let writes = self
            .reference
            .held(name)
            .is_some_and(|held| held.kind == Kind::NicWrite);
        if let Some(byte) = byte.filter(|_| writes) {
            self.reference.scatter(name, &[byte; LENGTH]);
        }
        self.reference.release(name);
    }
}

fn kind(writes: bool) -> Kind {
    match writes {
        true => Kind::NicWrite,
        false => Kind::NicRead,
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let (part, bytes) = (|| 0..8_usize, || (0..LENGTH, 0..LENGTH));
    prop_oneof![
        (part(), bytes()).prop_map(|(part, bytes)| Step::Read { part, bytes }),
        (part(), bytes(), any::<u8>()).prop_map(|(part, bytes, byte)| Step::Write {
            part,
            bytes,
            byte
        }),
        (part(), bytes(), any::<bool>()).prop_map(|(part, bytes, writes)| Step::Begin {
            part,
            bytes,
            writes
        }),
        (part(), any::<Option<u8>>())
            .prop_map(|(hold, carried_out)| Step::End { hold, carried_out }),
        (part(), bytes(), any::<bool>()).prop_map(|(part, bytes, writes)| Step::Lease {
            part,
            bytes,
            writes
        }),
        (part(), any::<Option<u8>>()).prop_map(|(lease, byte)| Step::Revoke { lease, byte }),
        (part(), 0..LENGTH).prop_map(|(part, at)| Step::Split { part, at }),
        (part(), prop::option::weighted(0.2, part()))
            .prop_map(|(part, next)| Step::Join { part, next }),
        (part(), prop::bool::weighted(0.8))
            .prop_map(|(part, local_write)| Step::Rotate { part, local_write }),
        part().prop_map(|part| Step::Shutdown { part }),
        part().prop_map(|part| Step::Drop { part }),
    ]
}

impl ReferenceStateMachine for Expected {
    type State = Expected;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Expected> {
        Just(Expected {
            reference: Reference::new((0..LENGTH as u8).collect()),
            holds: Vec::new(),
            leases: Vec::new(),
        })
        .boxed()
    }

    fn transitions(_: &Expected) -> BoxedStrategy<Step> {
        steps().boxed()
    }

    fn apply(mut state: Expected, step: &Step) -> Expected {
        match *step {
            Step::Read { .. } => {}
            Step::Write { part, bytes, byte } => {
                if let Some(part) = state.owned(part)
                    && state.reference.admits(part, Kind::CpuWrite)
                {
                    let range = state.place(part, bytes);
                    state.reference.bytes[range].fill(byte);
                }
            }
            Step::Begin {
                part,
                bytes,
                writes,
            } => {
                let name = state.begin(part, bytes, writes);
                state.holds.extend(name);
            }
            Step::End { hold, carried_out } if !state.holds.is_empty() => {
                let name = state.holds.swap_remove(hold % state.holds.len());
                state.end(name, carried_out);
            }
            Step::Lease {
                part,
                bytes,
                writes,
            } => {
                let name = state.begin(part, bytes, writes);
                state.leases.extend(name);
            }
            Step::Revoke { lease, byte } if !state.leases.is_empty() => {
                let name = state.leases.swap_remove(lease % state.leases.len());
                state.end(name, byte);
            }
            Step::End { .. } | Step::Revoke { .. } => {}
            Step::Split { part, at } => {
                if let Some(part) = state.owned(part) {
                    state.reference.split(part, at);
                }
            }
            Step::Join { part, next } => {
                if let Some((part, next)) = state.pair(part, next) {
                    state.reference.join(part, next);
                }
            }
            Step::Rotate { part, local_write } => {
                if state.owned(part).is_some() {
                    state.reference.keys += 1;
                    state.reference.local_write = local_write;
                }
            }
            Step::Shutdown { part } => {
                if let Some(part) = state.owned(part) {
                    state.reference.parts[part].closed = true;
                }
            }
            Step::Drop { part } => {
                if let Some(part) = state.owned(part) {
                    state.reference.parts[part].owned = false;
                }
            }
        }
        state
    }
}
