//! A device that is taken away with work outstanding (`rdma link delete`): everything ends in bounded
//! time, every hold is accounted for, and nothing of ours keeps the device. `cargo xtask vm test` runs
//! it, in a machine whose device is made for that; it puts the device back.
//!
//! rxe can't be taken from under its users: the kernel waits until they have closed it. Providers that
//! cut their users off answer every verb with `EIO` from then on; then what is outstanding is leaked and
//! counted, as for any queue pair that can't be destroyed.
#![cfg(feature = "verbs")]

mod fabric;
#[path = "faults/table.rs"]
mod table;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fabric::{Device, Fabric, LONG};
use rdma_mr::backend::verbs::leaked;
use rdma_mr::op::{Begin, Poller};
use rdma_mr::work::{QpCaps, SendFlags};
use rdma_mr::{LocalMrReadAccess, LocalMrWriteAccess, leaks};
use table::{Found, Row};

/// The tool of iproute2 that makes the virtual machine's device.
fn rdma(args: &str) -> Child {
    let command = Command::new("rdma").args(args.split(' ')).spawn();
    command.unwrap()
}

fn wait(mut child: Child) {
    let start = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return assert!(status.success()),
            None => assert!(start.elapsed() < LONG, "the device is still in use"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Who comes next needs it.
fn wait_for_its_address() {
    let start = Instant::now();
    let gid = || std::fs::read_to_string("/sys/class/infiniband/rxe0/ports/1/gids/1");
    while !gid().is_ok_and(|gid| gid.contains("ffff:")) {
        assert!(start.elapsed() < LONG, "{:?}", gid());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn r14_r16_a_device_that_is_taken_away_ends_in_bounded_time() {
    let device = Device::open();
    let poller = Poller::new(device.cq(64));
    let (mut a, mut b) = device.attached(&poller, QpCaps::default());
    let (from, to, mut quiet) = (device.alloc(64), device.alloc(64), device.alloc(64));
    // One message goes through, so that all was well.
    b.recv(to.begin_write().unwrap()).unwrap();
    a.send(from.begin_read().unwrap(), None).unwrap();
    drop(to.as_slice_with(|| poller.progress()));
    drop(quiet.as_mut_slice_with(|| poller.progress()));
    while a.outstanding() != (0, 0) {
        poller.progress();
    }
    // Two receives that nothing comes for, and a send that nobody takes.
    for mr in [&to, &quiet] {
        a.recv(mr.begin_write().unwrap()).unwrap();
    }
    a.post(
        from.begin_read().unwrap(),
        rdma_mr::work::SendOp::Send { imm: None },
        SendFlags::SIGNALED,
    )
    .unwrap();
    let before = (leaks(), leaked());

    let deletion = rdma("link delete rxe0");
    std::thread::sleep(Duration::from_millis(200));
    let mut found = Found::default();
    let start = Instant::now();
    let mut drain = a.drain();
    while !drain.advance(|done| found.tell_status(done.status)) {
        if start.elapsed() > Duration::from_secs(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let drained = drain.finish();
    println!("{drained:?} after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    (found.failed, found.untold) = (drained.completed, drained.released);
    found.time = start.elapsed();
    if drained.released > 0 {
        found.tell("`Drained::released`");
    }
    assert_eq!(drained.completed + drained.released + drained.leaked, 3);
    assert_eq!((leaks().holds - before.0.holds) as usize, drained.leaked);
    if let Some(error) = &drained.error {
        found.tell(format!("`{error}`"));
    }
    let mut row = Row::new(["device removed"].into_iter());
    row.add(found, (0, leaks().holds - before.0.holds));
    let held = [&from, &to, &quiet].map(|mr| !mr.state().is_free());
    let still = held.iter().filter(|held| **held).count();
    assert_eq!(still, drained.leaked, "{held:?}");
    // The provider says nothing that would let a byte be used again.
    if drained.leaked > 0 {
        assert!(drained.error.is_some());
        assert!(to.try_as_slice().is_none() && quiet.try_as_mut_slice().is_none());
    }

    // Nothing of the rest panics or hangs, and the device is let go.
    drop((b, poller, from, to, quiet, device));
    println!("{:?}, {} objects", leaks(), leaked());
    if drained.leaked == 0 {
        assert_eq!((leaks(), leaked()), before);
    }
    wait(deletion);
    wait(rdma("link add rxe0 type rxe netdev veth0"));
    wait_for_its_address();
    table::compare("gone", &[row]);
}
