//! Queues that somebody else keeps: rings beside them, or the hold itself as the `wr_id` (R9, R11).

use rdma_mr::Error;
use rdma_mr::op::{Hold, recv_ring, send_ring};
use rdma_mr::work::{QpCaps, QueuePair, RecvWr, SendWr, WorkCompletion};

use super::*;
use crate::fabric::completions;

const COUNT: usize = 4;

pub fn r11_rings_beside_queues_of_ones_own<F: Fabric>(fabric: &F) {
    let (a_cq, b_cq) = (fabric.cq(64), fabric.cq(64));
    let (a, b) = fabric.queue_pairs(&a_cq, &b_cq, QpCaps::default());
    let (mut sends, mut sent) = send_ring(COUNT as u32, 1);
    let (mut recvs, mut received) = recv_ring(COUNT as u32, 1);
    let (from, to) = (words(fabric, COUNT), words(fabric, COUNT));
    let mut before = None;
    for _ in 0..10 {
        let mut ids = Vec::new();
        for (n, (from, to)) in from.iter().zip(&to).enumerate() {
            let flags = if n + 1 < COUNT { UNSIGNALED } else { SIGNALED };
            let prepared = recvs.prepare(to.begin_write().unwrap(), SIGNALED).unwrap();
            let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
            // SAFETY: POST-2: the ring has the hold; POST-3: there is no endpoint.
            unsafe { b.post_recv(&RecvWr { wr_id, sge }) }.unwrap();
            prepared.commit();
            let prepared = sends.prepare(from.begin_read().unwrap(), flags).unwrap();
            let wr = SendWr {
                wr_id: prepared.wr_id(),
                sge: prepared.sges(),
                op: SEND,
                flags,
            };
            // SAFETY: POST-1: the ring has the hold; POST-3 as above.
            unsafe { a.post_send(&wr) }.unwrap();
            ids.push(prepared.commit());
        }
        for (n, wc) in completions(&b_cq, COUNT).into_iter().enumerate() {
            assert_written(&to[n..]);
            // SAFETY: COMPLETE-1: polled just now, posted above.
            let over = unsafe { received.complete(wc.wr_id, wc.status) }.unwrap();
            assert_eq!(over.count(), 1);
            assert_free(&to[..=n]);
            // SAFETY: COMPLETE-1 does not hold: it is the ring that finds out, by releasing nothing.
            let again = unsafe { received.complete(wc.wr_id, wc.status) };
            assert!(matches!(again, Err(Error::UnknownCompletion { .. })));
            assert_written(&to[n + 1..]);
        }
        let wc = completions(&a_cq, 1)[0];
        let nobodys = [before.unwrap_or(1), wc.wr_id + 1, wc.wr_id ^ 1 << 50];
        for wr_id in nobodys {
            // SAFETY: as above: stale, not posted yet, of another queue.
            let over = unsafe { sent.complete(wr_id, wc.status) };
            assert!(matches!(over, Err(Error::UnknownCompletion { .. })));
        }
        assert_read(&from);
        // SAFETY: COMPLETE-1: polled just now, posted above.
        let over = unsafe { sent.complete(wc.wr_id, wc.status) }.unwrap();
        assert_free(&from);
        assert_succeeded(&over.each().collect::<Vec<_>>(), ids);
        before = Some(wc.wr_id);
    }
    assert_eq!(completed(&a_cq) + completed(&b_cq), 0);
}

/// How many more there are.
fn completed(cq: &impl rdma_mr::work::CompletionQueue) -> usize {
    cq.poll(&mut [WorkCompletion::EMPTY; 8]).unwrap()
}

pub fn r11_rings_released_by_destruction<F: Fabric>(fabric: &F) {
    let cq = fabric.cq(64);
    let (a, _b) = fabric.queue_pairs(&cq, &fabric.cq(16), QpCaps::default());
    let (mut recvs, received) = recv_ring(COUNT as u32, 1);
    let to = words(fabric, COUNT);
    for mr in &to {
        let prepared = recvs.prepare(mr.begin_write().unwrap(), SIGNALED).unwrap();
        let (wr_id, sge) = (prepared.wr_id(), prepared.sges());
        // SAFETY: POST-2: the ring has the hold; POST-3: there is no endpoint.
        unsafe { a.post_recv(&RecvWr { wr_id, sge }) }.unwrap();
        prepared.commit();
    }
    a.modify_to_error().unwrap();
    assert_written(&to);
    a.destroy().map_err(|(_, error)| error).unwrap();
    assert_written(&to); // the ring does not know yet
    // SAFETY: COMPLETE-2: destroyed just now; nothing is prepared.
    assert_eq!(unsafe { received.release_all() }, COUNT);
    assert_free(&to);
}

pub fn r9_the_hold_as_wr_id<F: Fabric>(fabric: &F) {
    let (a_cq, b_cq) = (fabric.cq(64), fabric.cq(64));
    let (a, b) = fabric.queue_pairs(&a_cq, &b_cq, QpCaps::default());
    let (from, to) = (words(fabric, COUNT), words(fabric, COUNT));
    for (from, to) in from.iter().zip(&to) {
        let hold = to.begin_write().unwrap();
        let sge = [hold.sge()];
        let wr_id = hold.into_wr_id();
        // SAFETY: POST-2: the hold is the number, until its completion; POST-3: there is no endpoint.
        unsafe { b.post_recv(&RecvWr { wr_id, sge: &sge }) }.unwrap();
        let hold = from.begin_read().unwrap();
        let sge = [hold.sge()];
        let wr = SendWr {
            wr_id: hold.into_wr_id(),
            sge: &sge,
            op: SEND,
            flags: SIGNALED,
        };
        // SAFETY: POST-1, POST-3 as above.
        unsafe { a.post_send(&wr) }.unwrap();
    }
    for (cq, mrs) in [(&b_cq, &to), (&a_cq, &from)] {
        for (n, wc) in completions(cq, COUNT).into_iter().enumerate() {
            assert_eq!(wc.status, WcStatus::Success);
            assert!(!mrs[n].state().is_free());
            // SAFETY: WRID-1 to WRID-3: made above, and polled just now for the first time.
            drop(unsafe { Hold::from_wr_id(wc.wr_id) });
            assert_free(&mrs[..=n]);
        }
        assert_free(mrs);
    }
}
