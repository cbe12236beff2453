//! More threads that read a biased region than there are lines of slots. By itself: a thread that comes while
//! they are all owned does without for good.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::sync::Barrier;
use std::thread;

use rdma_mr::gate::ReadBias;
use rdma_mr::op::Begin;
use rdma_mr::{LocalMrReadAccess, MrOptions};
use util::*;

const LINES: usize = 256;

#[test]
fn more_threads_than_lines_read_all_the_same() {
    let options = MrOptions::new().read_bias(ReadBias::default());
    let mr = options.alloc(&Pair::stepped().pd, 64).unwrap();
    let (all, end) = (Barrier::new(LINES + 9), Barrier::new(LINES + 9));
    thread::scope(|scope| {
        for _ in 0..LINES + 8 {
            scope.spawn(|| {
                let _guard = mr.as_slice();
                all.wait();
                end.wait();
            });
        }
        all.wait();
        assert_eq!(mr.state().cpu_readers, LINES as u64 + 8);
        assert!(mr.try_begin_write().is_err());
        end.wait();
    });
    assert!(mr.state().is_free() && mr.try_begin_write().is_ok());
    // Lines are owned no longer than their threads live.
    let guard = thread::scope(|scope| scope.spawn(|| mr.as_slice()).join().unwrap());
    assert!(mr.state().cpu_readers == 1);
    drop(guard);
}
