//! Any work requests at the NIC in software, and registrations that come and go, against a model that does the same a
//! step at a time: every byte of the memory, every completion and its status, every refusal of a post.

mod memory;
mod model;
mod program;

use std::collections::VecDeque;
use std::sync::Arc;

use rdma_mr::Access;
use rdma_mr::backend::soft::{CompletionQueue, Nic, ProtectionDomain, QueuePair};
use rdma_mr::registration::{Deregister, Registrar};
use rdma_mr::work::{
    CompletionQueue as _, QpCaps, QueuePair as _, RecvWr, RemoteAddr, SendFlags, SendOp, SendWr,
    Sge, WorkCompletion,
};

use crate::place;
use memory::{LENGTH, Memory};
use model::{End, Model, Recv, Registration, Send};
pub use program::Program;
use program::{Addr, Element, Grant, Length, Op, Step, Twist};

/// The most registrations of a program.
const KEYS: usize = 16;
const CAPS: QpCaps = QpCaps {
    max_send_wr: 4,
    max_recv_wr: 4,
    max_send_sge: 3,
    max_recv_sge: 3,
    max_inline: 16,
};

struct World {
    handles: Vec<Option<Box<dyn Deregister>>>,
    first: QueuePair,
    second: QueuePair,
    cqs: [CompletionQueue; 4],
    domains: [Arc<ProtectionDomain>; 2],
    nic: Nic,
    memory: Memory,
    model: Model,
    next: u64,
    /// Places in the queues that have not come back: a completion brings those up to its own.
    taken: [usize; 2],
}

impl World {
    fn new() -> Self {
        let nic = Nic::builder().stepped().build();
        let domains = [nic.alloc_pd(), nic.alloc_pd()];
        let cqs = [(); 4].map(|()| nic.create_cq(16).expect("16 completions"));
        let create = |of: usize| {
            let (sends, recvs) = (&cqs[2 * of], &cqs[2 * of + 1]);
            domains[of].create_qp(sends, recvs, CAPS).expect("small")
        };
        let (first, second) = (create(0), create(1));
        QueuePair::connect_pair(&first, &second).expect("new ones");
        let memory = Memory::new();
        let model = Model {
            base: memory.addr(),
            memory: memory.bytes(),
            registrations: Vec::new(),
            sends: VecDeque::new(),
            recvs: VecDeque::new(),
            failed: [false; 2],
            retries: None,
            tries: 0,
            sent: Vec::new(),
            received: Vec::new(),
        };
        World {
            handles: Vec::new(),
            first,
            second,
            cqs,
            domains,
            nic,
            memory,
            model,
            next: 0,
            taken: [0; 2],
        }
    }

    fn register(&mut self, grant: Grant) {
        if self.handles.len() == KEYS {
            return;
        }
        let start = usize::from(grant.start) % LENGTH;
        let length = usize::from(grant.length).min(LENGTH - start);
        let access = Access::from_bits_retain(u32::from(grant.access) & 0x1f);
        let domain = usize::from(grant.second);
        // SAFETY: REG-4: the memory is freed after all registrations have ended, and can be written.
        let got = unsafe { self.domains[domain].register(self.memory.at(start), length, access) };
        let known = Access::all().contains(access);
        let allowed = length > 0 && known && access.validate().is_ok();
        assert_eq!(got.is_ok(), allowed, "{length} bytes, {access:?}");
        if let Ok(registered) = got {
            self.model.registrations.push(Registration {
                range: start..start + length,
                access,
                domain,
                lkey: registered.lkey,
                rkey: registered.rkey,
                live: true,
            });
            self.handles.push(Some(registered.handle));
        }
    }

    fn deregister(&mut self, at: usize) {
        if let Some(mut handle) = self.handles[at].take() {
            handle.deregister().expect("no fault was injected");
            self.model.registrations[at].live = false;
        }
    }

