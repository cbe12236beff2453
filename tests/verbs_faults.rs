//! Faults of a network and of peers, on soft-RoCE: packets lost and out of order, a link that goes down, a peer
//! that is killed in the midst of a WRITE. What was found stands in docs/faults.md, and has to be what is
//! found. `cargo xtask vm test` runs it, in a machine whose network it may change; it puts it back.
//!
//! Two devices, each on its end of a pair of interfaces, of one machine: the rules send what the two addresses
//! have for each other over the wire, and not by the short way. (A device that is taken away is `verbs_gone`.)
#![cfg(feature = "verbs")]

mod fabric;
#[path = "faults/table.rs"]
mod table;
#[path = "faults/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fabric::{Device, Fabric, LONG};
use rdma_mr::backend::verbs::{QpAddress, QueuePair};
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr};
use rdma_mr::{
    Access, Leaks, Lend, LocalMr, LocalMrReadAccess, MrAccess, MrToken, RemoteMr, leaks,
};

use table::{Found, Row};
use wire::Wire;

type End = Endpoint<QueuePair>;

/// Two packets of that network, and some.
const LENGTH: usize = 2500;
const ROUNDS: u8 = 12;
/// What is read where packets overtake each other. Of longer READs soft-RoCE says there that they have succeeded when
/// only the first packets of the answer were placed, beside WRITEs (`examples/answers`).
const ONE_PACKET: usize = 1000;
const HOUR: Duration = Duration::from_secs(3600);

/// Other bytes for each number, none of them 0 all along.
fn pattern(number: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8) ^ number).collect()
}

/// Both devices, and a region of the far one of which the midst is lent.
struct Place {
    near: Device,
    far: Device,
    lent: LocalMr,
}

impl Place {
    fn new() -> Self {
        let (near, far) = (Device::named("rxe0"), Device::named("rxe1"));
        let lent = far.alloc(3 * LENGTH);
        Place { near, far, lent }
    }

    fn connect(&self) -> (End, End) {
        let end = |device: &Device| {
            let cq = device.cq(64);
            device.qp(&cq, &cq, QpCaps::default())
        };
        let (a, b) = (end(&self.near), end(&self.far));
        a.connect(&b.address(None).unwrap(), None).unwrap();
        b.connect(&a.address(None).unwrap(), None).unwrap();
        (Endpoint::new(a), Endpoint::new(b))
    }

    fn lend(&self) -> rdma_mr::Lease {
        let rights = Access::REMOTE_WRITE | Access::REMOTE_READ;
        let range = LENGTH..2 * LENGTH;
        self.lent.try_lease(range, rights, HOUR).unwrap()
    }

    /// Nothing is written beside what was lent.
    fn check_beside(&self) {
        let bytes = self.lent.try_as_slice().expect("the lease is over");
        let beside = bytes[..LENGTH].iter().chain(&bytes[2 * LENGTH..]);
        assert!(beside.copied().all(|byte| byte == 0), "beside the lease");
    }
}

/// The regions of one round, and how many of its operations are over.
struct Round {
    number: u8,
    from: LocalMr,
    inbox: LocalMr,
    back: LocalMr,
}

impl Round {
    /// A message, a WRITE of the same, and a READ of so much of what was written.
    fn post(place: &Place, ends: &mut (End, End), token: MrToken, number: u8, read: usize) -> Self {
        let (a, b) = ends;
        let from = place.near.region(&pattern(number, LENGTH));
        let (inbox, back) = (place.far.alloc(LENGTH), place.near.alloc(read));
        let mut remote = RemoteMr::new(token).unwrap();
        b.recv(inbox.begin_write().unwrap()).unwrap();
        a.send(from.begin_read().unwrap(), None).unwrap();
        a.write(from.begin_read().unwrap(), &mut remote, None)
            .unwrap();
        let read = remote.get(..read).unwrap();
        a.read(back.begin_write().unwrap(), read).unwrap();
        Round {
            number,
            from,
            inbox,
            back,
        }
    }

