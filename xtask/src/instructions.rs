//! `cargo xtask instructions`: counts, under callgrind, what one operation costs: locked instructions
//! and instructions in all. Exact numbers, the same on every run: two runs of each shape of
//! `benches/locked.rs`, one twice as long, differ by what its operations cost and nothing else.
//!
//! Libraries for instruction counts exist; none tells which instructions were locked ones.

use std::collections::BTreeSet;
use std::ops::Sub;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::{self, Use};
use crate::process;
use crate::workspace::{self, executables};

/// How often an operation is done in the shorter run.
const TIMES: u64 = 2000;

struct Shape {
    /// As `benches/locked.rs` calls it.
    name: &'static str,
    /// `None` for what is there to be compared with.
    promise: Option<Promise>,
}

struct Promise {
    /// Locked instructions per operation, in thousandths: what is done once in a while counts as well.
    locked: u64,
    /// The most instructions per operation; a quarter above what was measured.
    most: u64,
    /// Whether all of it happens in the program itself: no allocator, no system call.
    alone: bool,
}

const fn shape(name: &'static str, locked: u64, most: u64, alone: bool) -> Shape {
    let promise = Promise {
        locked,
        most,
        alone,
    };
    Shape {
        name,
        promise: Some(promise),
    }
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "load",
        promise: None,
    },
    shape("lkey", 0, 9, true),
    shape("rkey", 0, 8, true),
    shape("hold", 2000, 115, true),
    // One RMW to take it, one to give it back.
    shape("slot", 2000, 90, true),
    shape("wr_id", 2000, 90, true),
    shape("ring", 2000, 200, true),
    shape("slots", 4008, 375, true),
    shape("endpoint", 5000, 670, true),
    // Moves itself by memcpy.
    shape("future", 14_000, 1900, false),
    Shape {
        name: "rival",
        promise: None,
    },
];

/// What happened in one run, or between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    instructions: u64,
    locked: u64,
    /// Instructions outside of the program: the C library, the allocator.
    elsewhere: u64,
}

impl Sub for Count {
    type Output = Count;

    fn sub(self, other: Count) -> Count {
        Count {
            instructions: self.instructions - other.instructions,
            locked: self.locked - other.locked,
            elsewhere: self.elsewhere - other.elsewhere,
        }
    }
}

pub fn run() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        println!("instructions are counted on x86-64 only");
        return Ok(());
    }
    packages::ensure(&[Use::Count])?;
    let mut build = workspace::cargo("bench");
    build.args(["--package", workspace::PACKAGE, "--no-run"]);
    let built = executables(build.args(["--bench", "locked"]), "bench")?;
    let (_, program) = built.first().context("cargo built no bench `locked`")?;
    let locked = locked_instructions(&process::text(
        Command::new("objdump")
            .args(["--disassemble", "--no-show-raw-insn"])
            .arg(program),
    )?);

    println!("     shape     RMWs  instructions  elsewhere");
    let mut wrong = Vec::new();
    for shape in SHAPES {
        let short = profile(program, shape.name, TIMES, &locked)?;
        let long = profile(program, shape.name, 2 * TIMES, &locked)?;
        let cost = long - short;
        let each = |count: u64| count as f64 / TIMES as f64;
        println!(
            "{:>10} {:>8.3} {:>13.1} {:>10.1}",
            shape.name,
            each(cost.locked),
            each(cost.instructions),
            each(cost.elsewhere)
        );
        let complaint = shape
            .promise
            .as_ref()
            .and_then(|promise| promise.broken(cost));
        wrong.extend(complaint.map(|complaint| format!("{}: {complaint}", shape.name)));
    }
    if !wrong.is_empty() {
        bail!(
            "an operation costs what it should not: {}",
            wrong.join("; ")
        );
    }
    Ok(())
}

impl Promise {
    /// What is wrong with what [`TIMES`] operations cost.
    fn broken(&self, cost: Count) -> Option<String> {
        if cost.locked * 1000 != self.locked * TIMES {
            let (locked, expected) = (cost.locked, self.locked * TIMES / 1000);
            return Some(format!(
                "{locked} locked instructions in {TIMES} operations, not {expected}"
            ));
        }
        if cost.instructions > self.most * TIMES {
            let (each, most) = (cost.instructions / TIMES, self.most);
            return Some(format!("{each} instructions, more than {most}"));
        }
        if self.alone && cost.elsewhere != 0 {
            return Some(format!("{} instructions in libraries", cost.elsewhere));
        }
        None
    }
}

