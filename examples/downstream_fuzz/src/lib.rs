//! The inbox of `downstream_loom` under a fuzzer: any bytes are a program of sends, steps of the NIC, turns
//! of the one that polls, reads and faults. One thread, no time, no chance but those bytes: the same ones do the
//! same each time.

use std::collections::VecDeque;

use arbitrary::{Arbitrary, Unstructured};
use downstream_loom::{Bug, Feeder, Reader, broken_inbox, inbox};
use rdma_mr::backend::soft::{Fault, Nic, QueuePair, When};
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, WcStatus};
use rdma_mr::{LocalMr, LocalMrWriteAccess};

/// The length of a slot, in bytes.
const SLOT: usize = 8;
const SLOTS: usize = 2;
const SOURCES: usize = 3;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// A message; one that is too long for a slot ends the queue pair, so that few are.
    Send { source: u8, length: u8 },
    /// The NIC does one thing.
    Nic,
    /// The one that polls has a turn.
    Turn,
    /// The next message is read, with so many steps while it is.
    Read { meanwhile: u8 },
    /// The so many-th work request from now fails; few of these steps are meant.
    Fail { nth: u8 },
}

/// What a program came to, to see that programs get somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were sent.
    pub sent: usize,
    /// Messages that were read.
    pub read: usize,
    /// Whether the queue pair failed.
    pub failed: bool,
}

/// Everything but the reader, so that it goes on while a message is read.
struct World {
    nic: Nic,
    sender: Endpoint<QueuePair>,
    sources: Vec<LocalMr>,
    feeder: Feeder<QueuePair>,
    /// Sent and not read.
    expected: VecDeque<Vec<u8>>,
    outcome: Outcome,
}

/// Runs the program that these bytes are.
///
/// # Panics
/// If the inbox does what it must not.
pub fn run(data: &[u8], bug: Option<Bug>) -> Outcome {
    let leaks = rdma_mr::leaks();
    let mut program = Unstructured::new(data);
    let (mut world, mut reader) = World::new(program.arbitrary().unwrap_or(0), bug);
    while let Some(step) = next(&mut program) {
        world.step(step, &mut reader, &mut program);
    }
    // Whatever happened, what can still arrive does.
    loop {
        let came = world.turn();
        let steps = world.nic.run_until_idle();
        world.poll_sender();
        if !world.read(&mut reader, |_| ()) && steps + came == 0 {
            break;
        }
    }
    let World { nic, outcome, .. } = &world;
    let (nic, outcome) = (nic.clone(), *outcome);
    if !outcome.failed {
        assert_eq!(outcome.read, outcome.sent, "a message was lost");
    }
    drop((world, reader));
    let stats = nic.stats();
    assert_eq!((stats.registrations, stats.queue_pairs), (0, 0));
    assert_eq!(rdma_mr::leaks(), leaks);
    outcome
}

/// The next step; `arbitrary` by itself makes more of them, out of nothing, when the bytes are used up.
fn next(program: &mut Unstructured<'_>) -> Option<Step> {
    if program.is_empty() {
        return None;
    }
    program.arbitrary().ok()
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> (Self, Reader) {
        let nic = Nic::builder().stepped().seed(seed).build();
        let pd = nic.alloc_pd();
        let caps = QpCaps {
            max_send_wr: 4,
            max_recv_wr: SLOTS as u32,
            ..QpCaps::default()
        };
        let queue_pair = || {
            let cq = nic.create_cq(8).expect("8 completions");
            pd.create_qp(&cq, &cq, caps).expect("small queues")
        };
        let (a, b) = (queue_pair(), queue_pair());
        QueuePair::connect_pair(&a, &b).expect("new ones");
        let regions = |count, length| {
            let region = |_| LocalMr::alloc(&pd, length).expect("a few bytes");
            (0..count).map(region).collect::<Vec<_>>()
        };
        let slots = regions(SLOTS, SLOT);
        let (feeder, reader) = match bug {
            None => inbox(slots, Endpoint::new(b)),
            Some(bug) => broken_inbox(slots, Endpoint::new(b), bug),
        };
        let world = World {
            sources: regions(SOURCES, SLOT + 1),
            nic,
            sender: Endpoint::new(a),
            feeder,
            expected: VecDeque::new(),
            outcome: Outcome::default(),
        };
        (world, reader)
    }

    fn step(&mut self, step: Step, reader: &mut Reader, program: &mut Unstructured<'_>) {
        match step {
            Step::Read { meanwhile } => {
                self.read(reader, |world| {
                    for _ in 0..meanwhile % 8 {
                        if let Some(step) = next(program) {
                            world.step_beside(step);
                        }
                    }
                });
            }
            other => self.step_beside(other),
        }
    }

    fn step_beside(&mut self, step: Step) {
        match step {
            Step::Send { source, length } => self.send(source, length),
            Step::Nic => drop(self.nic.step()),
            Step::Turn => drop(self.turn()),
            Step::Read { .. } => {} // one at a time
            Step::Fail { nth } => {
                if nth < 8 {
                    let fault = Fault::Completion(WcStatus::RemOpErr);
                    self.nic.inject(fault, When::Nth(u64::from(nth) + 1));
                }
            }
        }
    }

    fn poll_sender(&mut self) {
        self.sender
            .poll(|done| self.outcome.failed |= !done.status.is_success())
            .expect("no completion queue is overrun");
    }

    fn send(&mut self, source: u8, length: u8) {
        self.poll_sender();
        let source = &mut self.sources[usize::from(source) % SOURCES];
        let length = match usize::from(length) {
            251.. => SLOT + 1,
            length => 1 + length % SLOT,
        };
        let number = self.outcome.sent as u8;
        let Some(mut bytes) = source.try_as_mut_slice() else {
            return; // the NIC has it
        };
        bytes.fill(number);
        drop(bytes);
        let part = source.get(..length).expect("inside");
        let hold = part.begin_read().expect("free, as was seen");
        if self.sender.send(hold, None).is_ok() {
            self.outcome.sent += 1;
            self.expected.push_back(vec![number; length]);
        }
    }

    fn turn(&mut self) -> usize {
        let came = self.feeder.turn();
        self.outcome.failed |= self.feeder.failed().is_some();
        match came {
            Ok(came) => came,
            Err(error) => {
                assert!(self.outcome.failed, "{error}");
                0
            }
        }
    }

    /// Reads the next message, if there is one.
    fn read(&mut self, reader: &mut Reader, meanwhile: impl FnOnce(&mut Self)) -> bool {
        let Some(message) = reader.try_next() else {
            return false;
        };
        let expected = self.expected.pop_front();
        meanwhile(self);
        assert_eq!(
            Some(&message[..]),
            expected.as_deref(),
            "a message that was not sent"
        );
        self.outcome.read += 1;
        true
    }
}
