//! Takes one path of `shapes::paths` so and so often and does nothing else: `cargo xtask instructions`
//! runs it under valgrind, counts the RMWs and finds what it writes; and reads what its `release_*` were
//! compiled to.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::prelude::*;
use rdma_mr::{MrReadGuard, MrWriteGuard};
use shapes::{paths, region};

/// A function by itself, so that a disassembly has it.
#[inline(never)]
fn release_read_guard(guard: MrReadGuard<'_>) {
    drop(guard);
}

#[inline(never)]
fn release_write_guard(guard: MrWriteGuard<'_>) {
    drop(guard);
}

#[inline(never)]
fn release_hold(hold: Hold) {
    drop(hold);
}

fn releases() {
    let mut mr = region();
    release_read_guard(black_box(mr.as_slice()));
    release_write_guard(black_box(mr.as_mut_slice()));
    release_hold(black_box(mr.begin_read().unwrap()));
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, count, ..] = args.as_slice() else {
        // `cargo bench` runs every bench; this one has nothing to say there.
        return ExitCode::SUCCESS;
    };
    let Ok(count) = count.parse() else {
        eprintln!("{count}: not a number");
        return ExitCode::FAILURE;
    };
    let Some(mut walk) = paths::by_name(path) else {
        eprintln!("{path}: no such path");
        return ExitCode::FAILURE;
    };
    releases();
    walk(0..count);
    ExitCode::SUCCESS
}
