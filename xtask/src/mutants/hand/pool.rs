//! The changes to pools of slots.

use super::Mutant;
use super::list::mutant;

pub(super) const ORPHAN: &[Mutant] = &[
    mutant(
        "a slot that comes home stays closed",
        "let bits = Word::CLOSED | Word::ORPHANED;\n        // Ordering: Relaxed. Whoever",
        "let bits = Word::ORPHANED;\n        // Ordering: Relaxed. Whoever",
        ("pool", "an_operation_and_the_handle_bring_it_home_once"),
    ),
    mutant(
        "a slot that comes home stays an orphan",
        "let bits = Word::CLOSED | Word::ORPHANED;\n        // Ordering: Relaxed. Whoever",
        "let bits = Word::CLOSED;\n        // Ordering: Relaxed. Whoever",
        ("pool", "keys_change_while_a_slot_comes_home"),
    ),
    mutant(
        "a gate is opened anew without an RMW",
        "self.word.fetch_and(!bits, Ordering::Relaxed);",
        "let word = self.word.load(Ordering::Relaxed);\n self.word.store(word & !bits, Ordering::Relaxed);",
        ("pool", "keys_change_while_a_slot_comes_home"),
    ),
];

pub(super) const FREE_LIST: &[Mutant] = &[
    mutant(
        "who brings a slot wakes nobody",
        "        list.wake_one();\n",
        "        if false { list.wake_one(); }\n",
        ("pool", "a_thread_that_waits_is_woken"),
    ),
    mutant(
        "who brings a slot does not look whether somebody waits",
        "if seen.has(Word::WAITING) {",
        "if false {",
        ("pool", "a_future_that_waits_is_woken"),
    ),
    mutant(
        "parking without looking at what the mark showed",
        "before.top().is_none() && !before.may_grow()",
        "before.top().is_none() || !before.may_grow()",
        ("pool", "a_thread_that_waits_is_woken"),
    ),
    mutant(
        "parking although more could be registered",
        "before.top().is_none() && !before.may_grow()",
        "before.top().is_none()",
        ("pool", "nobody_hangs_behind_a_registration_that_fails"),
    ),
    mutant(
        "who takes the mark off wakes nobody",
        "self.waiting.notify(usize::MAX);",
        "",
        ("pool", "who_marks_while_the_mark_is_taken_off_is_woken"),
    ),
    mutant(
        "the end of a growth wakes nobody",
        "if Word::from_bits(before).has(Word::WAITING) {",
        "if false {",
        ("pool", "nobody_hangs_behind_a_registration_that_fails"),
    ),
    mutant(
        "a slot is brought to a pool that is gone",
        "if seen.has(Word::CLOSED) {\n                return Brought::Closed;\n            }\n            if seen",
        "if seen",
        ("pool", "a_pool_may_go_while_its_slots_come_home"),
    ),
];

pub(super) const POOL: &[Mutant] = &[
    mutant(
        "who wakes does not keep the pool",
        "|| Arc::clone(pool)",
        "|| ()",
        ("pool", "who_wakes_keeps_the_pool"),
    ),
    mutant(
        "a slot that comes home is free before its gate is open",
        "unsafe { slot.gate() }.reopen();",
        "let _ = unsafe { slot.gate() }.is_free();",
        ("pool", "an_operation_and_the_handle_bring_it_home_once"),
    ),
];

pub(super) const POOLED: &[Mutant] = &[mutant(
    "a slot goes back under an operation",
    "if self.part().gate().is_free() {",
    "if true {",
    ("pool", "an_operation_and_the_handle_bring_it_home_once"),
)];

pub(super) const POOL_WORD: &[Mutant] = &[mutant(
    "a top that went and came back is taken for the same",
    ".wrapping_add(Self::TAKE))",
    ".wrapping_add(0))",
    ("pool", "a_slot_is_had_by_one"),
)];
