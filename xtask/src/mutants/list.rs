//! The changes, by file.

use super::{Mutant, shared};

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
    ("src/gate/mod.rs", GATE),
    ("src/gate/wait.rs", GATE_WAIT),
    ("src/gate/retire.rs", RETIRE),
    ("src/gate/word.rs", WORD),
    ("src/raw.rs", shared::RAW),
    ("src/mr/shared/int.rs", shared::INT),
    ("src/mr/shared/record.rs", shared::RECORD),
    ("src/op/queue/ring.rs", RING),
    ("src/op/queue/completer.rs", COMPLETER),
    ("src/op/queue/poster.rs", POSTER),
    ("src/op/queue/slots.rs", SLOTS),
    ("src/op/queue/ticket.rs", TICKET),
    ("src/op/endpoint/future.rs", FUTURE),
    ("src/op/poll/poller.rs", POLLER),
    ("src/op/poll/sleep.rs", SLEEP),
    ("src/op/poll/table.rs", TABLE),
    ("src/op/poll/turn.rs", TURN),
    ("src/lease/mod.rs", LEASE),
    ("src/gate/locked.rs", LOCKED),
];

const GATE: &[Mutant] = &[
    mutant(
        "exclusive release Release -> Relaxed",
        "compare_exchange(seen, left, Ordering::Release,",
        "compare_exchange(seen, left, Ordering::Relaxed,",
        ("gate", "a_reader_sees_a_nic_write_whole"),
    ),
    mutant(
        "shared release Release -> Relaxed",
        "fetch_sub(kind.unit(), Ordering::Release)",
        "fetch_sub(kind.unit(), Ordering::Relaxed)",
        ("gate", "a_nic_write_comes_after_the_last_reader"),
    ),
    mutant(
        "shared acquire Acquire -> Relaxed",
        "fetch_add(kind.unit(), Ordering::Acquire)",
        "fetch_add(kind.unit(), Ordering::Relaxed)",
        ("gate", "a_try_that_succeeds_sees_the_write_whole"),
    ),
    mutant(
        "exclusive acquire Acquire -> Relaxed",
        "Ordering::Acquire,\n                Ordering::Relaxed,",
        "Ordering::Relaxed,\n                Ordering::Relaxed,",
        ("gate", "exclusive_sides_and_a_reader_exclude_each_other"),
    ),
    mutant(
        "a release wakes nobody",
        "if owed.wake {",
        "if false {",
        ("gate", "no_wake_up_of_a_thread_is_lost"),
    ),
];

const GATE_WAIT: &[Mutant] = &[mutant(
    "parking without looking at what the mark showed",
    "Look::Blocked(_) => place.mark()?,",
    "Look::Blocked(entry) => place.mark().map(|_| entry)?,",
    ("gate", "no_wake_up_of_a_thread_is_lost"),
)];

const RETIRE: &[Mutant] = &[
    mutant(
        "marking a retirement AcqRel -> Acquire",
        "Ordering::AcqRel,",
        "Ordering::Acquire,",
        ("rotation", "no_read_uses_a_key_that_has_ended"),
    ),
    mutant(
        "marking a retirement AcqRel -> Release",
        "Ordering::AcqRel,",
        "Ordering::Release,",
        ("rotation", "no_write_uses_a_key_that_has_ended"),
    ),
];

const WORD: &[Mutant] = &[
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
        "Self::WAITING | Self::RETIRING | Self::WAIT_OLD)",
        "Self::WAITING | Self::WAIT_OLD)",
        ("rotation", "who_waits_for_writes_is_woken"),
    ),
];

