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
