//! The contest: who takes part, whose turn it is, and what a round trip is.

use std::ops::Range;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rdma_mr::op::Endpoint;
use rdma_mr::work::QpCaps;

use crate::futures::Futures;
use crate::layers::{ByEndpoint, HoldAsId};
use crate::plain::Plain;
use crate::report::{NAMES, Report};
use crate::wire::{Bare, Patience, Queues, Wire};
use crate::{Failure, Options};

/// Bytes of a round's number.
pub const NUMBER: usize = size_of::<u64>();

/// The two queue pairs. Endpoints have them, and the others use them only while nothing of an
/// endpoint is outstanding.
pub type Endpoints<W> = [Endpoint<<W as Bare>::Qp>; 2];

/// Somebody who plays.
pub trait Contestant<W: Wire> {
    /// Plays a round of each number, and adds what each took, in nanoseconds. Leaves nothing
    /// outstanding.
    fn play(
        &mut self,
        endpoints: Endpoints<W>,
        numbers: Range<u64>,
        times: &mut Vec<u64>,
    ) -> Result<Endpoints<W>, Failure>;
}

/// What is outstanding on one side.
#[derive(Default)]
pub struct Pending {
    pub send: bool,
    pub recv: bool,
}

/// One side of a contestant that posts and polls by hand.
pub trait Side<W: Wire> {
    fn pending(&mut self) -> &mut Pending;

    /// Posts the receive.
    fn expect(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure>;

    /// Writes the number, and posts the send.
    fn send(&mut self, endpoint: &mut Endpoint<W::Qp>, number: u64) -> Result<(), Failure>;

    /// Polls once, and notes what is over.
    fn poll(&mut self, endpoint: &mut Endpoint<W::Qp>) -> Result<(), Failure>;

    /// Whether that number has come.
    fn check(&mut self, number: u64) -> Result<(), Failure>;
}

/// One side and its queue pair.
struct Player<'a, W: Wire, S: Side<W>> {
    side: &'a mut S,
    endpoint: &'a mut Endpoint<W::Qp>,
    yields: bool,
}

impl<W: Wire, S: Side<W>> Player<'_, W, S> {
    #[inline]
    fn expect(&mut self) -> Result<(), Failure> {
        self.side.expect(self.endpoint)?;
        self.side.pending().recv = true;
        Ok(())
    }

    #[inline]
    fn send(&mut self, number: u64) -> Result<(), Failure> {
        self.settle()?;
        self.side.send(self.endpoint, number)?;
        self.side.pending().send = true;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, number: u64) -> Result<(), Failure> {
        self.poll_while(|pending| pending.recv)?;
        self.side.check(number)
    }

    /// The last send may not have been acknowledged when the answer is there.
    #[inline]
    fn settle(&mut self) -> Result<(), Failure> {
        self.poll_while(|pending| pending.send)
    }

    #[inline]
    fn poll_while(&mut self, waiting: impl Fn(&Pending) -> bool) -> Result<(), Failure> {
        let mut patience = Patience::new(self.yields);
        while waiting(self.side.pending()) {
            self.side.poll(self.endpoint)?;
            if waiting(self.side.pending()) {
                patience.turn()?;
            }
        }
        Ok(())
    }
}

/// Both sides, and whether they yield.
struct Two<S>([S; 2], bool);

impl<W: Wire, S: Side<W>> Contestant<W> for Two<S> {
    fn play(
        &mut self,
        mut endpoints: Endpoints<W>,
        numbers: Range<u64>,
        times: &mut Vec<u64>,
    ) -> Result<Endpoints<W>, Failure> {
        let (Two([side_a, side_b], yields), [a, b]) = (self, &mut endpoints);
        let mut a = Player::<W, S> {
            side: side_a,
            endpoint: a,
            yields: *yields,
        };
        let mut b = Player::<W, S> {
            side: side_b,
            endpoint: b,
            yields: *yields,
        };
        for number in numbers {
            let start = Instant::now();
            b.expect()?;
            a.expect()?;
            a.send(number)?;
            b.receive(number)?;
            b.send(!number)?;
            a.receive(!number)?;
            times.push(start.elapsed().as_nanos() as u64);
        }
        a.settle()?;
        b.settle()?;
        Ok(endpoints)
    }
}

/// Whether the bytes are that number.
#[inline]
pub fn check(bytes: &[u8], number: u64) -> Result<(), Failure> {
    if bytes == number.to_ne_bytes() {
        return Ok(());
    }
    Err(format!("number {number:#x} did not come: the bytes are {bytes:x?}").into())
}

/// Both sides of a contestant.
fn sides<W: Wire, S>(
    wire: &W,
    options: &Options,
    new: fn(&W, &Options) -> Result<S, Failure>,
) -> Result<Two<S>, Failure> {
    let both = [new(wire, options)?, new(wire, options)?];
    Ok(Two(both, options.yields))
}

type Contestants<'a, W> = [Box<dyn Contestant<W> + 'a>; NAMES.len()];

/// Who takes part, by the names in [`NAMES`].
fn contestants<'a, W: Wire + 'a>(
    wire: &W,
    options: &Options,
) -> Result<Contestants<'a, W>, Failure> {
    Ok([
        Box::new(sides(wire, options, Plain::<W>::new)?),
        Box::new(sides(wire, options, Plain::<W>::new)?),
        Box::new(sides(wire, options, Plain::<Queues<W::Qp>>::new)?),
        Box::new(sides(wire, options, HoldAsId::new)?),
        Box::new(sides(wire, options, ByEndpoint::new)?),
        Box::new(Futures::new(wire, options)?),
    ])
}

/// Plays all of it, and prints how it went.
pub fn run<W: Wire>(wire: &W, options: &Options) -> Result<(), Failure> {
    let caps = QpCaps {
        max_send_wr: 4,
        max_recv_wr: 4,
        max_send_sge: 1,
        max_recv_sge: 1,
        max_inline: if options.inline {
            options.size as u32
        } else {
            0
        },
    };
    let mut endpoints = wire.pair(caps)?.map(Endpoint::new);
    let mut number = 0;
    // Shuffled each time: nobody always has the same one before it.
    let mut order: [usize; NAMES.len()] = std::array::from_fn(|at| at);
    let mut rng = SmallRng::seed_from_u64(64);
    let (mut reports, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..options.contests {
        let mut contestants = contestants(wire, options)?;
        let mut play = |at: usize, count: usize, times: &mut Vec<u64>, endpoints| {
            let first = number;
            number += count as u64;
            contestants[at].play(endpoints, first..number, times)
        };
        // The first rounds are for the caches, and for who was asleep.
        for at in 0..NAMES.len() {
            endpoints = play(at, options.block, &mut Vec::new(), endpoints)?;
        }
        let mut times = [const { Vec::new() }; NAMES.len()];
        let mut left = options.iterations;
        while left > 0 {
            let count = left.min(options.block);
            order.shuffle(&mut rng);
            for at in order {
                endpoints = play(at, count, &mut times[at], endpoints)?;
            }
            left -= count;
        }
        reports.push(Report::new(times, options.block));
        // Kept, so that those of the next contest are somewhere else in memory.
        gone.push(contestants);
    }
    for endpoint in endpoints {
        endpoint.close().map_err(|(_, error)| error)?;
    }
    Report::finish(&reports, &wire.name(), options)
}
