//! What can't be shown to be over is leaked and counted (R11, R14). The counters are the process's, so
//! this is one test, and the only one in its process.
#![cfg(all(feature = "soft", not(loom)))]

mod fabric;

use std::time::Instant;

use fabric::{Fabric, LONG, Soft};
use rdma_mr::backend::soft::{Fault, When};
use rdma_mr::gate::Writer;
use rdma_mr::op::{Begin, Endpoint, Gather, OpId, Poller, SharedRecv, send_ring};
use rdma_mr::work::{QpCaps, SendFlags};
use rdma_mr::{Error, LocalMr, leaks};

/// What that leaks: holds.
fn leaked(what: impl FnOnce()) -> u64 {
    let before = leaks();
    what();
    let after = leaks();
    assert_eq!(after.registrations, before.registrations);
    after.holds - before.holds
}

type End = Endpoint<<Soft as Fabric>::Qp>;

/// An endpoint that can't be destroyed, with a send from one region, a receive into two, and another
/// receive, all of them outstanding.
fn busy(fabric: &Soft) -> (End, End, [LocalMr; 4]) {
    let (mut a, b) = fabric.pair(QpCaps::default());
    let mrs = [(); 4].map(|()| fabric.alloc(8));
    a.send(mrs[0].begin_read().unwrap(), None).unwrap();
    let into = Gather::new([&mrs[1], &mrs[2]]).begin_write().unwrap();
    a.recv(into).unwrap();
    a.recv(mrs[3].begin_write().unwrap()).unwrap();
    fabric.nic.inject(Fault::Destroy, When::Nth(1));
    (a, b, mrs)
}

fn assert_held(mrs: &[LocalMr; 4]) {
    assert_eq!(mrs[0].state().nic_reads, 1);
    for mr in &mrs[1..] {
        assert_eq!(mr.state().writer, Some(Writer::Nic));
    }
}

#[test]
fn r11_what_can_not_be_shown_to_be_over_is_leaked_and_counted() {
    let fabric = Soft::stepped();

    // Asked for, it comes back as it was; and is destroyed the next time.
    let (a, b, mrs) = busy(&fabric);
    let count = leaked(|| {
        let (a, error) = a.close().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
        assert_held(&mrs);
        assert_eq!(a.outstanding(), (1, 2));
        drop(a);
    });
    assert_eq!(count, 0);
    assert!(mrs.iter().all(|mr| mr.state().is_free()));
    drop((b, mrs));
    assert_eq!(fabric.registered(), 0);

    // Dropped: each region counts.
    let (a, _b, mrs) = busy(&fabric);
    assert_eq!(leaked(|| drop(a)), 4);
    assert_held(&mrs);
    drop(mrs);
    assert_eq!(fabric.registered(), 4, "never freed");

    // Drained: what was flushed is over, the rest is leaked.
    let (a, _b, mrs) = busy(&fabric);
    let count = leaked(|| {
        let drain = a.drain();
        assert!(fabric.nic.step(), "flushes");
        let drained = drain.finish();
        assert_eq!(
            (drained.completed, drained.released, drained.leaked),
            (0, 0, 3)
        );
        let error = drained.error.unwrap();
        assert!(matches!(error, Error::Provider { .. }), "{error:?}");
    });
    assert_eq!(count, 4);
    assert_held(&mrs);
    let (a, _b, mrs) = busy(&fabric);
    let count = leaked(|| {
        let drain = a.drain();
        fabric.nic.run_until_idle();
        let drained = drain.until(Instant::now() + LONG);
        assert_eq!(
            (drained.completed, drained.released, drained.leaked),
            (3, 0, 0)
        );
        assert!(drained.error.is_some());
    });
    assert_eq!(count, 0);
    assert!(mrs.iter().all(|mr| mr.state().is_free()));

    // A shared receive queue that goes before its queue pair.
    let poller = Poller::new(fabric.cq(16));
    let srq = fabric.srq(4, 1);
    let end = fabric.qp_on(poller.cq(), &srq, QpCaps::default());
    let end = Endpoint::attach(end, &poller).unwrap();
    let mut recvs = SharedRecv::new(srq);
    recvs.attach(&poller).unwrap();
    let to = [(); 2].map(|()| fabric.alloc(8));
    for mr in &to {
        recvs.recv(mr.begin_write().unwrap()).unwrap();
    }
    assert_eq!(leaked(|| drop(recvs)), 2);
    assert_eq!(leaked(|| drop(end)), 0);
    assert_eq!(to[0].state().writer, Some(Writer::Nic));

    // A ring whose two sides are dropped, and a list of which nobody knows what was posted.
    let mr = fabric.alloc(8);
    let count = leaked(|| {
        let (mut poster, completer) = send_ring(4, 1);
        let (quiet, loud) = (SendFlags::empty(), SendFlags::SIGNALED);
        let prepared = poster.prepare(mr.begin_read().unwrap(), loud).unwrap();
        prepared.commit();
        drop(poster.prepare(mr.begin_read().unwrap(), quiet).unwrap());
        let mut chain = poster.chain();
        for flags in [quiet, loud] {
            chain.push(mr.begin_read().unwrap(), flags).unwrap();
        }
        let nobodys = chain.commit_before(OpId::from_wr_id(1));
        assert!(matches!(nobodys, Err(Error::UnknownCompletion { .. })));
        assert_eq!(mr.state().nic_reads, 3);
        drop((poster, completer));
    });
    assert_eq!((count, mr.state().nic_reads), (3, 3));
}
