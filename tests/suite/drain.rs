//! The orderly end, in its forms: bounded, with all of it accounted for (R16, R18).

use std::time::{Duration, Instant};

use futures_lite::future::{block_on, poll_once};
use rdma_mr::op::{Drain, Drained, Endpoint, Poller};
use rdma_mr::work::{QpCaps, QueuePair};

use super::*;
use crate::fabric::{LONG, completions, finish};

/// An endpoint with two sends that wait for a receive, one of which asks for a completion, and two
/// receives; and its peer.
struct Busy<F: Fabric> {
    end: Endpoint<F::Qp>,
    _peer: Endpoint<F::Qp>,
    mrs: Vec<LocalMr>,
}

impl<F: Fabric> Busy<F> {
    fn new(fabric: &F) -> Self {
        Self::of(fabric, fabric.pair(QpCaps::default()))
    }

    fn of(fabric: &F, (mut end, peer): (Endpoint<F::Qp>, Endpoint<F::Qp>)) -> Self {
        let mrs = words(fabric, 4);
        for (mr, flags) in mrs.iter().zip([UNSIGNALED, SIGNALED]) {
            end.post(mr.begin_read().unwrap(), SEND, flags).unwrap();
        }
        for mr in &mrs[2..] {
            end.recv(mr.begin_write().unwrap()).unwrap();
        }
        Busy {
            end,
            _peer: peer,
            mrs,
        }
    }

    #[track_caller]
    fn assert_held(mrs: &[LocalMr]) {
        assert_read(&mrs[..2]);
        assert_written(&mrs[2..]);
    }
}

/// All that was outstanding went one of these ways.
#[track_caller]
fn assert_counts(drained: &Drained, completed: usize, released: usize) {
    let counts = (drained.completed, drained.released, drained.leaked);
    assert_eq!(counts, (completed, released, 0), "{drained:?}");
    assert!(drained.error.is_none(), "{drained:?}");
}

pub fn r16_drain_until_all_is_flushed<F: Fabric>(fabric: &F) {
    let Busy { end, _peer, mrs } = Busy::new(fabric);
    let drain = end.drain();
    Busy::<F>::assert_held(&mrs);
    assert_counts(&drain.until(Instant::now() + LONG), 4, 0);
    assert_free(&mrs);
}

/// Flushed, but somebody else took the completions: none will come any more.
fn robbed<F: Fabric>(fabric: &F) -> Busy<F> {
    let busy = Busy::new(fabric);
    busy.end.qp().modify_to_error().unwrap();
    let all = completions(busy.end.send_poller().cq(), 4);
    assert!(all.iter().all(|wc| wc.status == WcStatus::WrFlushErr));
    Busy::<F>::assert_held(&busy.mrs);
    busy
}

pub fn r16_drain_is_bounded<F: Fabric>(fabric: &F) {
    let Busy { end, _peer, mrs } = robbed(fabric);
    let (start, limit) = (Instant::now(), Duration::from_millis(100));
    let drained = end.drain().until(start + limit);
    assert!((limit..LONG / 2).contains(&start.elapsed()));
    assert_counts(&drained, 0, 4);
    assert_free(&mrs);

    let Busy { end, _peer, mrs } = robbed(fabric);
    let mut calls = 0;
    let drained = end.drain().with(|| {
        calls += 1;
        calls < 100
    });
    assert_counts(&drained, 0, 4);
    assert_eq!(calls, 100);
    assert_free(&mrs);
}

/// A receive that is posted in ERR: rxe does not flush it by itself, but does when it is told ERR once
/// more, as a drain does.
pub fn r16_drain_flushes_what_was_posted_in_err<F: Fabric>(fabric: &F) {
    let Busy {
        mut end,
        _peer,
        mrs,
    } = Busy::new(fabric);
    end.qp().modify_to_error().unwrap();
    finish(&mut end, 4);
    std::thread::sleep(Duration::from_millis(50));
    end.recv(mrs[3].begin_write().unwrap()).unwrap();
    assert_counts(&end.drain().until(Instant::now() + LONG), 1, 0);
    assert_free(&mrs);
}

pub fn r16_drain_ends_at_once<F: Fabric>(fabric: &F) {
    let Busy { end, _peer, mrs } = Busy::new(fabric);
    let drain: Drain<_> = end.drain();
    assert_eq!(drain.outstanding(), 4);
    Busy::<F>::assert_held(&mrs);
    // Without a poll: whatever was flushed by then is nobody's any more.
    assert_counts(&drain.finish(), 0, 4);
    assert_free(&mrs);

    let Busy { end, _peer, mrs } = Busy::new(fabric);
    drop(end.drain());
    assert_free(&mrs);
}

pub fn r16_drain_one_step_at_a_time<F: Fabric>(fabric: &F) {
    let Busy { end, _peer, mrs } = Busy::new(fabric);
    let mut drain = end.drain();
    let (mut told, start) = (0, Instant::now());
    let mut done = false;
    while !done {
        done = drain.advance(|done| {
            assert_eq!(done.status, WcStatus::WrFlushErr);
            told += 1;
        });
        assert_eq!((drain.outstanding(), done), (4 - told, told == 4));
        let held = mrs.iter().filter(|mr| !mr.state().is_free()).count();
        assert_eq!(held, 4 - told);
        assert!(start.elapsed() < LONG);
        std::thread::yield_now();
    }
    assert_counts(&drain.finish(), 4, 0);
}

pub fn r16_drain_as_a_future<F: Fabric>(fabric: &F) {
    // Somebody else polls.
    let poller = Poller::new(fabric.cq(64));
    let thread = poller.spawn("poller").unwrap();
    let pair = fabric.attached(&poller, QpCaps::default());
    let Busy { end, _peer, mrs } = Busy::of(fabric, pair);
    assert_counts(&block_on(end.drain()), 4, 0);
    assert_free(&mrs);
    thread.stop().unwrap();

    // It has no limit of its own: dropping it is the end.
    let Busy { end, _peer, mrs } = robbed(fabric);
    let mut drain = end.drain();
    assert!(block_on(poll_once(&mut drain)).is_none());
    Busy::<F>::assert_held(&mrs);
    drop(drain);
    assert_free(&mrs);
}
