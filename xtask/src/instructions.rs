//! `cargo xtask instructions`: what a hot path costs, in exact numbers, the same on every run.
//!
//! Instructions are counted by gungraun, with the limits in `benches/instructions.rs`. What gungraun can't tell
//! is counted here, of the same paths: locked instructions, under callgrind, and writes that others see,
//! under lackey. Two runs of each path by `benches/locked.rs`, one twice as long, differ by what its
//! operations cost and nothing else. And what follows the RMW of a release is read in the disassembly.

mod gungraun;
mod release;
mod writes;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Sub;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::figures::{Report, Row, Table};
use crate::packages::{self, Use};
use crate::workspace;
use crate::{process, report};

/// How often a path is taken in the shorter run.
const TIMES: u64 = 2000;

struct Shape {
    /// As `benches/shapes/paths.rs` calls it.
    name: &'static str,
    /// `None` for what is there to be compared with.
    promise: Option<Promise>,
}

#[derive(Clone, Copy)]
struct Promise {
    /// Locked instructions at a time, in thousandths: what is done once in a while counts as well.
    locked: u64,
    /// Whether all of it happens in the program itself: no allocator, no system call.
    alone: bool,
    /// Whether it writes nothing that another thread could see.
    silent: bool,
}

const fn shape(name: &'static str, promise: Promise) -> Shape {
    let promise = Some(promise);
    Shape { name, promise }
}

const fn rmws(locked: u64) -> Promise {
    Promise {
        locked: 1000 * locked,
        alone: true,
        silent: false,
    }
}

/// A look, or a refusal.
const SILENT: Promise = Promise {
    silent: true,
    ..rmws(0)
};

/// An RMW to come in and one to go: no guard counts an `Arc`.
const HOLD: Promise = rmws(2);

const SHAPES: &[Shape] = &[
    shape("load", SILENT),
    shape("lkey", SILENT),
    shape("rkey", SILENT),
    shape("addr", SILENT),
    shape("state", SILENT),
    shape("refused", SILENT),
    shape("begin_refused", SILENT),
    shape("as_slice", HOLD),
    // The fence, by a locked instruction on the stack; by membarrier(2) not even that.
    shape("biased", rmws(1)),
    shape("biased_by_membarrier", rmws(0)),
    shape("try_as_slice", HOLD),
    shape("as_ptr", HOLD),
    shape("slice", HOLD),
    shape("as_mut_slice", HOLD),
    shape("permit", HOLD),
    shape("begin_read", HOLD),
    shape("begin_write", HOLD),
    shape("wr_id", HOLD),
    shape("ring", HOLD),
    // One RMW to take it, one to give it back.
    shape("slot", HOLD),
    shape(
        "slots",
        Promise {
            locked: 4008,
            ..HOLD
        },
    ),
    shape("endpoint", rmws(5)),
    // Moves itself by memcpy.
    shape(
        "future",
        Promise {
            alone: false,
            ..rmws(14)
        },
    ),
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
    gungraun::run()?;
    let program = &workspace::bench("locked")?;
    let disassembly = process::text(
        Command::new("objdump")
            .args(["--disassemble", "--no-show-raw-insn", "--demangle"])
            .arg(program),
    )?;
    let mut wrong = release::check(&disassembly)?;
    wrong.extend(count_all(program, &locked_instructions(&disassembly))?);
    if !wrong.is_empty() {
        bail!("a path costs what it should not: {}", wrong.join("; "));
    }
    Ok(())
}

