//! What a subscriber is told: of a scenario with all that is rare in it, by the names that the crate's
//! documentation has.
#![cfg(all(feature = "soft", feature = "tracing", not(any(loom, shuttle))))]

mod util;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use rdma_mr::backend::soft::{Fault, When};
use rdma_mr::lease::reap;
use rdma_mr::op::Begin;
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, Lend, LocalMr, LocalMrReadAccess, MrAccess};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use util::*;

/// An event or a span.
#[derive(Clone, Debug)]
struct Told {
    target: String,
    level: Level,
    name: String,
    fields: BTreeMap<String, String>,
}

impl Told {
    fn new(about: &Metadata<'_>, record: impl FnOnce(&mut Fields)) -> Self {
        let mut fields = Fields::default();
        record(&mut fields);
        let message = fields.0.remove("message");
        Told {
            target: about.target().into(),
            level: *about.level(),
            name: message.unwrap_or_else(|| about.name().into()),
            fields: fields.0,
        }
    }

    fn field(&self, name: &str) -> &str {
        &self.fields[name]
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

/// Collects what is told on one thread.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

thread_local! {
    /// Whose turn it is on this thread.
    static COLLECTS: RefCell<Option<Collector>> = const { RefCell::new(None) };
}

/// Hands on what is told to the thread's collector. One for the whole process: of a subscriber that only a thread
/// has, `tracing` may never ask it about an event that a thread without one comes to first.
struct ByThread;

impl ByThread {
    fn tell(told: impl FnOnce() -> Told) {
        COLLECTS.with_borrow(|collector| {
            if let Some(collector) = collector {
                collector.0.lock().unwrap().push(told());
            }
        });
    }
}

impl Subscriber for ByThread {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.target().starts_with("rdma_mr")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::tell(|| Told::new(span.metadata(), |fields| span.record(fields)));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        Self::tell(|| Told::new(event.metadata(), |fields| event.record(fields)));
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Collector {
    /// Before anything is done that tells.
    fn new() -> Self {
        static SUBSCRIBED: Once = Once::new();
        SUBSCRIBED.call_once(|| tracing::subscriber::set_global_default(ByThread).unwrap());
        Self::default()
    }

    /// What `what` told.
    fn during<R>(&self, what: impl FnOnce() -> R) -> (R, Vec<Told>) {
        let before = self.0.lock().unwrap().len();
        COLLECTS.set(Some(self.clone()));
        let result = what();
        COLLECTS.set(None);
        let all = self.0.lock().unwrap()[before..].to_vec();
        all.iter().for_each(assert_documented);
        (result, all)
    }
}

fn names(all: &[Told]) -> Vec<&str> {
    all.iter().map(|told| told.name.as_str()).collect()
}

fn one<'a>(all: &'a [Told], name: &str) -> &'a Told {
    let mut found = all.iter().filter(|told| told.name == name);
    let first = found.next().unwrap_or_else(|| panic!("{name} in {all:?}"));
    assert!(found.next().is_none(), "{name} twice in {all:?}");
    first
}

/// The table in the crate's documentation has it, with its target, its level and just these fields.
fn assert_documented(told: &Told) {
    let level = told.level.to_string().to_lowercase();
    let start = format!("//! | `{}` | {level} | ", told.target);
    let row = include_str!("../src/lib.rs").lines().find(|line| {
        let rest = line.strip_prefix(&start);
        rest.is_some_and(|rest| rest.contains(&format!("`{}` |", told.name)))
    });
    let row = row.unwrap_or_else(|| panic!("not in the table: {told:?}"));
    let fields = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    let mut fields: Vec<&str> = fields
        .split(", ")
        .map(|field| field.trim_matches('`'))
        .collect();
    fields.sort_unstable();
    assert_eq!(told.fields.keys().collect::<Vec<_>>(), fields, "{told:?}");
}

fn hex(number: impl fmt::LowerHex) -> String {
    format!("{number:#x}")
}

#[test]
fn a_region_tells_of_its_beginning_its_keys_and_its_end() {
    let collector = Collector::new();
    let net = Pair::stepped();
    let (mr, told) = collector.during(|| net.alloc(100));
    assert_eq!(names(&told), ["registered", "region"]);
    let registered = one(&told, "registered");
    assert_eq!(registered.target, "rdma_mr::registration");
    assert_eq!(registered.field("addr"), hex(mr.addr()));
    assert_eq!(registered.field("length"), "100");
    assert_eq!(registered.field("lkey"), hex(mr.lkey()));
    let gate = one(&told, "region").field("gate").to_owned();
    assert!(format!("{mr:?}").contains(&gate), "{mr:?}");

    let ((), told) = collector.during(|| mr.rotate_keys().unwrap());
    assert_eq!(names(&told), ["keys rotated", "deregistered"]);
    assert_eq!(told[0].field("rkey"), hex(mr.rkey()));
    let ((), told) = collector.during(|| mr.shutdown());
    assert_eq!(one(&told, "closed to operations").field("gate"), gate);

    net.nic.inject(Fault::Deregister, When::Nth(1));
    let (mr, told) = collector.during(|| mr.close().unwrap_err().0);
    assert_eq!(names(&told), ["deregistration refused"]);
    assert_eq!(told[0].level, Level::WARN);
    let ((), told) = collector.during(|| drop(mr));
    assert_eq!(names(&told), ["deregistered"]);

    let mr = net.alloc(100);
    let length = mr.length();
    net.nic.inject(Fault::Deregister, When::Nth(1));
    let ((), told) = collector.during(|| drop(mr));
    assert_eq!(
        names(&told),
        ["deregistration refused", "registration leaked"]
    );
    assert_eq!(told[1].field("length"), length.to_string());

    net.nic.inject(Fault::Register, When::Nth(1));
    let (refused, told) = collector.during(|| LocalMr::alloc(&net.pd, 64));
    assert!(refused.is_err());
    assert_eq!(names(&told), ["registration refused"]);
}

#[test]
fn a_wait_is_a_span_and_what_gets_in_at_once_tells_nothing() {
    let collector = Collector::new();
    let net = Pair::stepped();
    let mr = net.alloc(64);
    let ((), told) = collector.during(|| {
        drop((mr.as_slice(), mr.try_as_slice()));
        let hold = mr.begin_write().unwrap();
        assert!(mr.try_as_slice().is_none());
        drop(hold);
    });
    assert!(told.is_empty(), "{told:?}");

    let hold = mr.begin_write().unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    let (_, told) = collector.during(|| mr.as_slice_until(deadline).is_err());
    let wait = one(&told, "wait");
    assert_eq!(wait.target, "rdma_mr::gate");
    assert_eq!(wait.field("wants"), "CpuRead");
    assert_eq!(wait.field("held_by"), "a NIC write in flight");
    assert!(format!("{mr:?}").contains(wait.field("gate")));
    assert!(names(&told)[1..].iter().all(|name| *name == "park") && told.len() > 1);
    drop(hold);
}

#[test]
fn a_lease_tells_of_its_grant_and_of_each_end() {
    let collector = Collector::new();
    let net = Pair::stepped();
    let mr = net.alloc(64);
    let long = Duration::from_secs(3600);
    let (lease, told) = collector.during(|| mr.lease(8..24, Access::REMOTE_WRITE, long).unwrap());
    let granted = one(&told, "granted");
    assert_eq!(granted.field("addr"), hex(mr.addr() + 8));
    assert_eq!(granted.field("rkey"), hex(lease.token().rkey()));
    assert!(format!("{mr:?}").contains(granted.field("gate")));
    net.nic.inject(Fault::Deregister, When::Nth(1));
    let (_, told) = collector.during(|| lease.revoke().is_err());
    assert_eq!(names(&told), ["revocation refused"]);
    let (_, told) = collector.during(|| lease.revoke().unwrap());
    assert_eq!(names(&told), ["ended"]);
    let (_, told) = collector.during(|| drop(lease));
    assert!(told.is_empty());

    let lease = mr.lease(.., Access::REMOTE_READ, Duration::ZERO).unwrap();
    let (_, told) = collector.during(reap);
    assert_eq!(names(&told), ["ended", "expired"]);
    assert_eq!(told[1].field("rkey"), hex(lease.token().rkey()));

    let lease = mr.lease(.., Access::REMOTE_READ, long).unwrap();
    net.nic.inject(Fault::Deregister, When::Nth(1));
    let (_, told) = collector.during(|| drop(lease));
    assert_eq!(names(&told), ["revocation refused", "lease leaked"]);
}

#[test]
fn an_operation_that_fails_and_holds_that_leak_tell_their_wr_ids() {
    let collector = Collector::new();
    let mut net = Pair::stepped();
    let (from, to) = (net.alloc(64), net.alloc(64));
    let status = WcStatus::RemOpErr;
    net.nic.inject(Fault::Completion(status), When::Nth(1));
    net.start_message(&from, &to);
    let (done, told) = collector.during(|| net.settle());
    let failed = done.iter().find(|done| done.status == status).unwrap();
    let id = hex(failed.id.wr_id());
    let told = told.iter().find(|told| told.field("wr_id") == id).unwrap();
    assert_eq!(
        (told.name.as_str(), told.level),
        ("operation failed", Level::WARN)
    );
    assert_eq!(told.field("status"), "RemOpErr");

    let mut net = Pair::stepped();
    let (from, to) = (net.alloc(64), net.alloc(64));
    let id = net.b.recv(to.begin_write().unwrap()).unwrap();
    let send = net.a.send(from.begin_read().unwrap(), None).unwrap();
    net.nic.inject(Fault::Destroy, When::Nth(1));
    let Pair { a, b, nic, .. } = net;
    let (drained, told) = collector.during(|| b.drain().finish());
    assert_eq!(drained.leaked, 1);
    let leaked = one(&told, "hold leaked");
    assert_eq!(leaked.field("wr_id"), hex(id.wr_id()));
    assert!(format!("{to:?}").contains(leaked.field("gate")));
    assert_eq!(one(&told, "drained").field("leaked"), "1");
    let (drained, told) = collector.during(|| a.drain().finish());
    assert_eq!(
        (drained.released + drained.completed, drained.leaked),
        (1, 0)
    );
    assert!(!names(&told).contains(&"hold leaked"), "{send:?}");
    drop(nic);
}
