//! Operations of this side on shared memory: what their holds keep, and whom they don't exclude.

use std::time::Instant;

use rdma_mr::op::{Begin, Gather, Hold};
use rdma_mr::registration::{Mapping, StableMemory};
use rdma_mr::work::QpCaps;
use rdma_mr::{Error, LocalMrReadAccess, SharedMrAccess};

use super::*;
use crate::fabric::remote;

pub fn r3_holds_exclude_nobody<F: Fabric>(fabric: &F) {
    let mr = shared(fabric, 64);
    let past = Instant::now();
    let holds: Vec<Hold> = vec![
        mr.try_begin_write().unwrap(),
        mr.try_begin_write().unwrap(),
        mr.try_begin_read().unwrap(),
        mr.begin_write().unwrap(),
        mr.begin_read().unwrap(),
        mr.begin_write_until(past).unwrap(),
        mr.begin_write_with(|| panic!("it waited")).unwrap(),
        mr.get(8..16).unwrap().begin_write().unwrap(),
        futures_lite::future::block_on(mr.begin_write_async()).unwrap(),
    ];
    let state = mr.state();
    assert_eq!((state.nic_reads, state.writer), (holds.len() as u64, None));
    // Nor the CPU.
    mr.store(8, 3u64).unwrap();
    assert_eq!(mr.load::<u64>(8).unwrap(), 3);
    mr.write_record(16, b"whole").unwrap();
    mr.shutdown();
    assert!(matches!(mr.begin_write(), Err(Error::Closed)));
    assert!(matches!(mr.try_begin_read(), Err(Error::Closed)));
    mr.store(8, 4u64).unwrap();
    drop(holds);
    assert!(mr.state().is_free());
}

pub fn r3_the_local_side_of_every_operation<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (here, there) = (shared(fabric, 128), shared(fabric, 128));
    let slot = |n: usize| here.get(8 * n..8 * n + 8).unwrap();
    let far = |n: usize| remote(&there.get(8 * n..8 * n + 8).unwrap());
    for n in 0..4 {
        here.store(8 * n, 10 + n as u64).unwrap();
        there.store(8 * n, 20 + n as u64).unwrap();
    }
    let inbox = there.get(64..72).unwrap();
    // All at once, on regions that are held several times over.
    b.recv(inbox.begin_write().unwrap()).unwrap();
    a.send(slot(0).begin_read().unwrap(), None).unwrap();
    a.write(slot(1).begin_read().unwrap(), far(1), None)
        .unwrap();
    a.read(slot(2).begin_write().unwrap(), far(2)).unwrap();
    a.fetch_add(slot(3).begin_write().unwrap(), far(3), 5)
        .unwrap();
    a.compare_swap(slot(4).begin_write().unwrap(), far(3), 28, 99)
        .unwrap();
    assert!(here.state().nic_reads >= 1 && here.state().writer.is_none());
    succeed(&mut a, 5);
    succeed(&mut b, 1);
    let load = |mr: &SharedMr, n: usize| mr.load::<u64>(8 * n).unwrap();
    assert_eq!(load(&there, 8), 10, "SEND, RECV");
    assert_eq!(load(&there, 1), 11, "WRITE");
    assert_eq!(load(&here, 2), 22, "READ");
    assert_eq!((load(&here, 3), load(&here, 4)), (23, 28), "atomics");
    assert_eq!(load(&there, 3), 99);
    assert!(here.state().is_free() && there.state().is_free());
    // The kinds are told apart all the same.
    let wrong = a.send(here.begin_write().unwrap(), None).unwrap_err();
    assert!(matches!(wrong.error, Error::InvalidWorkRequest { .. }));
    let wrong = a.read(here.begin_read().unwrap(), far(0)).unwrap_err();
    assert!(matches!(wrong.error, Error::InvalidWorkRequest { .. }));
}

pub fn r3_beside_other_regions_in_one_list<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (here, local) = (shared(fabric, 8), fabric.alloc(8));
    let there = shared(fabric, 16);
    there.write_from(0, b"01234567abcdefgh").unwrap();
    let other = here.begin_write().unwrap();
    let holds = Gather::new([&here, &local]).begin_write().unwrap();
    assert_eq!(here.state().nic_reads, 2);
    assert!(local.try_as_slice().is_none());
    a.read(holds, remote(&there)).unwrap();
    succeed(&mut a, 1);
    drop(other);
    assert!(here.state().is_free() && local.state().is_free());
    assert_eq!(
        (&bytes(&here, 8)[..], &*local.as_slice()),
        (&b"01234567"[..], &b"abcdefgh"[..])
    );
}

pub fn r9_operations_outlive_the_handle<F: Fabric>(fabric: &F) {
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let (from, to) = (fabric.region(&[1; 8]), shared(fabric, 8));
    b.recv(to.begin_write().unwrap()).unwrap();
    drop(to);
    assert_eq!(fabric.registered(), 2, "kept by the receive");
    a.send(from.begin_read().unwrap(), None).unwrap();
    succeed(&mut a, 1);
    succeed(&mut b, 1);
    assert_eq!(fabric.registered(), 1, "and freed by its completion");
}

pub fn r14_closed_only_when_nothing_is_in_flight<F: Fabric>(fabric: &F) {
    let mr = shared(fabric, 8);
    mr.store(0, 5u64).unwrap();
    let hold = mr.begin_write().unwrap();
    let (mr, error) = mr.close().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(hold);
    let memory = mr.close().map_err(|(_, error)| error).unwrap();
    assert_eq!((memory.length(), fabric.registered()), (8, 0));
    let mut mapping: Mapping = memory.downcast().unwrap();
    // SAFETY: nothing but this test reaches the mapping any more.
    let value = unsafe { mapping.as_mut_ptr().cast::<u64>().read() };
    assert_eq!(value, 5);
}

pub fn r14_a_closed_region_is_out_of_reach<F: Fabric>(fabric: &F) {
    let (mut a, _b) = fabric.pair(QpCaps::default());
    let (from, mr) = (fabric.region(&[1; 8]), shared(fabric, 8));
    let target = remote(&mr);
    let kept = mr.close().map_err(|(_, error)| error).unwrap();
    a.write(from.begin_read().unwrap(), target, None).unwrap();
    let done = finish(&mut a, 1);
    assert_eq!(done[0].status, WcStatus::RemAccessErr);
    let mut mapping: Mapping = kept.downcast().unwrap();
    // SAFETY: as above.
    let value = unsafe { mapping.as_mut_ptr().cast::<u64>().read() };
    assert_eq!(value, 0);
}
