//! The requests, and what is compared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdma_mr::backend::verbs::sys::{atomic_t, ibv_wr_opcode, rdma_t, wr_t};
use rdma_mr::work::WcStatus;

use crate::memory::Memory;
use crate::queues::{Device, Queues, Way, element, request};
use crate::{Failure, Item, Kind};

/// The two ends.
const NEAR: usize = 0;
const FAR: usize = 1;

/// What is in the bytes for an answer before it comes. No peer's byte is that.
const BEFORE: u8 = 0x55;
/// Bytes for one request.
pub const PLACE: usize = 16 << 10;
/// Bytes that are read from; the counter is behind them.
const SOURCE: usize = 64 << 10;
/// Marks the `wr_id` of a receive.
const RECEIVE: u64 = 1 << 63;
/// How many wrong answers are shown.
const SHOWN: u64 = 10;

/// A request that is under way, and what has to be there when it has succeeded.
struct Asked {
    item: usize,
    want: Vec<u8>,
}

pub struct Run {
    way: Way,
    depth: usize,
    pub items: Vec<Item>,
    random: SmallRng,
    /// A place for each request that can be under way.
    near: Memory,
    /// As many places for WRITEs, as many for receives, the source, the counter.
    far: Memory,
    asked: VecDeque<Asked>,
    sent: VecDeque<Vec<u8>>,
    posted: u64,
    counter: u64,
    pub connections: u64,
    end: Instant,
    /// Last: what is above goes before it.
    device: Arc<Device>,
}

impl Run {
    pub fn new(
        device: Arc<Device>,
        way: Way,
        depth: usize,
        items: Vec<Item>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let mut run = Run {
            near: Memory::new(&device, depth * PLACE)?,
            far: Memory::new(&device, 2 * depth * PLACE + SOURCE + 8)?,
            device,
            way,
            depth,
            items,
            random: SmallRng::seed_from_u64(seed),
            asked: VecDeque::new(),
            sent: VecDeque::new(),
            posted: 0,
            counter: 0,
            connections: 0,
            end: Instant::now(),
        };
        let source = run.source();
        for (at, byte) in run.far.bytes(source, SOURCE).iter_mut().enumerate() {
            *byte = 0x80 | (at % 127) as u8;
        }
        Ok(run)
    }

    pub fn go(&mut self, time: Duration) -> Result<(), Failure> {
        self.end = Instant::now() + time;
        while Instant::now() < self.end {
            self.connect()?;
        }
        Ok(())
    }

    fn source(&self) -> usize {
        2 * self.depth * PLACE
    }

    /// Where a request has its bytes: nobody else's until it is over.
    fn place(&self, number: u64) -> usize {
        (number % self.depth as u64) as usize * PLACE
    }

    fn receive(&mut self, queues: &Queues, place: usize) -> Result<(), Failure> {
        let at = (self.depth + place) * PLACE;
        self.far.bytes(at, PLACE).fill(BEFORE);
        let sge = self.far.sge(at, PLACE);
        // SAFETY: the place is nobody else's, and is looked at after the completion.
        unsafe { queues.post_recv(FAR, RECEIVE | place as u64, sge) }
    }

    fn post(&mut self, queues: &Queues) -> Result<(), Failure> {
        let item = self.random.random_range(0..self.items.len());
        let Item { kind, length, .. } = self.items[item];
        let at = self.place(self.posted);
        let (first, offset): (u8, usize) = (
            self.random.random(),
            self.random.random_range(0..SOURCE - PLACE),
        );
        // None of them is BEFORE.
        let mut want: Vec<u8> = (0..length).map(|at| (first ^ at as u8) | 0x80).collect();
        let mut remote = self.far.sge(at, length);
        let opcode = match kind {
            Kind::Read => {
                let from = self.source() + offset;
                want = self.far.bytes(from, length).to_vec();
                remote = self.far.sge(from, length);
                ibv_wr_opcode::IBV_WR_RDMA_READ
            }
            Kind::Write => {
                self.far.bytes(at, length).fill(BEFORE);
                ibv_wr_opcode::IBV_WR_RDMA_WRITE
            }
            Kind::Send => {
                self.sent.push_back(want.clone());
                ibv_wr_opcode::IBV_WR_SEND
            }
            Kind::Add | Kind::Swap => {
                want = self.counter.to_ne_bytes().to_vec();
                remote = self.far.sge(self.source() + SOURCE, length);
                match kind {
                    Kind::Add => ibv_wr_opcode::IBV_WR_ATOMIC_FETCH_AND_ADD,
                    _ => ibv_wr_opcode::IBV_WR_ATOMIC_CMP_AND_SWP,
                }
            }
        };
        let outgoing = matches!(kind, Kind::Write | Kind::Send);
        match outgoing {
            true => self.near.bytes(at, length).copy_from_slice(&want),
            false => self.near.bytes(at, PLACE).fill(BEFORE),
        }
        let (rkey, remote_addr) = (self.far.rkey(), remote.addr);
        let mut list = element(self.near.sge(at, length));
        let mut wr = request(opcode);
        (wr.sg_list, wr.num_sge, wr.wr_id) = (&mut list, 1, self.posted);
        wr.wr = match kind {
            Kind::Add | Kind::Swap => {
                // One more, either way.
                let (compare_add, swap) = match kind {
                    Kind::Add => (1, 0),
                    _ => (self.counter, self.counter + 1),
                };
                self.counter += 1;
                wr_t {
                    atomic: atomic_t {
                        remote_addr,
                        compare_add,
                        swap,
                        rkey,
                    },
                }
            }
            _ => wr_t {
                rdma: rdma_t { remote_addr, rkey },
            },
        };
        // SAFETY: the place is this request's until its completion; the list is copied by the post.
        unsafe { queues.post_send(NEAR, &mut wr) }.map_err(|(failure, _)| failure)?;
        self.asked.push_back(Asked { item, want });
        self.posted += 1;
        Ok(())
    }

