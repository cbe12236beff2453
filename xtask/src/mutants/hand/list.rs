//! The changes, by file.

use super::{Mutant, gate, op, pool, shared};

/// What is wrong then, the text that stands exactly once in the file, what comes in its place, and a
/// model that must fail: its file in `loom_tests/`, and its name.
pub(super) const fn mutant(
    name: &'static str,
    from: &'static str,
    to: &'static str,
    model: (&'static str, &'static str),
) -> Mutant {
    Mutant {
        name,
        from,
        to,
        model,
    }
}

pub const MUTANTS: &[(&str, &[Mutant])] = &[
    ("src/gate/mod.rs", gate::GATE),
    ("src/gate/wait.rs", gate::GATE_WAIT),
    ("src/gate/enter.rs", gate::ENTER),
    ("src/gate/bias.rs", gate::BIAS),
    ("src/gate/slots.rs", gate::SLOTS),
    ("src/gate/word.rs", gate::WORD),
    ("src/mr/shared/record.rs", shared::RECORD),
    ("src/gate/orphan.rs", pool::ORPHAN),
    ("src/mr/pool/list.rs", pool::FREE_LIST),
    ("src/mr/pool/grow.rs", pool::POOL),
    ("src/mr/pool/slot.rs", pool::POOLED),
    ("src/mr/pool/word.rs", pool::POOL_WORD),
    ("src/op/queue/ring.rs", op::RING),
    ("src/op/queue/completer.rs", op::COMPLETER),
    ("src/op/queue/poster.rs", op::POSTER),
    ("src/op/queue/slots.rs", op::SLOTS),
    ("src/op/queue/ticket.rs", op::TICKET),
    ("src/op/endpoint/future.rs", op::FUTURE),
    ("src/op/poll/poller.rs", op::POLLER),
    ("src/op/poll/sleep.rs", op::SLEEP),
    ("src/op/poll/table.rs", op::TABLE),
    ("src/op/poll/turn.rs", op::TURN),
    ("src/lease/mod.rs", LEASE),
    ("src/gate/locked.rs", gate::LOCKED),
    ("src/registration/roll.rs", ROLL),
    ("src/registration/regions.rs", REGIONS),
];

const ROLL: &[Mutant] = &[
    mutant(
        "a registration ends with the first of its regions",
        "self.count == 0",
        "true",
        ("parts", "the_last_part_ends_the_registration"),
    ),
    mutant(
        "a registration with a roll never ends",
        "self.count == 0",
        "false",
        ("parts", "the_last_part_ends_the_registration"),
    ),
];

const REGIONS: &[Mutant] = &[mutant(
    "a region is closed while there are others",
    "self.roll().map_or(1, regions) - 1",
    "self.roll().map_or(1, regions).min(1) - 1",
    ("parts", "who_closes_the_last_part_is_alone"),
)];

const LEASE: &[Mutant] = &[mutant(
    "the bytes are given back before the registration has ended",
    "in_force.end()?;",
    "let early = unsafe { ManuallyDrop::take(&mut in_force.hold) }; drop(early); in_force.end()?; \
     std::mem::forget(grant.take()); return Ok(true);",
    (
        "lease",
        "a_reader_has_the_bytes_after_the_end_of_the_registration",
    ),
)];