/// Counts all shapes, and says what is wrong.
fn count_all(program: &Path, locked: &BTreeSet<u64>) -> Result<Vec<String>> {
    println!("         path     RMWs  elsewhere   writes");
    let mut wrong = Vec::new();
    let (mut all, mut locked_ones) = (Vec::new(), Vec::new());
    for shape in SHAPES {
        let cost = profile(program, shape.name, 2 * TIMES, locked)?
            - profile(program, shape.name, TIMES, locked)?;
        let is_silent = shape.promise.is_some_and(|promise| promise.silent);
        let writes = if is_silent {
            let counted = |times| writes::count(program, shape.name, times);
            Some(counted(2 * TIMES)? - counted(TIMES)?)
        } else {
            None
        };
        let each = |count: u64| count as f64 / TIMES as f64;
        let (rmws, elsewhere) = (each(cost.locked), each(cost.elsewhere));
        let seen = writes.map_or(String::new(), |writes| format!("{:.1}", each(writes)));
        println!("{:>13} {rmws:>8.3} {elsewhere:>10.1} {seen:>8}", shape.name);
        all.push(row(shape, each(cost.instructions), None));
        let most = shape.promise.map(|promise| promise.locked as f64 / 1000.0);
        locked_ones.push(row(shape, rmws, most));
        let complaint = shape
            .promise
            .and_then(|promise| promise.broken(cost, writes.unwrap_or(0)));
        wrong.extend(complaint.map(|complaint| format!("{}: {complaint}", shape.name)));
    }
    hand_on(all, locked_ones)?;
    Ok(wrong)
}

fn row(shape: &Shape, value: f64, promised_value: Option<f64>) -> Row {
    Row {
        name: shape.name.into(),
        value,
        promised_value,
        ..Row::default()
    }
}

/// For the report of all benches.
fn hand_on(all: Vec<Row>, locked: Vec<Row>) -> Result<()> {
    let table = |title: &str, rows| Table {
        title: title.into(),
        rows,
        ..Table::default()
    };
    let tables = vec![table("instructions", all), table("RMWs", locked)];
    let report = Report {
        bench: "instructions".into(),
        tables,
        ..Report::default()
    };
    Ok(report.write(&report::directory()?.join("instructions.json"))?)
}

/// `program`, taking a path so and so often, under a tool of valgrind's that writes into `output`.
fn valgrind(
    tool: &[&str],
    output: (&str, &Path),
    program: &Path,
    shape: &str,
    times: u64,
) -> Result<()> {
    let (option, path) = output;
    let mut out_file = OsString::from(option);
    out_file.push(path);
    process::run(
        Command::new("valgrind")
            .args(tool)
            .arg(out_file)
            .arg(program)
            .args([shape, &times.to_string()]),
    )
}

impl Promise {
    /// What is wrong with what [`TIMES`] operations cost, and write.
    fn broken(&self, cost: Count, writes: u64) -> Option<String> {
        if cost.locked * 1000 != self.locked * TIMES {
            let (locked, expected) = (cost.locked, self.locked * TIMES / 1000);
            return Some(format!(
                "{locked} locked instructions in {TIMES} operations, not {expected}"
            ));
        }
        if self.alone && cost.elsewhere != 0 {
            return Some(format!("{} instructions in libraries", cost.elsewhere));
        }
        if self.silent && writes != 0 {
            return Some(format!("{writes} writes that others see"));
        }
        None
    }
}

/// Takes one path under callgrind.
fn profile(program: &Path, shape: &str, times: u64, locked: &BTreeSet<u64>) -> Result<Count> {
    let output = tempfile::NamedTempFile::new()?;
    let tool = [
        "--quiet",
        "--tool=callgrind",
        "--dump-instr=yes",
        "--compress-pos=no",
        "--compress-strings=no",
    ];
    let out_file = ("--callgrind-out-file=", output.path());
    valgrind(&tool, out_file, program, shape, times)?;
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
        let cost = |locked, elsewhere| Count {
            instructions: 50 * TIMES,
            locked: locked * TIMES,
            elsewhere,
        };
        assert_eq!(HOLD.broken(cost(2, 0), 9), None);
        assert_eq!(SILENT.broken(cost(0, 0), 0), None);
        for (promise, cost, writes, word) in [
            (HOLD, cost(3, 0), 0, "6000 locked"),
            (HOLD, cost(1, 0), 0, "2000 locked"),
            (HOLD, cost(2, 1), 0, "libraries"),
            (SILENT, cost(0, 0), 1, "1 writes"),
        ] {
            let complaint = promise.broken(cost, writes).unwrap();
            assert!(complaint.contains(word), "{complaint}");
        }
    }
}