    /// A request has succeeded: is it there?
    fn judge(&mut self, number: u64) {
        let Asked { item, want } = self.asked.pop_front().expect("it was posted");
        let place = self.place(number);
        let memory = match self.items[item].kind {
            Kind::Write => &mut self.far,
            // Looked at where it is received.
            Kind::Send => return self.items[item].succeeded += 1,
            _ => &mut self.near,
        };
        Self::compare(memory, place, &want, &mut self.items[item]);
    }

    fn compare(memory: &mut Memory, at: usize, want: &[u8], item: &mut Item) {
        item.succeeded += 1;
        let differs = |found: &[u8]| (0..want.len()).find(|at| found[*at] != want[*at]);
        let Some(first) = differs(memory.bytes(at, want.len())) else {
            return;
        };
        item.wrong += 1;
        let untouched = memory.bytes(at, want.len())[first..]
            .iter()
            .all(|byte| *byte == BEFORE);
        thread::sleep(Duration::from_millis(20));
        let late = differs(memory.bytes(at, want.len())) != Some(first);
        if item.wrong <= SHOWN {
            let name = &item.name;
            let what = if untouched { "as before" } else { "wrong" };
            let then = if late { "other" } else { "the same" };
            println!("{name} told as success: {what} from byte {first} on, {then} 20 ms later");
        }
    }

    /// A message has come.
    fn received(&mut self, queues: &Queues, place: usize) -> Result<(), Failure> {
        let want = self
            .sent
            .pop_front()
            .ok_or("a message that nobody has sent")?;
        let found = self.far.bytes((self.depth + place) * PLACE, want.len());
        if found != want {
            println!("a message differs from what was sent");
            let mut items = self.items.iter_mut();
            items.find(|item| item.kind == Kind::Send).unwrap().wrong += 1;
        }
        self.receive(queues, place)
    }

    /// Requests until the time is over, or until one has failed.
    fn connect(&mut self) -> Result<(), Failure> {
        // Dropped at the end of this: after that the device has no byte any more.
        let queues = Queues::by(&self.device, self.depth as u32, self.way)?;
        self.connections += 1;
        self.counter = 0;
        let counter = self.source() + SOURCE;
        self.far.bytes(counter, 8).fill(0);
        (self.asked, self.sent) = Default::default();
        for place in 0..self.depth {
            self.receive(&queues, place)?;
        }
        let mut over = Vec::new();
        loop {
            while self.asked.len() < self.depth && Instant::now() < self.end {
                self.post(&queues)?;
            }
            if self.asked.is_empty() {
                let counted = u64::from_ne_bytes(self.far.bytes(counter, 8).try_into()?);
                if counted != self.counter {
                    println!(
                        "{} atomics have succeeded, {counted} were carried out",
                        self.counter
                    );
                }
                return Ok(());
            }
            queues.take(|wr_id, status| over.push((wr_id, status)))?;
            for (wr_id, status) in over.drain(..) {
                if status != WcStatus::Success {
                    let name = self
                        .asked
                        .front()
                        .map_or("-", |asked| &self.items[asked.item].name);
                    println!("connection {}: {name}: {status}", self.connections);
                    return Ok(());
                }
                match wr_id & RECEIVE {
                    0 => self.judge(wr_id),
                    _ => self.received(&queues, (wr_id ^ RECEIVE) as usize)?,
                }
            }
        }
    }
}
