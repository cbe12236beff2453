//! The changes to the gate.

use super::Mutant;
use super::list::mutant;

pub(super) const GATE: &[Mutant] = &[mutant(
    "a release wakes nobody",
    "if owed.wake {",
    "if false {",
    ("gate", "no_wake_up_of_a_thread_is_lost"),
)];

pub(super) const GATE_WAIT: &[Mutant] = &[mutant(
    "parking without looking at what the mark showed",
    "Look::Blocked(_) => place.mark()?,",
    "Look::Blocked(entry) => place.mark().map(|_| entry)?,",
    ("gate", "no_wake_up_of_a_thread_is_lost"),
)];

pub(super) const WORD: &[Mutant] = &[
    mutant(
        "a retirement does not wait for reads",
        "Stage::Start if old_reads =>",
        "Stage::Start if false =>",
        ("rotation", "no_read_uses_a_key_that_has_ended"),
    ),
    mutant(
        "a retirement does not wait for the reads that were new in the one before",
        "Stage::Start if self.has(Kind::NewRead.field()) =>",
        "Stage::Start if false =>",
        (
            "rotation",
            "no_new_read_is_forgotten_by_the_next_retirement",
        ),
    ),
    mutant(
        "a retirement does not wait for an exclusive operation",
        "Stage::Start if self.has(Self::NIC_EXCL) =>",
        "Stage::Start if false =>",
        ("rotation", "no_write_uses_a_key_that_has_ended"),
    ),
    mutant(
        "an exclusive operation is over when it is the only one",
        "Stage::Write => (Word(self.0 | Self::WAIT_OLD), Stage::Write),",
        "Stage::Write => (Word(self.0 & !Self::RETIRING), Stage::Over),",
        ("rotation", "who_waits_for_writes_is_woken"),
    ),
    mutant(
        "the last old read wakes nobody",
        "left.has(Self::WAIT_EXCL) || emptied,",
        "left.has(Self::WAIT_EXCL) || false && emptied,",
        ("rotation", "who_waits_for_reads_is_woken"),
    ),
    mutant(
        "the end of an exclusive operation says nothing of the retirement",
        "Self::WAITING | Self::RETIRING | Self::WAIT_OLD | Self::BIASED)",
        "Self::WAITING | Self::WAIT_OLD | Self::BIASED)",
        ("rotation", "who_waits_for_writes_is_woken"),
    ),
];

pub(super) const LOCKED: &[Mutant] = &[mutant(
    "two at a time have it",
    "gate.enter(Holder::CpuWrite, None)",
    "gate.enter(Holder::CpuRead, None)",
    (
        "lease",
        "whoever_is_told_that_it_is_over_finds_the_region_free",
    ),
)];

pub(super) const ENTER: &[Mutant] = &[
    mutant(
        "who goes ahead of readers does not wait for them",
        "Ordering::Acquire)).has_shared_holders() {",
        "Ordering::Acquire)).has_shared_holders() && false {",
        ("gate", "who_goes_ahead_of_a_reader_is_in_after_it"),
    ),
    mutant(
        "who goes ahead of readers stays there",
        "if timer.expired() || deadline",
        "if timer.expired() && false || deadline",
        (
            "gate",
            "who_goes_ahead_of_a_reader_lets_it_have_a_second_guard",
        ),
    ),
];

pub(super) const BIAS: &[Mutant] = &[
    mutant(
        "an exclusive side does not look at the slots",
        "!before.has(Word::BIASED) || self.drain(kind, spin)",
        "let _ = (before, spin); true",
        ("bias", "published_readers_and_a_write_exclude_each_other"),
    ),
    mutant(
        "a reader does not look at the word once more",
        "if seen.lets_publish() {\n            return Some(place);",
        "if seen.lets_publish() || true {\n            return Some(place);",
        ("bias", "published_readers_and_a_write_exclude_each_other"),
    ),
    mutant(
        "readers are let be instead of being moved",
        "self.move_readers();",
        "",
        ("bias", "published_readers_and_a_write_exclude_each_other"),
    ),
    mutant(
        "a reader that was moved gives no count back",
        "self.release_moved(place);",
        "",
        ("bias", "a_moved_reader_wakes_a_thread"),
    ),
    mutant(
        "the count of a reader that went meanwhile is not given back",
        "if !place.is_of(address) && place.settle(address) {",
        "if false {",
        ("bias", "a_moved_reader_wakes_a_thread"),
    ),
    mutant(
        "a reader is moved without a count",
        "self.word.fetch_add(Word::READER, Ordering::Relaxed);",
        "",
        ("bias", "a_moved_reader_wakes_a_thread"),
    ),
    mutant(
        "who did not get in takes the bias off",
        "self.take_back(kind, Word::BIASED);",
        "self.take_back(kind, 0);",
        (
            "bias",
            "who_went_ahead_of_a_counted_reader_leaves_the_published_one",
        ),
    ),
    mutant(
        "who did not get in wakes nobody",
        "if !before.release_is_done(kind.holder()) {",
        "if false {",
        (
            "bias",
            "exclusive_sides_and_a_published_reader_exclude_each_other",
        ),
    ),
];

pub(super) const SLOTS: &[Mutant] = &[mutant(
    "a slot is taken that is not empty",
    "self.gate.load(Ordering::Acquire) == 0",
    "self.gate.load(Ordering::Acquire) != 1",
    ("bias", "a_line_goes_on_with_what_is_published_in_it"),
)];