    /// Where that is if it is of so many bytes, and by which key; the remote one if `remote`.
    fn locate(&self, addr: Addr, length: u64, remote: bool) -> (u64, u32) {
        let Some(at) = place(addr.registration, self.handles.len()) else {
            return (self.model.base, 0);
        };
        let one = &self.model.registrations[at];
        let keys = [one.lkey, one.rkey];
        let mut key = keys[usize::from(remote)];
        let start = self.model.base + one.range.start as u64;
        let mut named = start.wrapping_add_signed(addr.offset.into());
        match addr.twist {
            Twist::None => {}
            Twist::Aligned => named &= !7,
            Twist::End(over) => named = near(self.end_of(at), over).wrapping_sub(length),
            Twist::OtherKey => key = keys[usize::from(!remote)],
            Twist::KeyBit(bit) => key ^= 1 << (bit % 32),
            Twist::Key(any) => key = any,
            Twist::Addr(any) => named = any,
        }
        (named, key)
    }

    fn end_of(&self, registration: usize) -> u64 {
        self.model.base + self.model.registrations[registration].range.end as u64
    }

    fn elements(&self, given: &[Option<Element>]) -> Vec<Sge> {
        let element = |element: &Element| {
            let length = match element.length {
                Length::Short(length) => u32::from(length % 48),
                Length::Eight => 8,
                Length::Long(length) => length,
                Length::End(_) => 1,
            };
            let (addr, lkey) = self.locate(element.addr, length.into(), false);
            let registration = place(element.addr.registration, self.handles.len());
            let length = match (element.length, registration) {
                (Length::End(over), Some(at)) => {
                    near(self.end_of(at), over).wrapping_sub(addr) as u32
                }
                _ => length,
            };
            Sge { addr, length, lkey }
        };
        given.iter().flatten().map(element).collect()
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn send(&mut self, op: Op, flags: u8, given: &[Option<Element>]) {
        let elements = self.elements(given);
        let length = elements.iter().map(|sge| u64::from(sge.length)).sum();
        let remote = |addr| {
            let (addr, rkey) = self.locate(addr, length, true);
            RemoteAddr { addr, rkey }
        };
        let op = match op {
            Op::Send(imm) => SendOp::Send { imm },
            Op::Write(addr, imm) => SendOp::Write {
                remote: remote(addr),
                imm,
            },
            Op::Read(addr) => SendOp::Read {
                remote: remote(addr),
            },
            Op::Add(addr, add) => SendOp::FetchAdd {
                remote: remote(addr),
                add,
            },
            Op::Swap(addr, compare, swap) => SendOp::CompareSwap {
                remote: remote(addr),
                compare,
                swap,
            },
        };
        let mut flags = SendFlags::from_bits_truncate(flags.into());
        let inside = |sge: &Sge| {
            let start = sge.addr.wrapping_sub(self.model.base);
            start.saturating_add(sge.length.into()) <= LENGTH as u64
        };
        // An inline one is read by the post, so that its addresses have to be good (POST-1).
        flags.set(
            SendFlags::INLINE,
            flags.contains(SendFlags::INLINE) && elements.iter().all(inside),
        );
        let wr_id = self.next_id();
        let wr = SendWr {
            wr_id,
            sge: &elements,
            op,
            flags,
        };
        // SAFETY: POST-1: all that registrations name is in the memory, which lives longer and is seen by
        // pointer only.
        let posted = unsafe { self.first.post_send(&wr) };
        let takes = self.takes(&op, flags, &elements);
        assert_eq!(posted.is_ok(), takes, "{posted:?} {wr:?}");
        if takes {
            let inline = elements
                .iter()
                .filter(|_| flags.contains(SendFlags::INLINE));
            let bytes = |sge: &Sge| {
                let start = sge.addr.wrapping_sub(self.model.base) as usize;
                self.model.memory[start..][..sge.length as usize].to_vec()
            };
            let inline = inline.flat_map(bytes).collect();
            self.taken[0] += 1;
            self.model.sends.push_back(Send {
                wr_id,
                op,
                flags,
                elements,
                inline,
            });
        }
    }

    /// Whether the queue takes that.
    fn takes(&self, op: &SendOp, flags: SendFlags, elements: &[Sge]) -> bool {
        let length: u64 = elements.iter().map(|sge| u64::from(sge.length)).sum();
        let inline = flags.contains(SendFlags::INLINE);
        let atomic = op.remote().filter(|_| op.is_atomic());
        elements.len() <= 3
            && length <= 1 << 31
            && atomic.is_none_or(|remote| length == 8 && remote.addr % 8 == 0)
            && !(inline && (op.writes_locally() || length > 16))
            && self.taken[0] < 4
    }

    fn recv(&mut self, given: &[Option<Element>]) {
        let elements = self.elements(given);
        let wr_id = self.next_id();
        let wr = RecvWr {
            wr_id,
            sge: &elements,
        };
        // SAFETY: POST-2: as in `send`.
        let posted = unsafe { self.second.post_recv(&wr) };
        let length: u64 = elements.iter().map(|sge| u64::from(sge.length)).sum();
        let takes = elements.len() <= 3 && length <= 1 << 31 && self.taken[1] < 4;
        assert_eq!(posted.is_ok(), takes, "{posted:?} {wr:?}");
        if takes {
            self.taken[1] += 1;
            self.model.recvs.push_back(Recv { wr_id, elements });
        }
    }

    /// One step of the NIC, which may be either queue pair's: what is told says whose.
    fn nic(&mut self) -> bool {
        let acted = self.nic.step();
        let [sent, nothing, none, received] = [0, 1, 2, 3].map(|at| drain(&self.cqs[at]));
        assert!(nothing.is_empty() && none.is_empty());
        let real = self.memory.bytes();
        let flushed = self.model.failed[1] && !received.is_empty();
        let expected = match flushed {
            true => self.model.second(),
            false => self.model.first(&real),
        };
        assert_eq!(acted, expected);
        assert_eq!(real, self.model.memory);
        let ends = [
            std::mem::take(&mut self.model.sent),
            std::mem::take(&mut self.model.received),
        ];
        for (told, expected) in [sent, received].into_iter().zip(&ends) {
            assert_eq!(told.len(), expected.len(), "{told:?} {expected:?}");
            for (told, expected) in told.iter().zip(expected) {
                check_end(told, expected);
            }
        }
        if !ends[0].is_empty() {
            self.taken[0] = self.model.sends.len();
        }
        self.taken[1] = self.model.recvs.len();
        acted
    }

    fn fail(&mut self, second: bool) {
        match second {
            true => self.second.modify_to_error(),
            false => self.first.modify_to_error(),
        }
        self.model.failed[usize::from(second)] = true;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Register(grant) => self.register(grant),
            Step::Deregister(at) => {
                if let Some(at) = place(at, self.handles.len()) {
                    self.deregister(at);
                }
            }
            Step::Send {
                op,
                flags,
                elements,
            } => self.send(op, flags, &elements),
            Step::Recv(elements) => self.recv(&elements),
            Step::Nic => drop(self.nic()),
            Step::Fail { second } => self.fail(second),
            Step::Retries(retries) => {
                let retries = retries % 8;
                self.first.set_rnr_retry(retries);
                self.model.retries = (retries < 7).then_some(retries.into());
            }
        }
    }
}

