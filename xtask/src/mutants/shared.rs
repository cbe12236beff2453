//! The changes to memory that peers may write at any moment.

use super::Mutant;
use super::list::mutant;

const HERE: (&str, &str) = ("shared", "a_record_written_here_is_read_whole");
const BY_ATOMICS: (&str, &str) = (
    "shared",
    "a_record_written_by_atomics_of_a_nic_is_read_whole",
);
const BY_WRITES: (&str, &str) = (
    "shared",
    "a_record_written_by_writes_of_a_nic_is_read_whole",
);
const TO_A_NIC: (&str, &str) = ("shared", "a_record_written_here_is_read_whole_by_a_nic");
const ONE_WRITER: (&str, &str) = ("shared", "a_record_has_one_writer_at_a_time");
const STORE: (&str, &str) = ("shared", "a_store_hands_on_what_was_written_before");
const ADDITION: (&str, &str) = ("shared", "an_addition_hands_on_what_was_written_before");
const SWAP: (&str, &str) = ("shared", "a_swap_hands_on_what_was_written_before");
const REFUSED: (&str, &str) = (
    "shared",
    "a_swap_that_is_refused_learns_what_was_written_before",
);

pub(super) const RECORD: &[Mutant] = &[
    mutant(
        "a look does not compare the versions",
        "(before == after).then_some(before)",
        "Some(before).filter(|_| after < u64::MAX)",
        HERE,
    ),
    mutant(
        "a look does not compare the versions, beside a NIC",
        "(before == after).then_some(before)",
        "Some(before).filter(|_| after < u64::MAX)",
        BY_ATOMICS,
    ),
    mutant(
        "a look takes a record that is being written",
        "if before % 2 == 1 {",
        "if false {",
        BY_WRITES,
    ),
    mutant(
        "no barrier between the body and the second look at the version",
        "self.body.copy_out(to);\n        raw::barrier();",
        "self.body.copy_out(to);",
        HERE,
    ),
    mutant(
        "no barrier between the body and the second look at the version, beside a NIC",
        "self.body.copy_out(to);\n        raw::barrier();",
        "self.body.copy_out(to);",
        BY_WRITES,
    ),
    mutant(
        "no barrier between the odd version and the body",
        "raw::barrier();\n        self.body.copy_in(from);",
        "self.body.copy_in(from);",
        HERE,
    ),
    mutant(
        "no barrier between the odd version and the body, which a NIC READs",
        "raw::barrier();\n        self.body.copy_in(from);",
        "self.body.copy_in(from);",
        TO_A_NIC,
    ),
    mutant(
        "a writer is let in beside another",
        "if before % 2 == 1 || unsafe { raw::compare_swap(at, before, odd) } != before {",
        "unsafe { odd.store(at) };\n        if before % 2 == 1 {",
        ONE_WRITER,
    ),
    mutant(
        "the version is even while the body is written",
        "let odd = before.wrapping_add(1);",
        "let odd = before.wrapping_add(2);",
        HERE,
    ),
];

pub(super) const RAW: &[Mutant] = &[
    mutant(
        "the barrier AcqRel -> Acquire",
        "fence(Ordering::AcqRel);",
        "fence(Ordering::Acquire);",
        HERE,
    ),
    mutant(
        "the barrier AcqRel -> Release",
        "fence(Ordering::AcqRel);",
        "fence(Ordering::Release);",
        HERE,
    ),
    mutant(
        "adding AcqRel -> Acquire",
        "fetch_add(add, Ordering::AcqRel)",
        "fetch_add(add, Ordering::Acquire)",
        ADDITION,
    ),
    mutant(
        "adding AcqRel -> Release",
        "fetch_add(add, Ordering::AcqRel)",
        "fetch_add(add, Ordering::Release)",
        ADDITION,
    ),
    mutant(
        "swapping AcqRel -> Acquire",
        "compare_exchange(compare, swap, Ordering::AcqRel,",
        "compare_exchange(compare, swap, Ordering::Acquire,",
        SWAP,
    ),
    mutant(
        "swapping AcqRel -> Release",
        "compare_exchange(compare, swap, Ordering::AcqRel,",
        "compare_exchange(compare, swap, Ordering::Release,",
        SWAP,
    ),
    mutant(
        "a swap that is refused Acquire -> Relaxed",
        "Ordering::AcqRel, Ordering::Acquire) {",
        "Ordering::AcqRel, Ordering::Relaxed) {",
        REFUSED,
    ),
];

pub(super) const INT: &[Mutant] = &[
    mutant(
        "loading Acquire -> Relaxed",
        "place.load(Ordering::Acquire)",
        "place.load(Ordering::Relaxed)",
        STORE,
    ),
    mutant(
        "storing Release -> Relaxed",
        "place.store(self, Ordering::Release)",
        "place.store(self, Ordering::Relaxed)",
        STORE,
    ),
];
