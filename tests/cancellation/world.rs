//! Two queue pairs, one of which is under test, and the operations that are tried on it.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Instant;

use rdma_mr::gate::{Snapshot, Writer};
use rdma_mr::op::{AsyncQueuePair, Begin, Done, Endpoint, Gather, Poller};
use rdma_mr::work::{QpCaps, SendFlags, SendOp};
use rdma_mr::{LocalMr, LocalMrReadAccess, Result};

use super::slow::{Door, Slow};
use super::subject::Subject;
use crate::fabric::{Fabric, LONG, remote};

/// Every way to start an operation as a future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Send,
    Write,
    WriteWithImm,
    Read,
    FetchAdd,
    CompareSwap,
    Recv,
    GatheredSend,
    GatheredRead,
    HeldRecv,
    GatheredRecv,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Send,
        Kind::Write,
        Kind::WriteWithImm,
        Kind::Read,
        Kind::FetchAdd,
        Kind::CompareSwap,
        Kind::Recv,
        Kind::GatheredSend,
        Kind::GatheredRead,
        Kind::HeldRecv,
        Kind::GatheredRecv,
    ];

    pub fn is_recv(self) -> bool {
        matches!(self, Kind::Recv | Kind::HeldRecv | Kind::GatheredRecv)
    }

    /// Whether it uses up a receive of the peer.
    pub fn is_message(self) -> bool {
        matches!(self, Kind::Send | Kind::WriteWithImm | Kind::GatheredSend)
    }

    /// Whether the NIC only reads the bytes here.
    pub fn reads(self) -> bool {
        self.is_message() || self == Kind::Write
    }

    pub fn regions(self) -> usize {
        match self {
            Kind::GatheredSend | Kind::GatheredRead | Kind::GatheredRecv => 2,
            _ => 1,
        }
    }
}

/// Who holds a region: CPU readers, NIC reads, the writer.
pub type Held = (u64, u64, Option<Writer>);

pub fn held(mr: &LocalMr) -> Held {
    let Snapshot {
        cpu_readers,
        nic_reads,
        writer,
        ..
    } = mr.state();
    (cpu_readers, nic_reads, writer)
}

pub fn bytes(mr: &LocalMr) -> Vec<u8> {
    mr.try_as_slice().expect("free to read").to_vec()
}

/// A queue pair under test, its peer, and the peer's memory.
pub struct World<'f, F: Fabric> {
    pub fabric: &'f F,
    pub a: Arc<AsyncQueuePair<Slow<F::Qp>>>,
    pub poller: Poller<F::Cq>,
    pub b: RefCell<Endpoint<F::Qp>>,
    pub door: Arc<Door>,
    /// Bytes that the operations under test go to or come from.
    pub there: LocalMr,
    pub inbox: LocalMr,
    pub outbox: LocalMr,
    /// What those that are in the way work on.
    filler: Arc<LocalMr>,
    scrap: LocalMr,
}

/// Two posts fill the send queue, one the receive queue.
const CAPS: QpCaps = QpCaps {
    max_send_wr: 2,
    max_recv_wr: 1,
    max_send_sge: 2,
    max_recv_sge: 2,
    max_inline: 0,
};

/// Bytes that tell who wrote them.
pub fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| seed ^ (at as u8).wrapping_mul(31))
        .collect()
}

impl<'f, F: Fabric> World<'f, F> {
    pub fn new(fabric: &'f F) -> Self {
        let [of_a, of_b] = [(); 2].map(|()| fabric.cq(64));
        let a = fabric.qp(&of_a, &of_a, CAPS);
        let b = fabric.qp(
            &of_b,
            &of_b,
            QpCaps {
                max_recv_wr: 4,
                ..CAPS
            },
        );
        fabric.connect(&a, &b);
        let (door, poller) = (Arc::new(Door::default()), Poller::new(of_a));
        let slow = Slow {
            qp: a,
            caps: CAPS,
            door: door.clone(),
        };
        let a = Endpoint::attach(slow, &poller).map_err(|rejected| rejected.error);
        // SAFETY: REMOTE-1, REMOTE-2: the tests look at these bytes when all operations are over.
        let open = |seed| unsafe { fabric.open_to_peers(&pattern(seed, 16)) };
        World {
            fabric,
            a: Arc::new(AsyncQueuePair::new(a.unwrap())),
            poller,
            b: RefCell::new(Endpoint::new(b)),
            door,
            there: open(100),
            inbox: fabric.alloc(16),
            outbox: fabric.region(&pattern(120, 16)),
            filler: Arc::new(fabric.region(&pattern(140, 8))),
            scrap: open(0),
        }
    }

    /// Regions for an operation; the first is entered first.
    pub fn regions(&self, kind: Kind) -> [LocalMr; 2] {
        let make = |seed| self.fabric.region(&pattern(seed, 8));
        let [one, two] = [make(1 + kind as u8), make(50 + kind as u8)];
        let in_the_way = one.begin_write().unwrap();
        let gathering = Subject::new(Gather::new([&one, &two]).begin_write_async()).pending();
        let first = two.state().is_free();
        drop((gathering, in_the_way));
        if first { [one, two] } else { [two, one] }
    }