const RING: &[Mutant] = &[
    mutant(
        "writing a slot Release -> Relaxed",
        "store(first, Ordering::Release)",
        "store(first, Ordering::Relaxed)",
        ("ring", "slots_go_round"),
    ),
    mutant(
        "seeing that a slot is written Acquire -> Relaxed",
        "self.first(sequence).load(Ordering::Acquire)",
        "self.first(sequence).load(Ordering::Relaxed)",
        ("ring", "a_completion_releases_those_before_it"),
    ),
    mutant(
        "slots are marked alike in every round",
        "match sequence as usize & self.firsts.len() {",
        "match sequence as usize & 0 {",
        ("ring", "slots_go_round"),
    ),
    mutant(
        "who takes an inline slot takes its mark along",
        "seen & (ROUND | SIGNALED | WATCHED)",
        "seen & (SIGNALED | WATCHED)",
        ("ring", "an_inline_one_of_a_list_is_released_once"),
    ),
    mutant(
        "a receive that is over loses its mark",
        "let taken = self.round(sequence);",
        "let taken = self.round(sequence) ^ ROUND;",
        ("ring", "receives_end_in_any_order"),
    ),
    mutant(
        "giving slots back Release -> Relaxed",
        "head.store(head, Ordering::Release)",
        "head.store(head, Ordering::Relaxed)",
        ("ring", "slots_go_round"),
    ),
    mutant(
        "seeing slots that were given back Acquire -> Relaxed",
        "head.load(Ordering::Acquire)",
        "head.load(Ordering::Relaxed)",
        ("ring", "receives_end_in_any_order"),
    ),
    mutant(
        "taking an inline slot without an RMW",
        "let taken = self.first(sequence).swap(empty, Ordering::Relaxed);",
        "let taken = self.first(sequence).load(Ordering::Relaxed);\n self.first(sequence).store(empty, Ordering::Relaxed);",
        ("ring", "an_inline_one_of_a_list_is_released_once"),
    ),
    mutant(
        "taking a ticket without an RMW",
        "let address = self.ticket(sequence).swap(0, Ordering::Relaxed);",
        "let address = self.ticket(sequence).load(Ordering::Relaxed);\n self.ticket(sequence).store(0, Ordering::Relaxed);",
        ("future", "a_dropped_future_is_not_touched"),
    ),
];

const COMPLETER: &[Mutant] = &[
    mutant(
        "what is released stays the oldest",
        "second time.\n        self.head += 1;",
        "second time.\n        self.head += u64::from(sequence == 0);",
        ("ring", "slots_go_round"),
    ),
    mutant(
        "what is not written yet is found",
        " && self.ring.is_written(sequence)",
        "",
        ("ring", "slots_go_round"),
    ),
    mutant(
        "what lies further ahead than a ring's length is found",
        "distance < self.ring.slots() && ",
        "",
        ("ring", "receives_end_in_any_order"),
    ),
    mutant(
        "a receive that is over is not marked",
        "self.ring.mark_taken(self.sequence);",
        "if false { self.ring.mark_taken(self.sequence); }",
        ("ring", "receives_end_in_any_order"),
    ),
];

const POSTER: &[Mutant] = &[
    mutant(
        "a refused future's ticket stays in its slot",
        "drop(Waiting::new(ticket, self.ring.ticket(latest.sequence())));",
        "std::mem::forget(Waiting::new(ticket, self.ring.ticket(latest.sequence())));",
        ("future", "a_refused_future_is_not_touched"),
    ),
    mutant(
        "what was taken back stays in the completer's sight",
        "(tail..self.tail).for_each(|sequence| self.ring.hide(sequence));",
        "",
        ("ring", "a_post_that_is_taken_back_leaves_no_trace"),
    ),
];

