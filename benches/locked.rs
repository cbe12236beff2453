//! Takes one shape of an operation so and so often and does nothing else: `cargo xtask instructions`
//! runs it under callgrind and counts the RMWs in it.

mod shapes;

use std::process::ExitCode;

use shapes::paths::{self, both};

fn run(mut once: impl FnMut(usize), count: usize) {
    for n in 0..count {
        once(n);
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, shape, count, ..] = args.as_slice() else {
        // `cargo bench` runs every bench; this one has nothing to say there.
        return ExitCode::SUCCESS;
    };
    let Ok(count) = count.parse() else {
        eprintln!("{count}: not a number");
        return ExitCode::FAILURE;
    };
    match shape.as_str() {
        "load" => run(paths::look(shapes::word(), shapes::load), count),
        "lkey" => run(paths::lkey(), count),
        "rkey" => run(paths::rkey(), count),
        "hold" => run(paths::begin_write(), count),
        "slot" => run(paths::slot(), count),
        "wr_id" => run(both(shapes::hold_as_wr_id()), count),
        "ring" => run(both(shapes::ring()), count),
        "slots" => run(both(shapes::slots()), count),
        "rival" => run(both(shapes::guards_with_parking_lot()), count),
        "endpoint" => run(paths::endpoint(), count),
        "future" => run(paths::future(), count),
        _ => {
            eprintln!("{shape}: no such shape");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
