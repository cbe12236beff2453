//! The ways in which a queue pair comes to its end.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdma_mr::op::Drained;

use super::holds::poll_some;
use super::lane::{End, Lane};
use super::random::Random;
use super::report::{count, fail, lock};
use super::{Role, Victim, World};

impl<F: Victim> Lane<F> {
    /// Ends both, and lets go of what the peers could reach.
    pub fn end(self, world: &World<F>, random: &mut Random) {
        let lossy = self.pair.lossy;
        let [a, b] = self.ends;
        let (a, b) = if random.once_in(2) { (a, b) } else { (b, a) };
        let first = a.end(world, lossy, random);
        // Its peer has lost it, and may go on for a while.
        if random.once_in(3) {
            count("failure peer gone");
            std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
        }
        let second = b.end(world, lossy, random);
        if world.role == Role::Plain && !(first && second) {
            fail("a queue pair could not be destroyed");
        }
        for (effect, holds) in std::mem::take(&mut *lock(&self.pair.until_the_end)) {
            // Messages need both.
            if first || second {
                effect.iter().for_each(|effect| effect.fail());
                drop(holds);
                effect.iter().for_each(|effect| effect.look());
            } else {
                world.keep(holds);
            }
        }
    }
}

impl<F: Victim> End<F> {
    /// Whether it was destroyed.
    fn end(self, world: &World<F>, lossy: bool, random: &mut Random) -> bool {
        let End {
            endpoint,
            hub,
            owner,
            destroyed,
            alone,
        } = self;
        let before = hub.outstanding(owner);
        let soon = Duration::from_micros(random.below(3000) as u64);
        // These tell nobody of what they poll, so that it would not be known what was leaked.
        let quiet = world.role == Role::Plain && alone;
        let (drained, told): (Option<Drained>, bool) = match random.below(if quiet { 9 } else { 6 })
        {
            0 | 1 => {
                count("end dropped");
                drop(endpoint);
                (None, true)
            }
            2 => {
                count("end closed");
                if let Err((endpoint, _)) = endpoint.close() {
                    count("end closed later, or leaked");
                    drop(endpoint);
                }
                (None, true)
            }
            3 => {
                count("end drain dropped");
                let mut drain = endpoint.drain();
                for _ in 0..random.below(3) {
                    drain.advance(|done| hub.done(done));
                }
                (None, true)
            }
            4 | 5 => {
                count("end drained");
                let deadline = Instant::now() + soon;
                let mut drain = endpoint.drain();
                while !drain.advance(|done| hub.done(done)) && Instant::now() < deadline {
                    std::thread::yield_now();
                }
                (Some(drain.finish()), true)
            }
            6 => {
                count("end drained until a deadline");
                (Some(endpoint.drain().until(Instant::now() + soon)), false)
            }
            7 => {
                count("end drained with progress");
                let mut rounds = random.below(50);
                let drain = endpoint.drain();
                let go_on = || {
                    std::thread::yield_now();
                    rounds = rounds.saturating_sub(1);
                    rounds > 0
                };
                (Some(drain.with(go_on)), false)
            }
            _ => {
                let drain = pin!(endpoint.drain());
                let drained = poll_some(drain, random.below(4));
                count(match drained {
                    Some(_) => "end drained as a future",
                    None => "end drain future dropped",
                });
                (drained, false)
            }
        };
        let destroyed = destroyed.load(Ordering::SeqCst);
        let ended = hub.end(owner, destroyed);
        if !destroyed {
            count("end leaked");
            world.leaks(&hub);
        }
        if let Some(drained) = drained {
            let Drained {
                completed,
                released,
                leaked,
                ..
            } = drained;
            // A receive without a completion keeps the room of later ones; that is told of, too.
            let account = completed + released + leaked;
            if alone && account != before && !(lossy && account > before) {
                fail(format_args!("{before} were outstanding: {drained:?}"));
            }
            if alone && told && ended != released + leaked {
                fail(format_args!("{ended} had not been told of: {drained:?}"));
            }
            if (leaked > 0 && destroyed) || (released > 0 && !destroyed) {
                fail(format_args!("destroyed: {destroyed}, {drained:?}"));
            }
            if leaked > 0 && drained.error.is_none() {
                fail(format_args!("leaked without an error: {drained:?}"));
            }
        }
        destroyed
    }
}
