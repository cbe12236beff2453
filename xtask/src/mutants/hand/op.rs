//! The changes to operations in flight.

use super::Mutant;
use super::list::mutant;

pub(super) const RING: &[Mutant] = &[
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

pub(super) const COMPLETER: &[Mutant] = &[
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

pub(super) const POSTER: &[Mutant] = &[
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

pub(super) const SLOTS: &[Mutant] = &[
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

pub(super) const TICKET: &[Mutant] = &[
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

pub(super) const FUTURE: &[Mutant] = &[
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

pub(super) const POLLER: &[Mutant] = &[
    mutant(
        "nobody is told of room",
        "self.tell_ended();",
        "",
        ("future", "who_waits_for_room_is_told"),
    ),
    mutant(
        "nobody is woken",
        "self.0.drain(..).for_each(Waker::wake);",
        "self.0.clear();",
        ("future", "a_future_is_told_all_and_woken"),
    ),
];

pub(super) const SLEEP: &[Mutant] = &[mutant(
    "the last look before the sleep takes no for an answer",
    "true => self.turns().take(),",
    "true => self.turns().try_take(),",
    ("poller", "who_sleeps_on_the_event_is_woken"),
)];

pub(super) const TURN: &[Mutant] = &[
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

pub(super) const TABLE: &[Mutant] = &[mutant(
    "what was left is forgotten",
    "self.places.get_mut(place)?, Place::Retired)",
    "self.places.get_mut(place)?, if false { Place::Retired } else { Place::Free })",
    ("poller", "queue_pairs_come_and_go_while_another_polls"),
)];
