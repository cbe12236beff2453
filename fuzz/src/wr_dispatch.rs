//! Completions as a device that can't be trusted makes them, at a poller with endpoints and a shared receive queue: unknown,
//! stale and twice the same, in any order, with every status and the numbers of other queue pairs. What is released,
//! and what is told, is compared with lists of what is outstanding.

mod device;
mod model;

use arbitrary::Arbitrary;
use rdma_mr::backend::soft::Nic;
use rdma_mr::op::{Begin, Endpoint, Poller, SharedRecv};
use rdma_mr::work::{RemoteAddr, SendFlags, SendOp, WcStatus, WorkCompletion};
use rdma_mr::{Error, LocalMr};

use crate::place;
use device::{Cq, Qp, Srq};
use model::{Model, Name};

const REGIONS: usize = 4;
const ENDS: usize = 3;

/// What is done.
#[derive(Arbitrary, Debug)]
pub struct Program(Vec<Step>);

#[derive(Arbitrary, Debug)]
enum Step {
    /// A queue pair, at the poller.
    Attach,
    Send {
        end: u8,
        region: u8,
        reads: bool,
        flags: u8,
        fails: bool,
    },
    Recv {
        end: u8,
        region: u8,
        fails: bool,
    },
    SharedRecv {
        region: u8,
    },
    /// A completion comes.
    Complete {
        which: Which,
        whose: Whose,
        status: u8,
    },
    Poll,
    /// The queue pair is destroyed.
    Destroy {
        end: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Which {
    /// Of those that are outstanding.
    Outstanding(u8),
    /// Of all that there ever were.
    Any(u8),
    Bit(u8, u8),
    Number(u64),
}

/// The number of the queue pair that the completion says it is of.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Whose {
    Right,
    Of(u8),
    Number(u32),
}

struct End {
    endpoint: Endpoint<Qp>,
    number: u32,
}

struct World {
    ends: Vec<End>,
    shared: SharedRecv<Srq, Cq>,
    poller: Poller<Cq>,
    cq: Cq,
    regions: Vec<LocalMr>,
    model: Model,
    attached: u32,
}

impl World {
    fn new() -> Self {
        let pd = Nic::builder().stepped().build().alloc_pd();
        let region = |_| LocalMr::register(&pd, vec![0; 8]).expect("8 bytes");
        let cq = Cq::default();
        let poller = Poller::new(cq.clone());
        let mut shared = SharedRecv::new(Srq);
        shared.attach(&poller).expect("the first one");
        let mut world = World {
            ends: Vec::new(),
            shared,
            poller,
            cq,
            regions: (0..REGIONS).map(region).collect(),
            model: Model::default(),
            attached: 0,
        };
        world.attach();
        world
    }

    fn attach(&mut self) {
        if self.ends.len() < ENDS {
            self.attached += 1;
            let number = self.attached;
            let qp = Qp::new(number, self.cq.clone());
            let endpoint = Endpoint::attach(qp, &self.poller).expect("there is room");
            self.ends.push(End { endpoint, number });
        }
    }

    fn send(&mut self, end: u8, region: u8, reads: bool, flags: u8, fails: bool) {
        let Some(end) = place(end, self.ends.len()) else {
            return;
        };
        let region = usize::from(region) % REGIONS;
        let mut flags = SendFlags::from_bits_truncate(flags.into());
        flags.set(
            SendFlags::INLINE,
            flags.contains(SendFlags::INLINE) && !reads,
        );
        let remote = RemoteAddr::default();
        let (hold, op) = match reads {
            true => (
                self.regions[region].try_begin_write(),
                SendOp::Read { remote },
            ),
            false => (
                self.regions[region].try_begin_read(),
                SendOp::Write { remote, imm: None },
            ),
        };
        let Ok(hold) = hold else {
            return; // what the gate says is another target's
        };
        let End { endpoint, number } = &mut self.ends[end];
        endpoint.qp().fails.set(fails);
        let posted = endpoint.post(hold, op, flags);
        let signaled = flags.contains(SendFlags::SIGNALED);
        let queue = self.model.queue(Name::Sends(*number));
        match posted {
            Ok(id) => {
                assert!(!fails && !queue.is_full(device::CAPACITY));
                let held = !flags.contains(SendFlags::INLINE);
                queue.push(id.wr_id(), held.then_some((region, reads)), signaled);
            }
            Err(rejected) => {
                assert!(fails || !signaled || queue.is_full(device::CAPACITY));
                drop(rejected.value);
            }
        }
    }

    fn recv(&mut self, end: u8, region: u8, fails: bool) {
        let Some(end) = place(end, self.ends.len()) else {
            return;
        };
        let region = usize::from(region) % REGIONS;
        let Ok(hold) = self.regions[region].try_begin_write() else {
            return;
        };
        let End { endpoint, number } = &mut self.ends[end];
        endpoint.qp().fails.set(fails);
        let posted = endpoint.recv(hold);
        let queue = self.model.queue(Name::Recvs(*number));
        let takes = !fails && !queue.is_full(device::CAPACITY);
        assert_eq!(posted.is_ok(), takes);
        if let Ok(id) = posted {
            queue.push(id.wr_id(), Some((region, true)), true);
        }
    }

