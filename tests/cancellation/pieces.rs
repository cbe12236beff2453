//! What an operation's future is made of, given up at every await point; and what becomes of futures
//! that are forgotten with their operation in flight.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use rdma_mr::gate::Writer;
use rdma_mr::op::{AsyncQueuePair, Begin, Endpoint, Gather, Poller};
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess};

use super::subject::{CUTS, Count, Cut, Subject};
use super::world::{Kind, World, held};
use crate::fabric::{Fabric, LONG};

/// Over three regions: dropped, it gives back what it has; forgotten, it keeps that, and no more.
pub fn r9_a_gather_given_up_after_each_region<F: Fabric>(fabric: &F) {
    for how in CUTS {
        for pendings in 0..=3 {
            for reads in [false, true] {
                gather(fabric, reads, pendings, how);
            }
        }
    }
}

fn gather<F: Fabric>(fabric: &F, reads: bool, pendings: usize, how: Cut) {
    let regions = [(); 3].map(|()| fabric.alloc(8));
    let mut in_the_way = regions.each_ref().map(|mr| Some(mr.begin_write().unwrap()));
    let list = Gather::new(regions.each_ref().map(|mr| mr as &dyn MrAccess));
    let mut subject = match reads {
        true => Subject::new(list.begin_read_async()),
        false => Subject::new(list.begin_write_async()),
    };
    let mine: (u64, u64, Option<Writer>) = match reads {
        true => (0, 1, None),
        false => (0, 0, Some(Writer::Nic)),
    };
    let mut entered: Vec<&LocalMr> = Vec::new();
    for n in 0..pendings {
        let (count, waker) = Count::new();
        assert!(subject.poll(&waker).is_pending());
        if n + 1 == pendings {
            break;
        }
        // The one whose end wakes it is next, whatever the order of their addresses. A list of waiters
        // may be shared: then the others' ends wake it as well, so the order is taken from the regions.
        let next = (0..3).find(|at| {
            regions[*at].state().waiting_shared || regions[*at].state().waiting_exclusive
        });
        let next = next.expect("it is marked at the one it waits for");
        in_the_way[next] = None;
        assert!(count.get() > 0);
        entered.push(&regions[next]);
    }
    subject.cut(how);
    drop(in_the_way);
    for mr in &regions {
        let kept = how == Cut::Forget && entered.iter().any(|entered| std::ptr::eq(*entered, mr));
        assert_eq!(held(mr), if kept { mine } else { (0, 0, None) });
        assert_eq!(mr.try_begin_write().is_ok(), !kept);
    }
}

/// Futures of holds and of guards: each waits once.
pub fn r9_holds_and_guards_given_up_at_every_await_point<F: Fabric>(fabric: &F) {
    macro_rules! each {
        ($($future:ident: $begin:ident;)*) => {$(
            for how in CUTS {
                for pendings in 0..=1 {
                    #[allow(unused_mut, reason = "some of them borrow mutably")]
                    let mut mr = fabric.alloc(8);
                    let in_the_way = mr.$begin().unwrap();
                    let before = held(&mr);
                    let mut subject = Subject::new(mr.$future());
                    for _ in 0..pendings {
                        assert!(subject.poll(Waker::noop()).is_pending());
                    }
                    subject.cut(how);
                    subject.assert_untouched();
                    drop(subject);
                    assert_eq!(held(&mr), before);
                    // A wish to write that is forgotten costs others a stand-back, at most.
                    if before.1 == 1 {
                        drop(mr.as_slice_until(Instant::now() + LONG).unwrap());
                        assert!(mr.try_as_slice().is_some());
                    }
                    drop(in_the_way);
                    assert!(mr.state().is_free() && mr.try_as_mut_slice().is_some());
                    drop(mr.try_begin_write().unwrap());
                    // It is not stuck for those to come.
                    let mut again = Subject::new(mr.$future());
                    assert!(again.poll(Waker::noop()).is_ready());
                }
            }
        )*};
    }
    each! {
        begin_read_async: begin_write;
        begin_write_async: begin_write;
        begin_write_async: begin_read;
        as_slice_async: begin_write;
        as_ptr_async: begin_write;
        as_mut_slice_async: begin_write;
        as_mut_slice_async: begin_read;
        as_mut_ptr_async: begin_write;
        as_mut_ptr_async: begin_read;
    }
}

/// Its ticket is in the queue when the queue pair goes back to being an endpoint, is used as one, or is
/// no more.
pub fn r9_a_forgotten_future_is_told_whatever_becomes_of_the_queue_pair<F: Fabric>(fabric: &F) {
    for end in [false, true] {
        let world = World::new(fabric);
        let mine = world.regions(Kind::Recv);
        let (count, waker) = Count::new();
        let mut subject = world.operation(Kind::Recv, &mine);
        assert!(subject.poll(&waker).is_pending());
        subject.cut(Cut::Forget);
        drop(subject);
        let World {
            a,
            poller,
            b,
            outbox,
            ..
        } = world;
        let mut a = Arc::into_inner(a).unwrap().into_endpoint();
        assert_eq!(
            (a.outstanding(), held(&mine[0]).2),
            ((0, 1), Some(Writer::Nic))
        );
        assert_eq!(count.get(), 0);
        if end {
            a.close().map_err(|(_, error)| error).unwrap();
        } else {
            let from = outbox.get(..8).unwrap().begin_read().unwrap();
            b.borrow_mut().send(from, None).unwrap();
            let start = Instant::now();
            while a.outstanding() != (0, 0) {
                fabric.act();
                a.poll(|_| ()).unwrap();
                assert!(start.elapsed() < LONG);
            }
            // The slot that had its ticket is used again, by nobody who waits.
            a.recv(mine[1].begin_write().unwrap()).unwrap();
            drop(a);
        }
        assert_eq!(count.get(), 1);
        assert!(mine.iter().all(|mr| mr.state().is_free()));
        assert_eq!(poller.unknown(), 0);
    }
}

/// Nothing of it is posted, and nobody would make room: an error, not a wait without end.
pub fn r19_a_receive_where_there_is_no_queue_for_it_is_refused<F: Fabric>(fabric: &F) {
    let poller = Poller::new(fabric.cq(16));
    let srq = fabric.srq(4, 1);
    let qp = fabric.qp_on(poller.cq(), &srq, QpCaps::default());
    let a = Endpoint::attach(qp, &poller).map_err(|rejected| rejected.error);
    let a = AsyncQueuePair::new(a.unwrap());
    let mr = fabric.alloc(8);
    let mut subject = Subject::new(a.recv(&mr));
    let Poll::Ready(refused) = subject.poll(Waker::noop()) else {
        panic!("it waits for room in a queue that has none");
    };
    assert!(
        matches!(&refused, Err(Error::InvalidWorkRequest { reason }) if reason.contains("shared")),
        "{refused:?}"
    );
    assert!(mr.state().is_free());
    drop(subject);
    drop(a);
}
