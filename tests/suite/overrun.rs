//! Completion queues that lose completions (R15): nothing is released by that.

use std::time::{Duration, Instant};

use futures_lite::future::{block_on, poll_once};
use rdma_mr::op::{AsyncQueuePair, Endpoint};
use rdma_mr::work::{QpCaps, QueuePair};
use rdma_mr::{Error, Result};

use super::*;
use crate::fabric::LONG;

const COUNT: usize = 512;

const CAPS: QpCaps = QpCaps {
    max_send_wr: COUNT as u32,
    max_recv_wr: COUNT as u32 + 1,
    max_send_sge: 1,
    max_recv_sge: 1,
    max_inline: 0,
};

/// Polls until that fails; gives what was told before.
fn until_error(mut poll: impl FnMut(&mut Vec<Done>) -> Result<usize>) -> (Vec<Done>, Error) {
    let (mut all, start) = (Vec::new(), Instant::now());
    loop {
        if let Err(error) = poll(&mut all) {
            return (all, error);
        }
        assert!(start.elapsed() < LONG, "polls go on");
    }
}

fn free(mrs: &[LocalMr]) -> usize {
    mrs.iter().filter(|mr| mr.state().is_free()).count()
}

pub fn r15_an_overrun_releases_nothing_and_the_end_all<F: Fabric>(fabric: &F) {
    let cq = fabric.cq(1);
    let (a, b) = fabric.queue_pairs(&cq, &fabric.cq(16), CAPS);
    let mut a = Endpoint::new(a);
    let to = words(fabric, COUNT);
    for mr in &to {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    a.qp().modify_to_error().unwrap();
    fabric.await_overrun(&cq);
    let (all, error) = until_error(|all| a.poll(|done| all.push(done)));
    assert!(matches!(error, Error::Provider { .. }), "{error:?}");
    assert!(all.iter().all(|done| done.status == WcStatus::WrFlushErr));
    // Those whose completions did arrive, and no other.
    assert!(all.len() < COUNT);
    assert_eq!(free(&to), all.len());
    assert_eq!(a.outstanding().1, COUNT - all.len());
    assert_written(&to[all.len()..]);
    // It stays so.
    assert!(a.poll(|_| ()).is_err());
    assert_eq!(free(&to), all.len());

    let start = Instant::now();
    let drained = a.drain().until(start + LONG);
    assert!(start.elapsed() < LONG / 2, "there is nothing to wait for");
    let counts = (drained.completed, drained.released, drained.leaked);
    assert_eq!(counts, (0, COUNT - all.len(), 0));
    let error = drained.error.unwrap();
    assert!(matches!(error, Error::Provider { .. }), "{error:?}");
    assert_free(&to);
    drop(b);
}

pub fn r15_an_overrun_is_told_to_futures<F: Fabric>(fabric: &F) {
    let cq = fabric.cq(1);
    let (a, b) = fabric.queue_pairs(&cq, &fabric.cq(COUNT as u32), CAPS);
    let (mut a, mut b) = (Endpoint::new(a), Endpoint::new(b));
    let (to, last) = (words(fabric, COUNT), fabric.alloc(8));
    for mr in &to {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    let poller = a.recv_poller().clone();
    let a = AsyncQueuePair::new(a);
    {
        let mut waiting = std::pin::pin!(a.recv(&last));
        assert!(block_on(poll_once(waiting.as_mut())).is_none());
        assert_written([&last]);
        let from = fabric.alloc(8);
        for _ in 0..COUNT {
            b.send(from.begin_read().unwrap(), None).unwrap();
        }
        fabric.await_overrun(&cq);
        until_error(|_| poller.poll());
        let told = block_on(waiting);
        assert!(matches!(told, Err(Error::CompletionsLost)), "{told:?}");
        assert_written([&last]);
        // Nor does one wait that comes later.
        let other = fabric.alloc(8);
        let told = block_on(a.recv(&other));
        assert!(told.is_err(), "{told:?}");
        drop(b);
        drop(from);
    }
    let drained = a.drain().until(Instant::now() + Duration::from_secs(5));
    assert_eq!(drained.leaked, 0);
    assert!(drained.released > 0 && drained.error.is_some());
    assert_free(to.iter().chain([&last]));
}