/// Runs one shape under callgrind.
fn profile(program: &Path, shape: &str, times: u64, locked: &BTreeSet<u64>) -> Result<Count> {
    let output = tempfile::NamedTempFile::new()?;
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(output.path());
    process::run(
        Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--dump-instr=yes"])
            .args(["--compress-pos=no", "--compress-strings=no"])
            .arg(out_file)
            .arg(program)
            .args([shape, &times.to_string()]),
    )?;
    let dump = std::fs::read_to_string(output.path())?;
    count(&dump, &program.to_string_lossy(), locked)
        .with_context(|| format!("callgrind's output for `{shape}` is unreadable"))
}

/// Where a disassembly has instructions that lock the bus, or the line: `lock …`, and `xchg` with
/// memory, which needs no prefix.
fn locked_instructions(disassembly: &str) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for line in disassembly.lines() {
        let Some((address, instruction)) = line.split_once(":\t") else {
            continue;
        };
        let is_locked = instruction.starts_with("lock ")
            || instruction.starts_with("xchg") && instruction.contains('(');
        if is_locked && let Ok(address) = u64::from_str_radix(address.trim(), 16) {
            found.insert(address);
        }
    }
    found
}

/// Adds up a dump of callgrind's, with absolute addresses and full names.
fn count(dump: &str, program: &str, locked: &BTreeSet<u64>) -> Option<Count> {
    let mut total = Count {
        instructions: 0,
        locked: 0,
        elsewhere: 0,
    };
    let mut inside = false;
    let mut lines = dump.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            inside = object == program;
        } else if line.starts_with("calls=") {
            // What the callee cost is counted where it was executed.
            lines.next();
        } else if let Some(cost) = line.strip_prefix("0x") {
            let mut fields = cost.split(' ');
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            let executed: u64 = fields.nth(1)?.parse().ok()?;
            total.instructions += executed;
            if !inside {
                total.elsewhere += executed;
            } else if locked.contains(&address) {
                total.locked += executed;
            }
        }
    }
    (total.instructions > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_instructions_are_found() {
        let disassembly = "\
0000000000001000 <f>:
    1000:\tlock cmpxchg %rcx,(%rdi)
    1005:\txchg   %ax,%ax
    1007:\txchg   %rax,0x10(%rdi)
    100b:\tmov    %rax,(%rdi)
    100e:\tlock xadd %rax,(%rdi)
";
        let found = locked_instructions(disassembly);
        let addresses: Vec<u64> = found.into_iter().collect();
        assert_eq!(addresses, [0x1000, 0x1007, 0x100e]);
    }

    #[test]
    fn a_dump_is_added_up() {
        let dump = "\
positions: instr line
events: Ir
summary: 99

ob=/lib/libc.so.6
fl=???
fn=malloc
0x1000 0 7

ob=/t/program
fn=main
0x0ffc 0 1
0x1000 12 5
cob=/lib/libc.so.6
cfn=malloc
calls=1 0x1000 0
0x1004 12 70
";
        let locked = BTreeSet::from([0x1000]);
        let expected = Count {
            instructions: 13,
            locked: 5,
            elsewhere: 7,
        };
        assert_eq!(count(dump, "/t/program", &locked), Some(expected));
        assert_eq!(count("events: Ir\n", "/t/program", &locked), None);
    }

    #[test]
    fn more_than_was_promised_is_complained_of() {
        let ring = shape("ring", 2000, 50, true).promise.unwrap();
        let cost = |locked, instructions, elsewhere| Count {
            instructions: instructions * TIMES,
            locked: locked * TIMES,
            elsewhere,
        };
        assert_eq!(ring.broken(cost(2, 50, 0)), None);
        for (cost, word) in [
            (cost(3, 50, 0), "6000 locked"),
            (cost(1, 50, 0), "2000 locked"),
            (cost(2, 51, 0), "51 instructions"),
            (cost(2, 50, 1), "libraries"),
        ] {
            assert!(ring.broken(cost).unwrap().contains(word), "{cost:?}");
        }
    }
}
