//! How many instructions a hot path has, with the most that it may have: counted by gungraun under
//! callgrind, by `cargo xtask instructions`, which has its runner. Compilers differ: the limits are a tenth above
//! what was counted.
#![allow(missing_docs, reason = "of what gungraun's macros make")]

mod shapes;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group,
};
use shapes::paths::{self, Walk};

/// So often is a path taken, after as many times that are not counted: what is done at the first is over
/// then.
const TIMES: usize = 1000;

fn ready(name: &str) -> Walk {
    let mut walk = paths::by_name(name).expect("a path of that name");
    walk(0..TIMES);
    walk
}

/// The most instructions for one time, with those of the loop around it.
fn most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.hard_limits([(EventKind::Ir, instructions * TIMES as u64)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark(setup = ready)]
#[bench::load(args = ("load"), config = most(7))]
#[bench::lkey(args = ("lkey"), config = most(9))]
#[bench::rkey(args = ("rkey"), config = most(8))]
#[bench::addr(args = ("addr"), config = most(8))]
#[bench::read_inner(args = ("read_inner"), config = most(43))]
#[bench::state(args = ("state"), config = most(71))]
#[bench::as_slice(args = ("as_slice"), config = most(28))]
#[bench::biased(args = ("biased"), config = most(46))]
#[bench::biased_by_membarrier(args = ("biased_by_membarrier"), config = most(48))]
#[bench::try_as_slice(args = ("try_as_slice"), config = most(36))]
#[bench::refused(args = ("refused"), config = most(12))]
#[bench::as_ptr(args = ("as_ptr"), config = most(20))]
#[bench::as_mut_slice(args = ("as_mut_slice"), config = most(30))]
#[bench::slice(args = ("slice"), config = most(33))]
#[bench::permit(args = ("permit"), config = most(55))]
#[bench::begin_read(args = ("begin_read"), config = most(70))]
#[bench::begin_write(args = ("begin_write"), config = most(92))]
#[bench::begin_refused(args = ("begin_refused"), config = most(131))]
#[bench::slot(args = ("slot"), config = most(82))]
#[bench::wr_id(args = ("wr_id"), config = most(62))]
#[bench::ring(args = ("ring"), config = most(172))]
#[bench::slots(args = ("slots"), config = most(337))]
#[bench::endpoint(args = ("endpoint"), config = most(592))]
#[bench::future(args = ("future"), config = most(1690))]
fn path(mut walk: Walk) -> Walk {
    walk(TIMES..2 * TIMES);
    walk
}

library_benchmark_group!(name = paths_taken, benchmarks = path);

fn counted() {
    gungraun::main!(library_benchmark_groups = paths_taken);
    main();
}

fn main() {
    // `cargo bench` runs every bench; without its runner this one has nothing to say.
    if option_env!("GUNGRAUN_RUNNER").is_some() {
        counted();
    }
}
