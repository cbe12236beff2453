//! Peers that write for as long as they are let, whatever this side does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use futures_lite::future::block_on;
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, QueuePair, RemoteAddr, WcStatus};
use rdma_mr::{Lease, Lend, LocalMr, LocalMrReadAccess, MrToken, Result};

use crate::fabric::{Fabric, LONG};
use crate::suite::{HOUR, WRITE};

const LENGTH: usize = 4096;
/// Posted and not over, at a time.
const DEPTH: usize = 4;

/// Posts one WRITE after the other, `DEPTH` at a time, until one fails; how that one ended. Counts those
/// that succeeded.
fn write_on<Q: QueuePair>(
    end: &mut Endpoint<Q>,
    sources: &[LocalMr; 2],
    token: MrToken,
    written: &AtomicUsize,
) -> WcStatus {
    let to = RemoteAddr {
        addr: token.addr(),
        rkey: token.rkey(),
    };
    let (mut next, mut failed) = (0, None);
    let start = Instant::now();
    while failed.is_none() {
        while end.outstanding().0 < DEPTH {
            let from = sources[next % 2].begin_read().unwrap();
            end.write(from, to, None).unwrap();
            next += 1;
        }
        let polled = end.poll(|done| {
            if done.status.is_success() {
                written.fetch_add(1, Ordering::Relaxed);
            } else {
                failed = failed.or(Some(done.status));
            }
        });
        polled.unwrap();
        assert!(start.elapsed() < LONG, "it is never refused");
    }
    failed.unwrap()
}

/// Rounds in which a peer writes until it is refused, which it is once `revoke` has returned; from then on
/// no byte changes.
fn rounds<F: Fabric>(fabric: &F, count: usize, revoke: impl Fn(&Lease) -> Result<()> + Sync) {
    let mut guarded = fabric.region(&[9; 3 * LENGTH]);
    let behind = guarded.split_off(2 * LENGTH).unwrap();
    let mr = guarded.split_off(LENGTH).unwrap();
    let sources = [fabric.region(&[1; LENGTH]), fabric.region(&[2; LENGTH])];
    let caps = QpCaps {
        max_send_wr: DEPTH as u32,
        ..QpCaps::default()
    };
    for round in 0..count {
        let lease = mr.lease(.., WRITE, HOUR).unwrap();
        let (mut a, _b) = fabric.pair(caps);
        let (written, token) = (AtomicUsize::new(0), lease.token());
        let (written, sources) = (&written, &sources);
        thread::scope(|scope| {
            let peer = scope.spawn(move || write_on(&mut a, sources, token, written));
            // In the midst of it: some rounds as soon as it has begun, others later.
            while written.load(Ordering::Relaxed) < round % 16 && !peer.is_finished() {
                thread::yield_now();
            }
            assert!(!peer.is_finished(), "refused before it was revoked");
            revoke(&lease).unwrap();
            let bytes = mr.try_as_slice().expect("free").to_vec();
            assert_eq!(peer.join().unwrap(), WcStatus::RemAccessErr);
            assert!(
                *mr.as_slice() == *bytes,
                "round {round}: written after that"
            );
        });
    }
    let seen = mr.as_slice();
    assert!(
        seen.iter().any(|byte| *byte != 9),
        "nothing was ever written"
    );
    for other in [&guarded, &behind] {
        assert_eq!(*other.as_slice(), [9; LENGTH], "beside the lease");
    }
}

pub fn r05_a_peer_that_never_stops_is_refused_once_it_is_revoked<F: Fabric>(fabric: &F) {
    rounds(fabric, 1000, Lease::revoke);
}

pub fn r05_the_same_as_futures<F: Fabric>(fabric: &F) {
    rounds(fabric, 50, |lease| block_on(lease.revoke_async()));
}