    /// All has been told of as done.
    fn check(&self) {
        let sent = pattern(self.number, LENGTH);
        let all = [
            ("from", &self.from),
            ("inbox", &self.inbox),
            ("back", &self.back),
        ];
        for (name, mr) in all {
            assert!(mr.state().is_free(), "{}", mr.state());
            let bytes = mr.as_slice();
            let wrong = (0..mr.length()).find(|at| bytes[*at] != sent[*at]);
            assert_eq!(
                wrong, None,
                "round {}: {name} is wrong from there on",
                self.number
            );
        }
    }

    fn are_free(&self) -> bool {
        let mut all = [&self.from, &self.inbox, &self.back].into_iter();
        all.all(|mr| mr.state().is_free())
    }
}

/// Polls both until nothing is outstanding, or something failed.
fn wait(ends: &mut (End, End), found: &mut Found) {
    let start = Instant::now();
    let (a, b) = ends;
    let mut failed = 0;
    while failed == 0 && (a.outstanding(), b.outstanding()) != ((0, 0), (0, 0)) {
        for end in [&mut *a, &mut *b] {
            let polled = end.poll(|done| {
                found.tell_status(done.status);
                failed += usize::from(!done.status.is_success());
            });
            polled.unwrap();
        }
        assert!(start.elapsed() < LONG, "it never ends");
        thread::yield_now();
    }
    found.failed += failed;
    found.time = found.time.max(start.elapsed());
}

/// Rounds one after the other, of which all succeed; `before` is told which one comes.
fn rounds(place: &Place, before: impl FnMut(u8)) -> Found {
    rounds_reading(LENGTH, place, before)
}

fn rounds_reading(read: usize, place: &Place, mut before: impl FnMut(u8)) -> Found {
    let mut found = Found::default();
    let mut ends = place.connect();
    let lease = place.lend();
    for number in 1..=ROUNDS {
        before(number);
        let round = Round::post(place, &mut ends, lease.token(), number, read);
        wait(&mut ends, &mut found);
        assert_eq!(found.failed, 0, "{:?}", found.seen);
        round.check();
    }
    lease.revoke().unwrap();
    place.check_beside();
    assert!(place.lent.as_slice()[LENGTH..2 * LENGTH] == *pattern(ROUNDS, LENGTH));
    found
}

/// A row of a table, of that case.
fn row(name: &str, case: impl FnOnce() -> Found) -> Row {
    println!("{name}");
    let before = leaks();
    let found = case();
    assert_eq!(leaks(), before, "{name}");
    let mut row = Row::new([name].into_iter());
    row.add(found, (0, 0));
    row
}

fn link_down(wire: &Wire, place: &Place) -> Found {
    let mut found = Found::default();
    let mut ends = place.connect();
    let lease = place.lend();
    wire.down();
    let round = Round::post(place, &mut ends, lease.token(), 1, LENGTH);
    assert!(!round.are_free());
    wait(&mut ends, &mut found);
    let start = Instant::now();
    for drain in [ends.0.drain(), ends.1.drain()] {
        let outstanding = drain.outstanding();
        let drained = drain.until(Instant::now() + Duration::from_secs(2));
        println!("{drained:?}");
        let sum = drained.completed + drained.released;
        assert_eq!((sum, drained.leaked), (outstanding, 0));
        // Told of by whom it does not matter.
        found.failed += drained.completed;
        found.untold += drained.released;
    }
    assert!(start.elapsed() < LONG);
    assert!(round.are_free());
    lease.revoke().unwrap();
    place.check_beside();
    wire.up();
    found
}

/// Names the peer, which is a process of its own.
const PEER: &str = "RDMA_MR_PEER";

/// Writes what it was told of, without end.
fn write_without_end() -> ! {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (address, token): (QpAddress, MrToken) = serde_json::from_str(&line).unwrap();
    let device = Device::named("rxe0");
    let cq = device.cq(64);
    let qp = device.qp(&cq, &cq, QpCaps::default());
    let mine = serde_json::to_string(&qp.address(None).unwrap()).unwrap();
    qp.connect(&address, None).unwrap();
    println!("\nADDRESS {mine}");
    std::io::stdin().read_line(&mut line).unwrap();
    let mut end = Endpoint::new(qp);
    let from = [1, 2].map(|number| device.region(&pattern(number, LENGTH)));
    let to = RemoteAddr {
        addr: token.addr(),
        rkey: token.rkey(),
    };
    for turn in 0_usize.. {
        end.write(from[turn % 2].begin_read().unwrap(), to, None)
            .unwrap();
        while end.outstanding().0 > 4 {
            end.poll(|done| assert!(done.status.is_success())).unwrap();
        }
    }
    unreachable!("it is killed")
}

