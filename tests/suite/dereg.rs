//! Registrations that are to go while an operation is in flight (R9, R11, R14).

use std::io::ErrorKind;
use std::ptr::NonNull;
use std::sync::mpsc::{Sender, channel};

use rdma_mr::registration::{Mapping, Pages, Registrar, StableMemory};
use rdma_mr::work::{QpCaps, QueuePair, RecvWr, SendWr, Sge};
use rdma_mr::{Access, LocalMr};

use super::*;
use crate::fabric::{completions, finish};

/// Memory that tells what was in it when it is freed.
struct Will(Vec<u8>, Sender<Vec<u8>>);

// SAFETY: MEM-1 to MEM-4 as for the Vec.
unsafe impl StableMemory for Will {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        StableMemory::as_mut_ptr(&mut self.0)
    }

    fn length(&self) -> usize {
        self.0.length()
    }
}

impl Drop for Will {
    fn drop(&mut self) {
        let _ = self.1.send(self.0.clone());
    }
}

pub fn r9_a_dropped_handle_keeps_the_memory_under_its_receive<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (will, heir) = channel();
    let to = LocalMr::register(fabric.pd(), Will(vec![0; 8], will)).unwrap();
    b.recv(to.begin_write().unwrap()).unwrap();
    drop(to);
    assert_eq!(fabric.registered(), 1);
    assert!(heir.try_recv().is_err(), "neither deregistered nor freed");
    let from = fabric.region(b"to you!!");
    a.send(from.begin_read().unwrap(), None).unwrap();
    drop(from);
    assert_eq!(fabric.registered(), 2);
    assert_eq!(finish(&mut a, 1)[0].status, WcStatus::Success);
    assert_eq!(fabric.registered(), 1, "its completion was polled");
    assert!(heir.try_recv().is_err());
    // It gets there, and the completion frees it.
    assert_eq!(finish(&mut b, 1)[0].status, WcStatus::Success);
    assert_eq!(heir.try_recv().unwrap(), b"to you!!");
    assert_eq!(fabric.registered(), 0);
}

pub fn r14_a_held_region_is_not_closed<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (fabric.region(&[7; 8]), fabric.alloc(8));
    b.recv(to.begin_write().unwrap()).unwrap();
    let (to, error) = to.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_written([&to]);
    a.send(from.begin_read().unwrap(), None).unwrap();
    assert_eq!(finish(&mut b, 1)[0].status, WcStatus::Success);
    assert_eq!(*to.try_as_slice().unwrap(), [7; 8]);
    to.close().map_err(|(_, error)| error).unwrap();
    assert_eq!(fabric.registered(), 1);
}

/// Below the regions, where nobody minds the order: what the provider makes of it.
pub fn r11_deregistered_under_a_receive<F: Fabric>(fabric: &F) {
    let (a_cq, b_cq) = (fabric.cq(16), fabric.cq(16));
    let (a, b) = fabric.queue_pairs(&a_cq, &b_cq, QpCaps::default());
    let mut memory = Mapping::new(4096, Pages::Default).unwrap();
    let start = NonNull::new(memory.as_mut_ptr()).unwrap();
    // SAFETY: REG-4: `memory` lives to the end of this function, past the deregistration.
    let registered = unsafe { fabric.pd().register(start, 4096, Access::LOCAL_WRITE) };
    let mut registered = registered.unwrap();
    let sge = [Sge {
        addr: start.as_ptr() as u64,
        length: 8,
        lkey: registered.lkey,
    }];
    for wr_id in [1, 2] {
        // SAFETY: POST-2: allocated to the end, and nobody uses it meanwhile; POST-3: no endpoint.
        unsafe { b.post_recv(&RecvWr { wr_id, sge: &sge }) }.unwrap();
    }
    registered.handle.deregister().unwrap();
    let from = fabric.region(&[7; 8]);
    let hold = from.begin_read().unwrap();
    let wr = SendWr {
        wr_id: 3,
        sge: &[hold.sge()],
        op: SEND,
        flags: SIGNALED,
    };
    // SAFETY: POST-1: the hold is kept until the completion; POST-3 as above.
    unsafe { a.post_send(&wr) }.unwrap();
    let sent = completions(&a_cq, 1)[0];
    assert_eq!((sent.wr_id, sent.status), (3, WcStatus::RemOpErr));
    drop(hold);
    // So the end of the queue pair is what comes next.
    let got = completions(&b_cq, 2);
    let got: Vec<_> = got.iter().map(|wc| (wc.wr_id, wc.status)).collect();
    let expected = [(1, F::RECEIVE_WITHOUT_MEMORY), (2, WcStatus::WrFlushErr)];
    assert_eq!(got, expected);
    drop((a, b));
    // SAFETY: it is allocated and initialised, and nobody writes it.
    let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), 8) };
    assert_eq!(bytes, [0; 8], "DEREG-1");
}
