//! Tests that look at the NIC's inside: its thread ends, its memory is given back.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::nic::Core;
use super::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use crate::work::{QpCaps, QueuePair as _};

fn parts(nic: &Nic) -> (Arc<ProtectionDomain>, CompletionQueue, QueuePair) {
    let pd = nic.alloc_pd();
    let cq = nic.create_cq(4).unwrap();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    (pd, cq, qp)
}

fn is_gone(core: &Weak<Core>) -> bool {
    core.strong_count() == 0
}

#[test]
fn the_thread_ends_with_the_last_of_them() {
    for last in 0..4 {
        for sleep in [false, true] {
            let nic = Nic::new();
            let core = Arc::downgrade(&nic.alive.core);
            let (pd, cq, qp) = parts(&nic);
            if sleep {
                std::thread::sleep(Duration::from_millis(2));
            }
            let mut left: Vec<Box<dyn std::any::Any>> =
                vec![Box::new(nic), Box::new(pd), Box::new(cq), Box::new(qp)];
            let last = left.swap_remove(last);
            left.clear();
            assert!(!is_gone(&core));
            let start = Instant::now();
            drop(last);
            assert!(is_gone(&core), "the drop waits for the thread");
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }
}

#[test]
fn no_thread_without_a_queue_pair() {
    let nic = Nic::new();
    let _pd = nic.alloc_pd();
    assert_eq!(Arc::strong_count(&nic.alive.core), 1);
    let stepped = Nic::builder().stepped().build();
    let _parts = parts(&stepped);
    assert_eq!(Arc::strong_count(&stepped.alive.core), 1);
}

#[test]
fn the_inside_is_freed_with_completions_left_behind() {
    use crate::work::{SendFlags, SendOp, SendWr};
    let nic = Nic::builder().stepped().build();
    let core = Arc::downgrade(&nic.alive.core);
    let (pd, cq, qp) = parts(&nic);
    let inner = Arc::downgrade(cq.inner());
    let wr = SendWr {
        wr_id: 1,
        sge: &[],
        op: SendOp::Write {
            remote: Default::default(),
            imm: None,
        },
        flags: SendFlags::SIGNALED,
    };
    // SAFETY: POST-1: it names no bytes.
    unsafe { qp.post_send(&wr) }.unwrap();
    assert!(nic.step());
    drop((nic, pd, cq, qp));
    assert!(is_gone(&core));
    assert_eq!(inner.strong_count(), 0, "no circle");
}
