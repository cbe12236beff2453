//! What the layer costs: ping-pong between two queue pairs, by the bare queues and through the crate,
//! in turns within one run.
//!
//! ```text
//! pingpong [OPTIONS]
//!
//!   --soft              over the NIC in software (default)
//!   --device            over the first RDMA device, from one queue pair to another one there
//!   --iterations N      round trips of each contestant (default: 20000)
//!   --block N           round trips before it is the next one's turn (default: 100)
//!   --contests N        plays that many contests, each with contestants made anew (default: 1)
//!   --size BYTES        bytes in a message (default: 64)
//!   --inline            the post copies the bytes (IBV_SEND_INLINE)
//!   --yield             give the processor up after each look at a queue that was empty: for machines
//!                       where the NIC itself needs a processor, and there are not enough
//!   --check PERCENT     fail if the layer adds more than that at the median, in every contest
//! ```
//!
//! All contestants use the same two queue pairs, which one thread posts to and polls. In a round trip
//! each side posts a receive, writes the round's number into its bytes, sends them, and checks the
//! number that came: through guards, or, in the plain one, through pointers. The plain one is there
//! twice: what it differs from itself by is how far the other figures can be trusted. What a contestant
//! adds is the median, over the turns, of its median in a turn beside the plain one's: a machine that is
//! busy otherwise slows both.
//!
//! Not always alike: on soft-RoCE in a virtual machine a round trip takes either 65 or 130 microseconds,
//! by how the kernel's workers are scheduled. A disturbance from outside leads from the one to the
//! other for some rounds, and while that happens often, a difference of one microsecond decides which
//! one it is. And where the contestants' memory lies costs an emulated processor some microseconds, for as
//! long as it lies there. So there can be several contests, each with contestants made anew: the
//! table is of the one in which the plain one was least disturbed, whatever the others did, and
//! `--check` fails if the layer adds more than the limit in each of them.

mod contest;
mod futures;
mod layers;
mod plain;
mod report;
mod soft;
#[cfg(feature = "verbs")]
mod verbs;
mod wire;

use std::process::ExitCode;

/// Anything that ends the program, as one line.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Options {
    pub(crate) iterations: usize,
    pub(crate) block: usize,
    pub(crate) contests: usize,
    pub(crate) size: usize,
    pub(crate) inline: bool,
    pub(crate) yields: bool,
    pub(crate) check: Option<f64>,
}

/// The numbers take as much; longer messages would measure copies.
const SIZES: std::ops::RangeInclusive<usize> = 8..=1 << 20;

fn main() -> ExitCode {
    match parse().and_then(|(device, options)| run(device, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pingpong: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<(bool, Options), Failure> {
    use lexopt::prelude::*;

    let mut options = Options {
        iterations: 20_000,
        block: 100,
        contests: 1,
        size: 64,
        inline: false,
        yields: false,
        check: None,
    };
    let mut device = false;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("soft") => device = false,
            Long("device") => device = true,
            Long("iterations") => options.iterations = parser.value()?.parse()?,
            Long("block") => options.block = parser.value()?.parse()?,
            Long("contests") => options.contests = parser.value()?.parse()?,
            Long("size") => options.size = parser.value()?.parse()?,
            Long("inline") => options.inline = true,
            Long("yield") => options.yields = true,
            Long("check") => options.check = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if !(1..=10_000_000).contains(&options.iterations) || options.block == 0 {
        return Err("--iterations takes 1 to 10000000, --block at least 1".into());
    }
    if options.contests == 0 {
        return Err("--contests takes at least 1".into());
    }
    if !SIZES.contains(&options.size) {
        let (least, most) = SIZES.into_inner();
        return Err(format!("--size takes {least} to {most} bytes").into());
    }
    if options.check.is_some_and(|percent| !percent.is_finite()) {
        return Err("--check takes a number of percent".into());
    }
    Ok((device, options))
}

fn run(device: bool, options: &Options) -> Result<(), Failure> {
    if !device {
        return contest::run(&soft::Soft::open(), options);
    }
    #[cfg(feature = "verbs")]
    return contest::run(&verbs::Device::open()?, options);
    #[cfg(not(feature = "verbs"))]
    Err("--device needs an RDMA device: build with --features verbs".into())
}