    /// The operation as a future.
    pub fn operation<'a>(
        &'a self,
        kind: Kind,
        [one, two]: &'a [LocalMr; 2],
    ) -> Subject<'a, Result<Done>> {
        let (a, to) = (&*self.a, remote(&self.there));
        let flags = SendFlags::empty();
        match kind {
            Kind::Send => Subject::new(a.send(one, Some(5))),
            Kind::Write => Subject::new(a.write(one, to)),
            Kind::WriteWithImm => Subject::new(a.write_with_imm(one, to, 6)),
            Kind::Read => Subject::new(a.read(one, to)),
            Kind::FetchAdd => Subject::new(a.fetch_add(one, to, 3)),
            Kind::CompareSwap => {
                let now = u64::from_ne_bytes(bytes(&self.there)[..8].try_into().unwrap());
                Subject::new(a.compare_swap(one, to, now, now + 3))
            }
            Kind::Recv => Subject::new(a.recv(one)),
            Kind::GatheredSend => Subject::new(async move {
                let holds = Gather::new([one, two]).begin_read_async().await?;
                a.post(holds, SendOp::Send { imm: None }, flags).await
            }),
            Kind::GatheredRead => Subject::new(async move {
                let holds = Gather::new([one, two]).begin_write_async().await?;
                a.post(holds, SendOp::Read { remote: to }, flags).await
            }),
            Kind::HeldRecv => Subject::new(async move {
                let hold = one.begin_write_async().await?;
                a.recv_held(hold).await
            }),
            Kind::GatheredRecv => Subject::new(async move {
                let holds = Gather::new([one, two]).begin_write_async().await?;
                a.recv_held(holds).await
            }),
        }
    }

    /// What the peer has to have done before: a receive.
    pub fn expect(&self, kind: Kind) {
        if kind.is_message() {
            let hold = self.inbox.begin_write().unwrap();
            self.b.borrow_mut().recv(hold).unwrap();
        }
    }

    /// The peer's message to a receive.
    pub fn message(&self, length: usize) {
        let hold = self.outbox.get(..length).unwrap().begin_read().unwrap();
        self.b.borrow_mut().send(hold, None).unwrap();
    }

    /// Posts what makes a queue full, together with the one that [`take_turn`](Self::take_turn) lets
    /// through.
    pub fn fill(&self, kind: Kind) {
        let mut filler = if kind.is_recv() {
            Subject::new(self.a.recv(&self.scrap))
        } else {
            Subject::new(self.a.write(&*self.filler, remote(&self.scrap)))
        };
        assert!(filler.poll(Waker::noop()).is_pending());
    }

    /// Somebody is in the middle of a post until it is let go: then there is one WRITE more.
    pub fn take_turn(&self) -> TurnTaken {
        self.door.shut();
        let (a, filler, to) = (self.a.clone(), self.filler.clone(), remote(&self.scrap));
        let thread = std::thread::spawn(move || {
            assert!(
                Subject::new(a.write(&*filler, to))
                    .poll(Waker::noop())
                    .is_pending()
            );
        });
        self.door.wait_inside();
        TurnTaken {
            door: self.door.clone(),
            thread: Some(thread),
        }
    }

    /// Until nothing of this side's is outstanding, and nothing of the peer's but receives.
    #[track_caller]
    pub fn finish(&self) {
        let start = Instant::now();
        loop {
            self.fabric.act();
            self.poller.poll().unwrap();
            let mut b = self.b.borrow_mut();
            b.poll(|done| assert!(done.status.is_success(), "{done:?}"))
                .unwrap();
            if self.a.outstanding() == (0, 0) && b.outstanding().0 == 0 {
                break;
            }
            assert!(start.elapsed() < LONG, "{:?} and {b:?}", self.a);
            std::thread::yield_now();
        }
    }

    /// Until the peer has had its message.
    fn finish_message(&self) {
        let start = Instant::now();
        while self.b.borrow().outstanding().1 > 0 {
            self.b.borrow_mut().poll(|_| ()).unwrap();
            assert!(start.elapsed() < LONG, "{:?}", self.b);
        }
    }

    /// Where this side's bytes came from or went to, once the operation is over.
    pub fn assert_arrived(&self, kind: Kind, before: &[u8], mine: &[LocalMr; 2]) {
        if kind.is_message() {
            self.finish_message();
        }
        let here: Vec<u8> = mine[..kind.regions()].iter().flat_map(bytes).collect();
        let now = bytes(&self.there);
        let sum = |word: &[u8]| u64::from_ne_bytes(word.try_into().unwrap()) + 3;
        match kind {
            Kind::Send | Kind::GatheredSend => {
                assert_eq!(bytes(&self.inbox)[..here.len()], here);
            }
            Kind::Write | Kind::WriteWithImm => assert_eq!(now[..here.len()], here),
            Kind::Read | Kind::GatheredRead => assert_eq!(now[..here.len()], here),
            Kind::FetchAdd | Kind::CompareSwap => {
                assert_eq!(here, before[..8]);
                assert_eq!(now[..8], sum(&before[..8]).to_ne_bytes());
            }
            Kind::Recv | Kind::HeldRecv | Kind::GatheredRecv => {
                assert_eq!(here, bytes(&self.outbox)[..here.len()]);
            }
        }
    }

    /// Such an operation from the start to the end, with nobody in the way.
    pub fn run(&self, kind: Kind, mine: &[LocalMr; 2]) {
        let before = bytes(&self.there);
        let mut operation = self.operation(kind, mine).pending();
        if kind.is_recv() {
            self.message(8 * kind.regions());
        }
        self.finish();
        assert!(matches!(
            operation.poll(Waker::noop()),
            std::task::Poll::Ready(Ok(_))
        ));
        self.assert_arrived(kind, &before, mine);
    }
}

/// Somebody who is in the middle of a post, on a thread.
pub struct TurnTaken {
    door: Arc<Door>,
    thread: Option<JoinHandle<()>>,
}

impl TurnTaken {
    /// It has posted, and the turn is free.
    pub fn let_go(mut self) {
        self.door.open();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for TurnTaken {
    fn drop(&mut self) {
        self.door.open();
    }
}
