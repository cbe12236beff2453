//! Receives that two queue pairs share, with a poller each, and the ends of all of them in the midst of it.

use std::sync::{Arc, Mutex};

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{Begin, Endpoint, Poller, SharedRecv};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};
use shuttle::thread::{self, yield_now};

use crate::run::{chance, explore};
use crate::world::{End, Polling, SMALL, World, insist, settle};

const MESSAGES: usize = 3;

/// Bytes that one message wrote; 0 if none did.
fn whole(mr: &LocalMr) -> u8 {
    let bytes = mr.as_slice();
    assert_eq!(*bytes, [bytes[0]; 16], "torn");
    bytes[0]
}

/// Sends so many messages, each by another tag, from one region.
fn sender(mut end: End, mut mr: LocalMr, first: u8) -> End {
    for n in 0..MESSAGES as u8 {
        mr.as_mut_slice().fill(first + n);
        insist(mr.begin_read().unwrap(), |from| end.send(from, None));
    }
    // The handle goes before the operation.
    drop(mr);
    end
}

fn scenario() {
    let world = World::new();
    let srq = world.pd.create_srq(4, 1).unwrap();
    let pollers = [world.cq(), world.cq()].map(Poller::new);
    let ends = pollers.each_ref().map(|poller| {
        let cq = poller.cq();
        let taker = world.pd.create_qp_with_srq(cq, cq, &srq, SMALL).unwrap();
        let peer = world.qp(cq);
        QueuePair::connect_pair(&peer, &taker).unwrap();
        [peer, taker].map(|qp| Endpoint::attach(qp, poller).unwrap())
    });
    let polling = pollers
        .each_ref()
        .map(|poller| Polling::new(&world, poller));
    let mut recvs = SharedRecv::new(srq);
    for poller in &pollers {
        recvs.attach(poller).unwrap();
    }
    let region = || LocalMr::alloc(&world.pd, 16).unwrap();
    let mut takers = Vec::new();
    let senders: Vec<_> = ends
        .into_iter()
        .zip([1, 33])
        .map(|([peer, taker], first)| {
            takers.push(taker);
            let mr = region();
            thread::spawn(move || sender(peer, mr, first))
        })
        .collect();
    // Two receive, and take turns to post; each looks at what it got before its region is used again.
    let recvs = Arc::new(Mutex::new(Some(recvs)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let receivers = [region(), region()].map(|mut mr| {
        let (recvs, seen) = (Arc::clone(&recvs), Arc::clone(&seen));
        thread::spawn(move || {
            for _ in 0..MESSAGES {
                let hold = mr.begin_write().unwrap();
                let mut queue = loop {
                    if let Some(queue) = recvs.lock().unwrap().take() {
                        break queue;
                    }
                    yield_now();
                };
                insist(hold, |hold| queue.recv(hold));
                *recvs.lock().unwrap() = Some(queue);
                let tag = whole(&mr);
                seen.lock().unwrap().push(tag);
                mr.as_mut_slice().fill(0);
            }
            mr
        })
    });
    let regions = receivers.map(|receiver| receiver.join().unwrap());
    let peers: Vec<End> = senders
        .into_iter()
        .map(|sender| sender.join().unwrap())
        .collect();
    settle(&peers.iter().collect::<Vec<_>>());
    let mut seen = Arc::into_inner(seen).unwrap().into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 33, 34, 35]);
    let mut recvs = recvs.lock().unwrap().take().unwrap();
    assert_eq!(recvs.outstanding(), 0);
    // One more, which nobody sends: it ends with the queue.
    recvs.recv(regions[0].begin_write().unwrap()).unwrap();
    let close = move |takers: Vec<End>| {
        drop(takers);
        recvs.close().map_err(|(_, error)| error).unwrap();
    };
    match chance(2) {
        0 => close(takers),
        _ => thread::spawn(move || close(takers)).join().unwrap(),
    }
    assert_eq!(whole(&regions[0]), 0);
    drop((peers, regions));
    polling.into_iter().for_each(Polling::end);
    drop(pollers);
    world.end();
}

/// Receives that end in any order, at two pollers.
///
/// Shows: COMPLETE-1, COMPLETE-2, POST-2.
#[test]
fn receives_are_shared() {
    explore("receives_are_shared", 1500, scenario);
}
