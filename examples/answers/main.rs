//! Whether a device tells success only of what it has done: READs and atomics, WRITEs and SENDs between two
//! queue pairs, as many at once as one likes, and after each success the bytes are compared.
//!
//! ```text
//! cargo run --release --features verbs --example answers -- --seconds 60 --mix add,write8
//! cargo xtask soak --verbs --loss 1 --answers add,write8      on soft-RoCE that loses packets
//! ```
//!
//! The verbs alone, by rdma-sys: of this crate nothing but the names of numbers. Nobody can have a hand in it but
//! the device: what is read is written once, before the first request; one queue pair alone changes the
//! counter, in the order of its requests; every request has its own bytes here, filled before it is posted
//! with what the peer has nowhere, and not touched until its completion, nor by another request.
//! What was wrong is looked at again 20 ms later. An exit status of 1 says that something was.

mod memory;
#[allow(dead_code, reason = "`raw_verbs` uses all of it")]
#[path = "../raw_verbs/queues.rs"]
mod queues;
mod run;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;
use queues::{Device, Way};
use run::{PLACE, Run};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
    Send,
    Add,
    Swap,
}

/// A kind of request, and what became of those.
struct Item {
    name: String,
    kind: Kind,
    length: usize,
    succeeded: u64,
    wrong: u64,
}

impl FromStr for Item {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let digits = name
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(name.len());
        let (kind, length) = match name.split_at(digits) {
            ("add", "") => (Kind::Add, 8),
            ("swap", "") => (Kind::Swap, 8),
            ("read", length) => (Kind::Read, length.parse()?),
            ("write", length) => (Kind::Write, length.parse()?),
            ("send", length) => (Kind::Send, length.parse()?),
            _ => {
                return Err(
                    format!("{name}: read8, write4096, send1, add and swap are known").into(),
                );
            }
        };
        if !(1..=PLACE).contains(&length) {
            return Err(format!("{name}: 1 to {PLACE} bytes").into());
        }
        let (succeeded, wrong) = (0, 0);
        let name = name.to_owned();
        Ok(Item {
            name,
            kind,
            length,
            succeeded,
            wrong,
        })
    }
}

fn run() -> Result<u64, Failure> {
    let (mut seconds, mut depth, mut seed) = (10, 16, 1);
    let mut way = Way {
        gids: None,
        rd_atomic: 16,
    };
    let mut mix = String::from("read8,read4096,add,swap,write8,write4096,send8");
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("depth") => {
                depth = parser.value()?.parse_with(|text| match text.parse() {
                    Ok(depth @ 1..=128) => Ok(depth),
                    _ => Err("1 to 128"),
                })?
            }
            Long("rd-atomic") => way.rd_atomic = parser.value()?.parse()?,
            Long("mix") => mix = parser.value()?.string()?,
            Long("seed") => seed = parser.value()?.parse()?,
            Long("gids") => {
                let gids = parser.value()?.string()?;
                let (near, far) = gids.split_once(',').ok_or("--gids NEAR,FAR")?;
                way.gids = Some([near.parse()?, far.parse()?]);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let items = mix
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<Item>, _>>()?;
    let device = Device::open()?;
    let mut run = Run::new(device, way, depth, items, seed)?;
    run.go(Duration::from_secs(seconds))?;
    println!(
        "{depth} at once, {} READs and atomics; {} connections",
        way.rd_atomic, run.connections
    );
    for Item {
        name,
        succeeded,
        wrong,
        ..
    } in &run.items
    {
        println!("{name:>10}: {succeeded} told as successes, {wrong} of them were not");
    }
    Ok(run.items.iter().map(|item| item.wrong).sum())
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("answers: {failure}");
            ExitCode::from(2)
        }
    }
}
