//! Operations as futures, of several tasks on the same queue pairs; some are dropped before they are ready.

use std::sync::{Arc, Mutex};

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{AsyncQueuePair, Drained, Poller};
use rdma_mr::work::WcStatus;
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
use shuttle::future::{JoinHandle, block_on, spawn};

use crate::run::{chance, explore};
use crate::world::{Polling, World, impatient, some_day};

/// So many tasks send, and so many receive.
const TASKS: u8 = 3;

type Qp = Arc<AsyncQueuePair<QueuePair>>;

/// Bytes that were written by one.
fn whole(mr: &LocalMr) -> u8 {
    let bytes = mr.as_slice();
    let tag = bytes[0];
    assert_eq!(*bytes, [tag; 16], "torn");
    tag
}

/// Sends its bytes twice, and changes them in between, until the peer is gone.
async fn send(qp: Qp, mut mr: LocalMr, task: u8) {
    for n in 0..2 {
        let tag = 1 + task * 16 + n;
        mr.as_mut_slice_async().await.fill(tag);
        let sent = match chance(2) {
            0 => Some(qp.send(&mr, None).await),
            _ => impatient(qp.send(&mr, None), chance(8)).await,
        };
        match sent {
            None | Some(Ok(_)) => {}
            Some(Err(Error::OperationFailed { status, .. })) => {
                let gone = [WcStatus::RetryExcErr, WcStatus::WrFlushErr];
                assert!(gone.contains(&status), "{status:?}");
            }
            Some(Err(error)) => panic!("{error:?}"),
        }
    }
}

/// Receives twice; of what it has waited for, it knows the bytes.
async fn recv(qp: Qp, mr: LocalMr, seen: Arc<Mutex<Vec<u8>>>) {
    for _ in 0..2 {
        let polls = 8 + chance(64);
        if let Some(done) = impatient(qp.recv(&mr), polls).await {
            assert_eq!(done.unwrap().byte_len, 16);
            let tag = whole(&mr);
            seen.lock().unwrap().push(tag);
        }
    }
}

/// The end of a queue pair, in one of the ways that there are.
fn drained(qp: AsyncQueuePair<QueuePair>) -> Drained {
    match chance(4) {
        0 => qp.drain().until(some_day()),
        1 => block_on(qp.drain()),
        2 => qp.drain().with(|| chance(50) > 0),
        _ => qp.drain().finish(),
    }
}

fn scenario() {
    let world = World::new();
    let poller = Poller::new(world.cq());
    // Flushed at the end.
    let polling = Polling::telling(&world, &poller, |_| ());
    let (a, b) = world.ends(&poller);
    let [a, b] = [a, b].map(|end| Arc::new(AsyncQueuePair::new(end)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let region = || LocalMr::alloc(&world.pd, 16).unwrap();
    let senders: Vec<JoinHandle<()>> = (0..TASKS)
        .map(|task| spawn(send(Arc::clone(&a), region(), task)))
        .collect();
    let receivers: Vec<JoinHandle<()>> = (0..TASKS)
        .map(|_| spawn(recv(Arc::clone(&b), region(), Arc::clone(&seen))))
        .collect();
    for receiver in receivers {
        block_on(receiver).unwrap();
    }
    // Nobody receives any more: what waits for that fails with its queue pair, at the latest.
    let b = Arc::into_inner(b).unwrap();
    assert_eq!(drained(b).leaked, 0);
    for sender in senders {
        sender.abort();
        let _ = block_on(sender);
    }
    assert_eq!(drained(Arc::into_inner(a).unwrap()).leaked, 0);
    polling.end();
    let mut seen = Arc::into_inner(seen).unwrap().into_inner().unwrap();
    assert!(!seen.contains(&0), "told of bytes that nobody sent");
    seen.sort_unstable();
    assert!(
        seen.windows(2).all(|two| two[0] != two[1]),
        "{seen:?}: received twice"
    );
    drop(poller);
    world.end();
}

/// Futures are told once, also beside others that are dropped; and at the end of their queue pair.
///
/// Shows: ASYNC-1, POLLER-1, TICKET-1.
#[test]
fn futures_are_told() {
    explore("futures_are_told", 1500, scenario);
}
