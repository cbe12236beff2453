//! What it costs to look at keys, rights and address, as ratios to a plain atomic load, beside the same
//! through the lock that this crate replaces. Sixteen looks at a time: one is less than the loop around it.
//!
//! What is promised is of looks that the processor may overlap, as those for the elements of a work
//! request are, with the loop around them on both sides. From the handle to the key are two loads, one
//! after the other, and a word that stands alone is one: the second table takes the loop off, and has
//! the baseline that is reached as a key is, through an `Arc`. The third is of looks each of which waits
//! for the one before.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use rdma_mr::prelude::*;
use shapes::runs::{LOOKS, sixteen};
use shapes::turns::{self, Contestant, Run, alone, contestant};
use shapes::{Locked, load, region, word};

/// Looks that know nothing of each other.
fn at<T: 'static, R: 'static>(what: T, look: impl Fn(&T) -> R + 'static) -> Run {
    sixteen!(what, &look)
}

/// Looks each of which has to know what the one before has seen.
fn after<T: 'static>(make: impl Fn() -> T, look: impl Fn(&T) -> u32 + 'static) -> Run {
    let either = [make(), make()];
    let (none, mut which) = (black_box(0), 0);
    alone(move |_| {
        for _ in 0..LOOKS {
            which = look(&either[which & none & 1]) as usize;
        }
        black_box(which);
    })
}

/// What all tables have.
fn keys() -> Vec<Contestant> {
    vec![
        contestant("lkey", at(region(), |mr| mr.lkey())).promised(1.5),
        contestant("rkey", at(region(), |mr| mr.rkey())).promised(1.5),
    ]
}

fn looks() -> Vec<Contestant> {
    let parking_lot = Arc::new(parking_lot::RwLock::new(Locked::default()));
    let std = Arc::new(std::sync::RwLock::new(Locked::default()));
    let mut looks = keys();
    looks.extend([
        contestant("floor: a plain atomic load", at(word(), load)).baseline(),
        contestant("keys", at(region(), |mr| mr.get_inner().keys())),
        contestant("access", at(region(), |mr| mr.access())),
        contestant("addr", at(region(), |mr| mr.addr())),
        contestant("read_inner", at(region(), |mr| mr.read_inner())),
        contestant(
            "rival: lkey in an Arc<RwLock> of parking_lot",
            at(parking_lot, |mr| mr.read().lkey),
        ),
        contestant(
            "rival: lkey in an Arc<RwLock> of std",
            at(std, |mr| mr.read().unwrap().lkey),
        ),
    ]);
    looks
}

fn looks_alone() -> Vec<Contestant> {
    let mut looks = keys();
    looks.extend([
        contestant("overhead: the loop", at((), |()| 0)).overhead(),
        contestant("a plain atomic load", at(word(), load)),
        contestant(
            "floor: an atomic load through an Arc",
            at(Arc::new(word()), |word| load(word)),
        )
        .baseline(),
    ]);
    looks
}

fn chains() -> Vec<Contestant> {
    vec![
        contestant("floor: a plain atomic load", after(word, load)).baseline(),
        contestant(
            "an atomic load through an Arc",
            after(|| Arc::new(word()), |word| load(word)),
        ),
        contestant("lkey", after(region, |mr| mr.lkey())),
        contestant("rkey", after(region, |mr| mr.rkey())),
    ]
}

fn main() -> ExitCode {
    turns::main(&[
        ("keys, sixteen looks", looks),
        ("keys, sixteen looks, the loop taken off", looks_alone),
        ("keys, sixteen looks, each after the one before", chains),
    ])
}
