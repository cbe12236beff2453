//! What things say of themselves in logs, and the calls that nothing else makes: everything public can be printed at any
//! moment, and that neither waits nor asks the NIC.
#![cfg(all(feature = "soft", not(loom)))]

mod util;

use std::error::Error as _;
use std::fmt::Debug;
use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdma_mr::backend::soft::{CompletionQueue, Nic};
use rdma_mr::gate::{Gate, Holder};
use rdma_mr::lease::Lend;
use rdma_mr::op::{
    AsyncQueuePair, Begin, Dispatch, Endpoint, Gather, Poller, SharedRecv, recv_slots, send_ring,
};
use rdma_mr::registration::{Mapping, StableMemory};
use rdma_mr::work::{
    BadWr, CompletionEvents as _, CompletionQueue as _, QpCaps, QueuePair as _, SendFlags,
    WorkCompletion,
};
use rdma_mr::{
    Access, Error, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions,
    PoolOptions, RemoteMr, SharedMrAccess,
};
use util::Pair;

/// Says its name, and each of these.
#[track_caller]
fn says(it: &dyn Debug, parts: &[&str]) {
    let text = format!("{it:?}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// How a region's gate is named.
fn gate_of(mr: &LocalMr) -> String {
    let text = format!("{mr:?}");
    let rest = text.split("gate: ").nth(1).expect("its gate");
    format!("gate {}", rest.split(',').next().unwrap())
}

#[test]
fn regions_say_where_they_are_and_who_has_them() {
    let pd = Nic::new().alloc_pd();
    let mut mr = LocalMr::alloc(&pd, 64).unwrap();
    let key = format!("lkey: {:#x}", mr.lkey());
    says(&mr, &["LocalMr", "length: 64", &key, "free"]);
    says(&mr.get(..8).unwrap(), &["LocalMrSlice", "length: 8", &key]);
    says(
        &mr.get_mut(8..).unwrap(),
        &["LocalMrSliceMut", "length: 56"],
    );
    says(mr.get_inner(), &["InnerCell"]);
    says(&mr.as_slice(), &["MrReadGuard"]);
    // Held for a write, it is printed all the same.
    let hold = mr.begin_write().unwrap();
    says(&hold, &["Hold", "NicWrite"]);
    says(&mr, &["NIC"]);
    drop(hold);
    // What is being retired, and what was.
    let hold = mr.begin_read().unwrap();
    mr.rotate_keys().unwrap();
    says(
        &mr,
        &[
            "registrations: 2",
            "1 NIC read, operations under retired keys",
        ],
    );
    drop(hold);
    mr.retire().unwrap();
    says(&mr, &["registrations: 1", "free", "waits: 0"]);
    says(&mr.retire_async(), &["Retire"]);
    let memory = mr.close().map_err(|(_, error)| error).unwrap();
    says(&memory, &["64 bytes"]);
    assert!(memory.downcast::<Mapping>().is_ok());

    let shared = MrOptions::new().alloc_shared(&pd, 16).unwrap();
    says(&shared, &["SharedMr", "length: 16"]);
    says(&shared.get(8..).unwrap(), &["SharedMrSlice", "length: 8"]);
    assert_eq!(shared.lkey(), shared.get(8..).unwrap().lkey());

    let size = PoolOptions {
        slot_length: 32,
        slots_per_registration: 2,
        max_registrations: 1,
    };
    let pool = MrOptions::new().pool(&pd, size).unwrap();
    let mut slot = pool.take().unwrap();
    says(&slot, &["PooledMr", "length: 32", "slot: "]);
    slot.get_mut(..4).unwrap().as_mut_slice().fill(7);
    assert_eq!(slot.as_slice()[..5], [7, 7, 7, 7, 0]);
    assert!(slot.get_mut(..33).is_err());

    let lent = LocalMr::alloc(&pd, 8).unwrap();
    let hour = Duration::from_secs(3600);
    let lease = lent.lease(.., Access::REMOTE_READ, hour).unwrap();
    says(&lease, &["Lease"]);
    let mut remote = RemoteMr::new(lease.token()).unwrap();
    says(&remote, &["RemoteMr"]);
    says(&remote.get(..4).unwrap(), &["RemoteMrSlice"]);
    says(&remote.get_mut(4..).unwrap(), &["RemoteMrSliceMut"]);
}

#[test]
fn gates_say_who_is_in() {
    let gate = Gate::default();
    says(&gate, &["Gate", "free"]);
    let permit = gate.try_acquire(Holder::CpuRead).unwrap();
    says(&gate, &["Gate", "1"]);
    says(&gate.acquire_async(Holder::CpuWrite), &["Acquire"]);
    drop(permit);
}

#[test]
fn queues_say_what_is_outstanding() {
    let nic = Nic::builder().name("said").stepped().build();
    says(&nic, &["Nic", "said", "stepped: true"]);
    assert_eq!((nic.name(), Nic::default().is_stepped()), ("said", false));
    let Pair { mut a, b, pd, .. } = Pair::on(&nic, QpCaps::default());
    says(&*pd, &["ProtectionDomain"]);
    assert_eq!(pd.nic().name(), "said");
    says(a.qp(), &["QueuePair"]);
    says(a.qp().send_cq(), &["CompletionQueue"]);
    assert!(a.qp().send_cq().capacity() > 0);
    says(a.send_poller(), &["Poller", "unknown: 0"]);

    let mr = LocalMr::alloc(&pd, 8).unwrap();
    let gather = Gather::new([&mr]);
    says(&gather, &[", 8)"]);
    let read = gather
        .begin_read_with(|| unreachable!("nobody has it"))
        .unwrap();
    says(&read, &["Holds"]);
    drop(read);
    let write = gather
        .begin_write_with(|| unreachable!("nobody has it"))
        .unwrap();
    assert!(mr.try_as_slice().is_none());
    drop(write);
    says(&gather.begin_read_async(), &["GatherFuture"]);

    let id = a.recv(mr.begin_write().unwrap()).unwrap();
    says(&a, &["Endpoint", "sends: 0", "recvs: 1"]);
    // Which operations, and on what: joined with the region by its gate.
    let wr_id = format!(
        "recv {:#x}: [NIC write of 8 B at {:#x}",
        id.wr_id(),
        mr.addr()
    );
    let gate = gate_of(&mr);
    for it in [&a as &dyn Debug, a.recv_poller()] {
        says(it, &[&wr_id, &gate, "a NIC write in flight"]);
    }
    says(&a.drain(), &["Drain"]);
    says(&AsyncQueuePair::new(b), &["AsyncQueuePair"]);

    let srq = pd.create_srq(2, 1).unwrap();
    says(&srq, &["SharedRecvQueue"]);
    let mut receives = SharedRecv::new(srq);
    let poller = Poller::new(nic.create_cq(4).unwrap());
    receives.attach(&poller).unwrap();
    says(&receives, &["SharedRecv"]);
}

/// Memory that prints a poller as it is freed.
struct Printing {
    bytes: Vec<u8>,
    poller: Poller<CompletionQueue>,
    printed: Arc<Mutex<String>>,
}

// SAFETY: MEM-1 to MEM-4 as for `Vec<u8>`.
unsafe impl StableMemory for Printing {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        *self.printed.lock().unwrap() = format!("{:?}", self.poller);
    }
}

/// Also in the middle of a poll, whose table is in use then.
#[test]
fn a_poller_that_polls_says_that_it_is_busy() {
    let mut pair = Pair::stepped();
    let printed = Arc::default();
    let memory = Printing {
        bytes: vec![0; 8],
        poller: pair.b.recv_poller().clone(),
        printed: Arc::clone(&printed),
    };
    let into = LocalMr::register(&pair.pd, memory).unwrap();
    pair.start_message(&pair.alloc(8), &into);
    drop(into); // the completion frees it
    pair.finish(2);
    says(&*printed.lock().unwrap(), &["Poller", "busy"]);
}

#[test]
fn rings_say_what_is_in_them() {
    let pd = Nic::new().alloc_pd();
    let mr = LocalMr::alloc(&pd, 8).unwrap();
    let (mut poster, completer) = send_ring(2, 1);
    assert_eq!(poster.capacity(), 2);
    says(&poster, &["Poster"]);
    says(&completer, &["Completer", "outstanding: []"]);
    let prepared = poster.prepare(mr.begin_read().unwrap(), SendFlags::SIGNALED);
    let prepared = prepared.unwrap();
    says(&prepared, &["Prepared"]);
    assert_eq!(prepared.id().wr_id(), prepared.wr_id());
    let wr_id = format!("send {:#x}: [NIC read of 8 B", prepared.wr_id());
    says(&completer, &[&wr_id, &gate_of(&mr), "1 NIC read"]);
    drop(prepared);
    says(&completer, &["outstanding: []"]);
    let chain = poster.chain();
    assert!(chain.is_empty());
    says(&chain, &["Chain"]);
    drop(chain);
    let (slots, done) = recv_slots(2, 1);
    says(&slots, &["SlotPoster"]);
    says(&done, &["SlotCompleter"]);
    says(&Dispatch::default(), &["Dispatch"]);
}

#[test]
fn an_error_in_a_list_says_where_and_why() {
    let bad = BadWr {
        at: 3,
        error: Error::ZeroLength,
    };
    let text = bad.to_string();
    assert!(text.contains("work request 3"), "{text}");
    assert!(bad.source().is_some());
    assert!(matches!(Error::from(bad), Error::ZeroLength));

    let Pair { mut a, pd, .. } = Pair::small();
    let mrs = [(); 3].map(|()| LocalMr::alloc(&pd, 8).unwrap());
    let three = || a_list(&mrs);
    let partly = a.recv_list(three()).unwrap_err(); // the queue takes two
    says(&partly, &["PartlyPosted", "posted: 0"]);
    let text = partly.to_string();
    assert!(text.contains("work request 0"), "{text}");
    assert!(partly.source().is_some());
    assert!(matches!(Error::from(partly), Error::QueueFull { .. }));
    let io = std::io::Error::from(a.recv_list(three()).unwrap_err());
    assert!(io.get_ref().is_some_and(|inner| inner.is::<Error>()));

    let rejected = a.recv(mrs[0].begin_read().unwrap()).unwrap_err();
    says(&rejected, &["InvalidWorkRequest"]);
}

fn a_list(mrs: &[LocalMr; 3]) -> [rdma_mr::op::Hold; 3] {
    mrs.each_ref().map(|mr| mr.begin_write().unwrap())
}

/// Guards are streams: what was consumed is not read again.
#[test]
fn guards_read_on_where_they_were() {
    let pd = Nic::new().alloc_pd();
    let mut mr = LocalMr::alloc(&pd, 8).unwrap();
    let mut guard = mr.as_mut_slice();
    guard.write_all(b"ab\ncd\nef").unwrap();
    guard.flush().unwrap();
    drop(guard);
    let mut cursor = mr.as_mut_slice_cursor();
    cursor.write_all(b"A").unwrap();
    cursor.flush().unwrap();
    drop(cursor);
    let mut cursor = mr.as_slice_cursor();
    cursor.consume(2);
    assert_eq!(cursor.position(), 2);
    drop(cursor);
    let mut guard = mr.as_slice();
    let mut line = String::new();
    guard.read_line(&mut line).unwrap();
    guard.consume(1);
    guard.read_line(&mut line).unwrap();
    assert_eq!(line, "Ab\nd\n");
}

/// A completion queue in an `Arc` is the same queue.
#[test]
fn a_completion_queue_may_be_shared_by_an_arc() {
    let nic = Nic::builder().stepped().build();
    let cq = Arc::new(nic.create_cq_with_channel(4).unwrap());
    let pd = nic.alloc_pd();
    let qp = pd.create_qp(&cq, &cq, QpCaps::default()).unwrap();
    qp.connect(qp.qp_num()).unwrap();
    let mut endpoint = Endpoint::new(qp);
    let mr = LocalMr::alloc(&pd, 8).unwrap();
    assert!(cq.is_same_as(&Arc::clone(&cq)));
    assert!(cq.fd().is_some());
    Arc::<_>::req_notify(&cq, false).unwrap();
    let nowhere = rdma_mr::work::RemoteAddr::default();
    endpoint
        .write(mr.begin_read().unwrap(), nowhere, None)
        .unwrap();
    nic.run_until_idle();
    let poller = Poller::new(Arc::clone(&cq));
    assert!(poller.cq().wait_event(Some(Duration::ZERO)).unwrap());
    poller.cq().req_notify(true).unwrap();
    assert_eq!(poller.cq().take_events().unwrap(), 0);
    let mut done = [WorkCompletion::EMPTY];
    assert_eq!(poller.cq().poll(&mut done).unwrap(), 1);
    assert!(!done[0].status.is_success());
}

/// Of another queue no completion would ever come.
#[test]
fn a_queue_pair_is_not_attached_to_pollers_of_other_queues() {
    let nic = Nic::builder().stepped().build();
    let [cq, other] = [(); 2].map(|()| nic.create_cq(4).unwrap());
    let qp = nic.alloc_pd().create_qp(&cq, &cq, QpCaps::default());
    let rejected = Endpoint::attach(qp.unwrap(), &Poller::new(other)).unwrap_err();
    says(&rejected, &["InvalidWorkRequest"]);
    let qp = rejected.value;
    assert!(Endpoint::attach(qp, &Poller::new(cq)).is_ok());
}