fn peer_killed(place: &Place) -> Found {
    let mut found = Found::default();
    let lease = place.lend();
    let cq = place.far.cq(64);
    let qp = place.far.qp(&cq, &cq, QpCaps::default());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--nocapture", "--exact", TEST])
        .env(PEER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to_child = child.stdin.take().unwrap();
    let told = serde_json::to_string(&(qp.address(None).unwrap(), lease.token())).unwrap();
    writeln!(to_child, "{told}").unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.map(Result::unwrap).find_map(|line| {
        let address = line.strip_prefix("ADDRESS ")?;
        Some(serde_json::from_str::<QpAddress>(address).unwrap())
    });
    qp.connect(&address.expect("it told"), None).unwrap();
    let mut end = Endpoint::new(qp);
    // It waits for what the peer will never send.
    let inbox = place.far.alloc(LENGTH);
    end.recv(inbox.begin_write().unwrap()).unwrap();
    writeln!(to_child, "go").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(place.lent.try_as_slice().is_none(), "it is lent");
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    // The lease does not end by the peer's death.
    assert!(place.lent.try_as_slice().is_none() && inbox.try_as_slice().is_none());
    lease.revoke().unwrap();
    let bytes = place.lent.try_as_slice().expect("revoked").to_vec();
    let one_or_other = [0, 1, 2].map(|number| match number {
        0 => vec![0; LENGTH],
        number => pattern(number, LENGTH),
    });
    for (at, byte) in bytes[LENGTH..2 * LENGTH].iter().enumerate() {
        assert!(one_or_other.iter().any(|pattern| pattern[at] == *byte));
    }
    assert!(
        bytes[LENGTH..].iter().any(|byte| *byte != 0),
        "it has written"
    );
    place.check_beside();
    assert_eq!(end.poll(|_| ()).unwrap(), 0, "nobody says that it is over");
    assert!(inbox.try_as_slice().is_none());
    let drained = end.drain().until(Instant::now() + Duration::from_secs(1));
    assert_eq!((drained.completed, drained.released), (1, 0), "{drained:?}");
    found.failed += 1;
    found.tell("`WrFlushErr`");
    assert!(inbox.try_as_slice().is_some());
    assert!(*place.lent.as_slice() == bytes[..], "written after that");
    found.time = start.elapsed();
    found
}

const TEST: &str = "faults_of_the_network_and_of_peers";

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn faults_of_the_network_and_of_peers() {
    if std::env::var(PEER).is_ok() {
        write_without_end();
    }
    let wire = Wire::new();
    let place = Place::new();
    let spoiled = |how: &str, read| {
        wire.spoil(how);
        let found = rounds_reading(read, &place, |_| ());
        wire.mend();
        found
    };
    let rows = [
        row("none", || rounds(&place, |_| ())),
        row("5 % of packets lost", || {
            wire.spoil("loss 5%");
            let found = rounds(&place, |_| ());
            let dropped = Wire::dropped();
            wire.mend();
            println!("{dropped} packets were lost");
            assert!(dropped > 0);
            found
        }),
        row("packets out of order", || {
            spoiled("delay 2ms reorder 75% 50%", ONE_PACKET)
        }),
        row("packets twice", || spoiled("duplicate 20%", LENGTH)),
        row("link down and up between operations", || {
            rounds(&place, |number| {
                if number % 4 == 2 {
                    wire.down();
                    thread::sleep(Duration::from_millis(200));
                    wire.up();
                }
            })
        }),
        row("link down under operations", || link_down(&wire, &place)),
        row("peer killed in a WRITE", || peer_killed(&place)),
    ];
    assert_eq!(place.lent.length(), 3 * LENGTH);
    drop(place);
    drop(wire);
    assert_eq!(leaks(), Leaks::default());
    table::compare("rxe", &rows);
}