    fn shared_recv(&mut self, region: u8) {
        let region = usize::from(region) % REGIONS;
        let Ok(hold) = self.regions[region].try_begin_write() else {
            return;
        };
        let posted = self.shared.recv(hold);
        let queue = self.model.queue(Name::Shared);
        // Its slots come back in any order.
        assert_eq!(posted.is_ok(), queue.outstanding() < device::CAPACITY);
        if let Ok(id) = posted {
            queue.push(id.wr_id(), Some((region, true)), true);
        }
    }

    fn complete(&mut self, which: Which, whose: Whose, status: u8) {
        let ids = &self.model.ids;
        let any = |at| Some(ids[place(at, ids.len())?]);
        let wr_id = match which {
            Which::Outstanding(at) => self.model.outstanding(at),
            Which::Any(at) => any(at).map(|(_, wr_id)| wr_id),
            Which::Bit(at, bit) => any(at).map(|(_, wr_id)| wr_id ^ 1 << (bit % 64)),
            Which::Number(wr_id) => Some(wr_id),
        };
        let Some(wr_id) = wr_id else {
            return;
        };
        let right = ids.iter().rev().find(|(_, id)| *id == wr_id);
        let qp_num = match (whose, right) {
            (Whose::Right, Some((Name::Sends(number) | Name::Recvs(number), _))) => *number,
            (Whose::Right, _) => 1,
            (Whose::Of(at), _) => place(at, self.ends.len()).map_or(0, |at| self.ends[at].number),
            (Whose::Number(number), _) => number,
        };
        self.cq.come(WorkCompletion {
            wr_id,
            status: WcStatus::from_raw(u32::from(status) % 26),
            qp_num,
            ..WorkCompletion::EMPTY
        });
    }

    fn poll(&mut self) {
        let came = self.cq.waiting();
        let mut told = Vec::new();
        let polled = self
            .poller
            .poll_with(|done| told.push((done.id.wr_id(), done.status)));
        let mut expected = Vec::new();
        let mut nobodys = Vec::new();
        for wc in &came {
            if !self.model.complete(wc, &mut expected) {
                nobodys.push(wc);
            }
        }
        assert_eq!(told, expected);
        match polled {
            Ok(count) => {
                assert_eq!(count, expected.len());
                // What a queue pair that is gone left behind is no surprise.
                assert!(nobodys.iter().all(|wc| !self.model.is_surprise(wc)));
            }
            Err(Error::UnknownCompletion { wr_id }) => {
                assert!(nobodys.iter().any(|wc| wc.wr_id == wr_id));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn destroy(&mut self, end: u8) {
        if let Some(end) = place(end, self.ends.len()) {
            let End { endpoint, number } = self.ends.swap_remove(end);
            drop(endpoint);
            self.model.gone(number);
        }
    }

    fn check(&self) {
        for (at, region) in self.regions.iter().enumerate() {
            let (reads, writes) = self.model.held(at);
            let state = region.state();
            assert_eq!(
                (state.nic_reads, state.writer.is_some()),
                (reads, writes == 1)
            );
        }
        for End { endpoint, number } in &self.ends {
            let count = |name| {
                self.model
                    .queue_of(name)
                    .map_or(0, |queue| queue.outstanding())
            };
            let expected = (count(Name::Sends(*number)), count(Name::Recvs(*number)));
            assert_eq!(endpoint.outstanding(), expected);
        }
        let shared = self.model.queue_of(Name::Shared);
        assert_eq!(
            self.shared.outstanding(),
            shared.map_or(0, |queue| queue.outstanding())
        );
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Attach => self.attach(),
            Step::Send {
                end,
                region,
                reads,
                flags,
                fails,
            } => self.send(end, region, reads, flags, fails),
            Step::Recv { end, region, fails } => self.recv(end, region, fails),
            Step::SharedRecv { region } => self.shared_recv(region),
            Step::Complete {
                which,
                whose,
                status,
            } => self.complete(which, whose, status),
            Step::Poll => self.poll(),
            Step::Destroy { end } => self.destroy(end),
        }
    }
}

/// Carries it out.
///
/// # Panics
/// If a completion releases or tells of what it is not of.
pub fn run(Program(steps): Program) {
    let leaks = rdma_mr::leaks();
    let mut world = World::new();
    for step in steps {
        world.step(step);
        world.check();
    }
    let World {
        ends,
        shared,
        regions,
        ..
    } = world;
    drop((ends, shared));
    assert!(regions.iter().all(|region| region.state().is_free()));
    assert_eq!(rdma_mr::leaks(), leaks);
}