const SLOTS: &[Mutant] = &[
    mutant(
        "publishing a slot Release -> Relaxed",
        "store(generation << 1 | BUSY, Ordering::Release)",
        "store(generation << 1 | BUSY, Ordering::Relaxed)",
        ("slots", "slots_go_round_between_three"),
    ),
    mutant(
        "claiming a slot Acquire -> Relaxed",
        "compare_exchange(busy, free, Ordering::Acquire,",
        "compare_exchange(busy, free, Ordering::Relaxed,",
        ("slots", "slots_go_round_between_three"),
    ),
    mutant(
        "claiming a slot without an RMW",
        ".compare_exchange(busy, free, Ordering::Acquire, Ordering::Relaxed)\n            .is_ok()",
        ".load(Ordering::Acquire) == busy && { state.store(free, Ordering::Relaxed); true }",
        ("slots", "a_wr_id_is_good_for_one_completion"),
    ),
    mutant(
        "a slot's generation stays the same",
        "(((busy >> 1) + 1) & GENERATIONS) << 1",
        "busy & !BUSY",
        ("slots", "a_wr_id_is_good_for_one_completion"),
    ),
    mutant(
        "giving a slot back Release -> Relaxed",
        "Ordering::Release,\n                Ordering::Relaxed,",
        "Ordering::Relaxed,\n                Ordering::Relaxed,",
        ("slots", "slots_go_round_between_three"),
    ),
    mutant(
        "fetching what was given back Acquire -> Relaxed",
        "freed.swap(0, Ordering::Acquire)",
        "freed.swap(0, Ordering::Relaxed)",
        ("slots", "slots_go_round_between_three"),
    ),
    mutant(
        "giving a slot back without an RMW",
        "self.freed.compare_exchange(\n                first,\n                at as u64 + 1,\n                \
         Ordering::Release,\n                Ordering::Relaxed,\n            );",
        "Ok::<(), u64>(self.freed.store(at as u64 + 1, Ordering::Release));",
        ("slots", "slots_go_round_between_three"),
    ),
    mutant(
        "fetching what was given back without an RMW",
        "self.slots.freed.swap(0, Ordering::Acquire);",
        "self.slots.freed.load(Ordering::Acquire); self.slots.freed.store(0, Ordering::Relaxed);",
        ("slots", "a_receive_that_is_taken_back_leaves_no_trace"),
    ),
];

const TICKET: &[Mutant] = &[
    mutant(
        "delivering Release -> Relaxed",
        "store(state | DELIVERED, Ordering::Release)",
        "store(state | DELIVERED, Ordering::Relaxed)",
        ("future", "a_future_is_told_all_and_woken"),
    ),
    mutant(
        "seeing what was delivered Acquire -> Relaxed",
        "let state = self.state.load(Ordering::Acquire);",
        "let state = self.state.load(Ordering::Relaxed);",
        ("future", "a_future_is_told_all_and_woken"),
    ),
    mutant(
        "the waker is taken before the delivery",
        "ticket.state.store(state | DELIVERED, Ordering::Release);\n        let waker = ticket.waker.take();",
        "let waker = ticket.waker.take();\n ticket.state.store(state | DELIVERED, Ordering::Release);",
        ("future", "a_future_is_told_all_and_woken"),
    ),
    mutant(
        "the waker is registered without another look",
        "match self.ticket.outcome() {\n            Some(outcome) => Poll::Ready(outcome),\n            None => Poll::Pending,\n        }",
        "Poll::Pending",
        ("future", "the_latest_waker_counts"),
    ),
    mutant(
        "finishing Release -> Relaxed",
        ".store(state | DELIVERED | FINISHED, Ordering::Release)",
        ".store(state | DELIVERED | FINISHED, Ordering::Relaxed)",
        ("future", "a_dropped_future_is_not_touched"),
    ),
    mutant(
        "seeing the finish Acquire -> Relaxed",
        "while self.state.load(Ordering::Acquire)",
        "while self.state.load(Ordering::Relaxed)",
        ("future", "a_dropped_future_is_not_touched"),
    ),
    mutant(
        "finished before the waker is taken",
        "let waker = ticket.waker.take();",
        "ticket.state.store(state | DELIVERED | FINISHED, Ordering::Release);\n let waker = ticket.waker.take();",
        ("future", "a_dropped_future_is_not_touched"),
    ),
    mutant(
        "withdrawing without an RMW",
        ".compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);",
        ".load(Ordering::Relaxed).eq(&address).then(|| self.slot.store(0, Ordering::Relaxed)).ok_or(());",
        ("future", "a_dropped_future_is_not_touched"),
    ),
    mutant(
        "a dropped future does not wait for the completer's last write",
        "if withdrawn.is_err() {",
        "if false && withdrawn.is_err() {",
        ("future", "a_dropped_future_is_not_touched"),
    ),
];