/// The address, or one of those beside it.
fn near(addr: u64, offset: i8) -> u64 {
    addr.wrapping_add_signed(i64::from(offset % 3))
}

fn drain(cq: &CompletionQueue) -> Vec<WorkCompletion> {
    let mut out = [WorkCompletion::EMPTY; 4];
    let count = cq.poll(&mut out).expect("it has room for all");
    out[..count].to_vec()
}

fn check_end(told: &WorkCompletion, expected: &End) {
    assert_eq!((told.wr_id, told.status), (expected.wr_id, expected.status));
    assert_eq!(told.imm, expected.imm);
    if let Some(length) = expected.byte_len {
        assert_eq!(u64::from(told.byte_len), length);
    }
}

/// Carries it out.
///
/// # Panics
/// If the NIC does what the model does not.
pub fn run(program: Program) {
    let mut world = World::new();
    for grant in program.grants {
        world.register(grant);
    }
    for step in program.steps {
        world.step(step);
    }
    // Each that was posted gets its completion.
    world.fail(false);
    world.fail(true);
    while world.nic() {}
    assert!(world.model.sends.is_empty() && world.model.recvs.is_empty());
    (0..world.handles.len()).for_each(|at| world.deregister(at));
    assert_eq!(world.nic.stats().registrations, 0);
}
