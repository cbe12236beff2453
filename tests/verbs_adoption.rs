//! Adoption of MRs that plain rdma-sys calls made, on a real device. `cargo xtask vm test` runs it on
//! soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;

use std::ptr;
use std::sync::Arc;

use fabric::{Device, Fabric, finish};
use rdma_mr::backend::verbs::sys::{ibv_dereg_mr, ibv_mr, ibv_reg_mr};
use rdma_mr::backend::verbs::{ProtectionDomain, leaked, lent_mr, owned_mr};
use rdma_mr::op::Begin;
use rdma_mr::registration::Adoption;
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{
    Access, Error, Leaks, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions, RemoteMr,
    leaks,
};

const LENGTH: usize = 4096;

/// Memory and the protection domain that it is registered in.
type Keepalive = (Vec<u8>, Arc<ProtectionDomain>);

fn register(fabric: &Device, byte: u8, access: Access) -> (*mut ibv_mr, Keepalive) {
    let mut memory = vec![byte; LENGTH];
    let (pd, rights) = (fabric.pd(), access.bits() as i32);
    // SAFETY: the protection domain is alive; the memory goes to the keepalive.
    let mr = unsafe { ibv_reg_mr(pd.as_raw(), memory.as_mut_ptr().cast(), LENGTH, rights) };
    assert!(!mr.is_null());
    (mr, (memory, pd.clone()))
}

fn adopt(adoption: Adoption, keepalive: Keepalive, access: Access) -> LocalMr {
    // SAFETY: REMOTE-1, REMOTE-2: looked at only when the operations on it are over.
    let options = unsafe { MrOptions::new().grant_remote_write() };
    // SAFETY: ADOPT-1, ADOPT-2, ADOPT-3: made by `register`, with these rights, for this.
    unsafe { options.access(access).adopt(adoption, keepalive) }.unwrap()
}

/// A region that deregisters an MR which others made.
fn owned(fabric: &Device, byte: u8, access: Access) -> LocalMr {
    let (mr, keepalive) = register(fabric, byte, access);
    // SAFETY: VMR-1, VMR-2: it is nobody else's.
    let adoption = unsafe { owned_mr(mr) }.unwrap();
    // SAFETY: VMR-1: it is alive.
    let seen = unsafe { &*mr };
    assert_eq!((adoption.addr, adoption.length), (seen.addr.cast(), LENGTH));
    let keys = (adoption.registered.lkey, adoption.registered.rkey);
    assert_eq!(keys, (seen.lkey, seen.rkey));
    adopt(adoption, keepalive, access)
}

fn assert_nothing_left(fabric: Device) {
    assert_eq!((leaks(), leaked()), (Leaks::default(), 0));
    assert_eq!(fabric.registered(), 0);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r9_operations_go_through_an_adopted_region() {
    let fabric = Device::open();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let from = owned(&fabric, 7, Access::LOCAL_WRITE);
    let mut to = owned(&fabric, 0, Access::all());
    b.recv(to.begin_write().unwrap()).unwrap();
    a.send(from.begin_read().unwrap(), None).unwrap();
    assert!(to.try_as_slice().is_none() && from.try_as_slice().is_some());
    assert_eq!(finish(&mut b, 1)[0].status, WcStatus::Success);
    assert_eq!(finish(&mut a, 1)[0].status, WcStatus::Success);
    assert_eq!(*to.as_slice(), [7; LENGTH]);

    to.as_mut_slice().fill(1);
    let token = to.token_with_timeout(fabric::LONG).unwrap();
    let mut remote = RemoteMr::new(token).unwrap();
    let part = from.get(..8).unwrap().begin_read().unwrap();
    a.write(part, remote.get_mut(8..16).unwrap(), None).unwrap();
    assert_eq!(finish(&mut a, 1)[0].status, WcStatus::Success);
    assert_eq!(to.as_slice()[..24], [[1; 8], [7; 8], [1; 8]].concat());

    // Ended here: the memory comes back, and the key is dead.
    let memory = to.close().unwrap().into_keepalive::<Keepalive>().unwrap().0;
    assert_eq!(memory[8..16], [7; 8]);
    a.write(from.begin_read().unwrap(), &mut remote, None)
        .unwrap();
    assert_eq!(finish(&mut a, 1)[0].status, WcStatus::RemAccessErr);
    drop((a, b, from));
    assert_nothing_left(fabric);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r14_dropped_in_flight_it_ends_with_the_operation() {
    let fabric = Device::open();
    let (mut a, mut b) = fabric.pair(QpCaps::default());
    let from = owned(&fabric, 7, Access::LOCAL_WRITE);
    let to = owned(&fabric, 0, Access::LOCAL_WRITE);
    assert_eq!(fabric.registered(), 2);
    b.recv(to.begin_write().unwrap()).unwrap();
    drop(to);
    assert_eq!(fabric.registered(), 2, "the NIC has it still");
    a.send(from.begin_read().unwrap(), None).unwrap();
    assert_eq!(finish(&mut b, 1)[0].status, WcStatus::Success);
    assert_eq!(fabric.registered(), 1);
    finish(&mut a, 1);
    drop((a, b, from));
    assert_nothing_left(fabric);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r14_a_lent_mr_is_its_owners_to_deregister() {
    let fabric = Device::open();
    let (raw, keepalive) = register(&fabric, 7, Access::LOCAL_WRITE);
    // SAFETY: VMR-1: it is alive; LENT-1: it is deregistered below, when the keepalive is back.
    let adoption = unsafe { lent_mr(raw) }.unwrap();
    let mr = adopt(adoption, keepalive, Access::LOCAL_WRITE);
    assert_eq!(*mr.as_slice(), [7; LENGTH]);
    let keepalive = mr.close().unwrap().into_keepalive::<Keepalive>().unwrap();
    // SAFETY: it has not been deregistered.
    assert_eq!(unsafe { ibv_dereg_mr(raw) }, 0);
    drop(keepalive);
    assert_nothing_left(fabric);
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r19_null_is_refused() {
    // SAFETY: VMR-1: it is null.
    let refused = unsafe { [owned_mr(ptr::null_mut()), lent_mr(ptr::null_mut())] };
    for refused in refused {
        assert!(matches!(refused, Err(Error::Provider { .. })));
    }
}