const FUTURE: &[Mutant] = &[
    mutant(
        "two at a time post",
        "acquire_async(Holder::CpuWrite)",
        "acquire_async(Holder::CpuRead)",
        ("future", "two_post_and_poll_at_a_time"),
    ),
    mutant(
        "waiting for room without another look",
        "None => room = Some(side.poller.listen()),",
        "None => {\n side.poller.listen().await;\n room = Some(side.poller.listen());\n }",
        ("future", "who_waits_for_room_is_told"),
    ),
    mutant(
        "a future does not ask whether polling has failed",
        "Poll::Pending if side.poller.is_broken() =>",
        "Poll::Pending if false =>",
        ("future", "a_future_learns_that_polling_failed"),
    ),
];

const POLLER: &[Mutant] = &[
    mutant(
        "who gives up has no fence",
        "self.shared.broken.store(1, Ordering::Relaxed);\n        fence(Ordering::SeqCst);",
        "self.shared.broken.store(1, Ordering::Relaxed);",
        ("future", "a_future_learns_that_polling_failed"),
    ),
    mutant(
        "who asks whether polling has failed has no fence",
        "fence(Ordering::SeqCst);\n        // Ordering: Relaxed, see the fence.\n        self.shared.broken",
        "// Ordering: Relaxed, see the fence.\n        self.shared.broken",
        ("future", "a_future_learns_that_polling_failed"),
    ),
    mutant(
        "nobody is told of room",
        "self.tell_ended();",
        "",
        ("future", "who_waits_for_room_is_told"),
    ),
    mutant(
        "who ended something does not look who listens",
        "fence(Ordering::SeqCst);\n        // Ordering: Relaxed, see the fence.\n        if listening",
        "// Ordering: Relaxed, see the fence.\n        if listening",
        ("future", "who_waits_for_room_is_told"),
    ),
    mutant(
        "who listens has no fence",
        "fence(Ordering::SeqCst);\n        listener",
        "listener",
        ("future", "who_waits_for_room_is_told"),
    ),
    mutant(
        "nobody is woken",
        "self.0.drain(..).for_each(Waker::wake);",
        "self.0.clear();",
        ("future", "a_future_is_told_all_and_woken"),
    ),
];

const SLEEP: &[Mutant] = &[mutant(
    "the last look before the sleep takes no for an answer",
    "true => self.turns().take(),",
    "true => self.turns().try_take(),",
    ("poller", "who_sleeps_on_the_event_is_woken"),
)];

const TURN: &[Mutant] = &[
    mutant(
        "two at a time poll",
        ".try_enter(Holder::CpuWrite)",
        ".try_enter(Holder::CpuRead)",
        ("poller", "every_completion_is_dealt_with_once"),
    ),
    mutant(
        "the table is changed while another polls",
        ".enter(Holder::CpuWrite, None)",
        ".enter(Holder::CpuRead, None)",
        ("poller", "queue_pairs_come_and_go_while_another_polls"),
    ),
];

const TABLE: &[Mutant] = &[mutant(
    "what was left is forgotten",
    "self.places.get_mut(place)?, Place::Retired)",
    "self.places.get_mut(place)?, if false { Place::Retired } else { Place::Free })",
    ("poller", "queue_pairs_come_and_go_while_another_polls"),
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

const LOCKED: &[Mutant] = &[mutant(
    "two at a time have it",
    "self.gate.acquire(Holder::CpuWrite)",
    "self.gate.acquire(Holder::CpuRead)",
    (
        "lease",
        "whoever_is_told_that_it_is_over_finds_the_region_free",
    ),
)];
