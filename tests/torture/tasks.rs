//! Operations as futures, dropped and forgotten at any time, on an executor that polls whoever was
//! woken.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::gate::Holder;
use rdma_mr::op::{AsyncQueuePair, Begin, Done, Endpoint, Hold};
use rdma_mr::work::{SendFlags, SendOp, WcStatus};
use rdma_mr::{Error, LocalMr, Result};

use super::holds::{any, poll_some};
use super::lane::{CAPS, owner};
use super::ops::{LONGEST, What, plan_of, prepare, shape, unique_imm};
use super::random::Random;
use super::record::{Bytes, Effect, Inbox, Outcome, Pair, Record};
use super::region::{Handle, Region};
use super::report::{count, fail, lock};
use super::rotation::rotate;
use super::{Victim, World, forget};

/// What the futures of two queue pairs share. A forgotten future may own nothing: it would be lost.
struct Round<'w, F: Victim> {
    world: &'w World<F>,
    qps: [AsyncQueuePair<F::Qp>; 2],
    inboxes: [Arc<Inbox>; 2],
    pair: Arc<Pair>,
    records: RefCell<HashMap<u64, Record>>,
    random: RefCell<Random>,
}

/// Bytes of a region whose handle is there for as long as the future.
struct Place<'h> {
    region: &'h Arc<Region>,
    range: Range<usize>,
    mr: &'h LocalMr,
    /// Nobody else uses it.
    alone: bool,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task<'r> {
    future: Pin<Box<dyn Future<Output = ()> + 'r>>,
    woken: Arc<Woken>,
    /// Polls until it is dropped or forgotten.
    left: usize,
    /// A future that waits for room has a hold, which would be lost with it.
    has_waited_for_room: bool,
}

impl Task<'_> {
    /// Whether it is over.
    fn poll(&mut self) -> bool {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        self.future.as_mut().poll(&mut context).is_ready()
    }

    fn cancel(mut self, random: &mut Random) {
        let was_woken = self.woken.0.load(Ordering::SeqCst);
        if !was_woken && self.left == 0 && self.poll() {
            // Its waker may be called just now.
            let start = Instant::now();
            while !self.woken.0.load(Ordering::SeqCst) {
                thread::yield_now();
                if start.elapsed() > Duration::from_secs(2) {
                    return fail("a future was ready, and had not been woken");
                }
            }
            return;
        }
        if random.once_in(2) && !self.has_waited_for_room {
            count("cancel operation's future forgotten");
            forget(self.future);
        } else {
            count("cancel operation's future dropped");
        }
    }
}

impl<F: Victim> Round<'_, F> {
    fn is_full(&self) -> bool {
        let full = |qp: &AsyncQueuePair<F::Qp>| {
            let (sends, recvs) = qp.outstanding();
            sends >= CAPS.max_send_wr as usize || recvs >= CAPS.max_recv_wr as usize
        };
        self.qps.iter().any(full)
    }

    /// Keeps the record where it is not lost, and gives its name.
    fn keep(&self, record: Record) -> u64 {
        let key = owner();
        self.records.borrow_mut().insert(key, record);
        key
    }

    fn ended(&self, key: u64, result: Result<Done>) {
        let Some(record) = self.records.borrow_mut().remove(&key) else {
            return fail("a future was ready twice");
        };
        let outcome = |status| Outcome {
            status,
            byte_len: 0,
            imm: None,
            sequence: 0,
        };
        match result {
            Ok(done) => record.complete(&Outcome {
                byte_len: done.byte_len,
                imm: done.imm,
                ..outcome(WcStatus::Success)
            }),
            Err(Error::OperationFailed { status, .. }) => record.complete(&outcome(status)),
            Err(Error::QueuePairGone | Error::CompletionsLost) => record.unknown(),
            Err(_) => {
                count("refused by a future");
                record.cancel();
            }
        }
    }

    async fn recv(&self, side: usize, place: Place<'_>) {
        let qp = &self.qps[side];
        let mut record = Record::new("op future RECV", 0, Some(Arc::clone(&self.pair)));
        record.inbox = Some(Arc::clone(&self.inboxes[side]));
        let hold = match place.hold(Holder::NicWrite).await {
            Ok(hold) => hold,
            Err(()) => return,
        };
        // SAFETY: the hold is exclusive and nothing is posted; or nobody else uses the region.
        record.to = Some(unsafe { Effect::begin(&[place.bytes()], &[place.mr], None) });
        let key = self.keep(record);
        let result = match hold {
            Some(hold) => qp.recv_held(hold).await,
            None => qp.recv(place.mr).await,
        };
        self.ended(key, result);
    }

    async fn send(&self, side: usize, what: What, place: Place<'_>) {
        let qp = &self.qps[side];
        let (_, holder) = shape(what, false, &mut self.random.borrow_mut());
        let hold = match place.hold(holder).await {
            Ok(hold) => hold,
            Err(()) => return,
        };
        let Some((key, op)) = self.prepare(side, what, &place) else {
            return;
        };
        let mr = place.mr;
        let result = match (hold, op) {
            (Some(hold), _) => qp.post(hold, op, SendFlags::empty()).await,
            (None, SendOp::Send { imm }) => qp.send(mr, imm).await,
            (None, SendOp::Write { remote, imm: None }) => qp.write(mr, remote).await,
            (None, SendOp::Write { remote, imm }) => {
                qp.write_with_imm(mr, remote, imm.unwrap_or(0)).await
            }
            (None, SendOp::Read { remote }) => qp.read(mr, remote).await,
            (None, _) => unreachable!("integers are parts of regions"),
        };
        self.ended(key, result);
    }

    fn prepare(&self, side: usize, what: What, place: &Place<'_>) -> Option<(u64, SendOp)> {
        let record = Record::new("", 0, Some(Arc::clone(&self.pair)));
        let random = &mut *self.random.borrow_mut();
        let (bytes, mrs) = ([place.bytes()], [place.mr]);
        let mut plan = prepare(self.world, what, record, &bytes, &mrs, random)?;
        plan.record.kind = match what {
            What::Send => "op future SEND",
            What::Write => "op future WRITE",
            What::WriteImm => "op future WRITE_WITH_IMM",
            What::Read => "op future READ",
            What::FetchAdd => "op future FETCH_ADD",
            What::CompareSwap => "op future CMP_SWAP",
        };
        if let Some(mut message) = plan.message {
            let key = *message.imm.get_or_insert_with(unique_imm);
            if let SendOp::Send { imm } = &mut plan.op {
                *imm = Some(key);
            }
            lock(&self.inboxes[1 - side].messages).insert(key.into(), message);
        }
        if random.once_in(60) {
            self.pair.spoil(&mut plan.op);
        }
        Some((self.keep(plan.record), plan.op))
    }
}

impl Place<'_> {
    fn bytes(&self) -> Bytes {
        Bytes {
            region: Arc::clone(self.region),
            range: self.range.clone(),
        }
    }

    /// The hold, if others use the region as well; it may be that the region is closed.
    async fn hold(&self, holder: Holder) -> std::result::Result<Option<Hold>, ()> {
        if self.alone {
            return Ok(None);
        }
        let slice = self.mr.get(self.range.clone()).map_err(drop)?;
        let hold = match holder {
            Holder::NicWrite => slice.begin_write_async().await,
            _ => slice.begin_read_async().await,
        };
        hold.map(Some).map_err(drop)
    }
}

/// Two new queue pairs, some futures on them, and the end.
pub fn round<F: Victim>(world: &World<F>, random: &mut Random) {
    let cq = world.tasks.cq();
    let [a, b] = [(); 2].map(|()| world.fabric.qp(cq, cq, CAPS));
    world.fabric.connect(&a, &b);
    let attach = |qp| {
        let endpoint = Endpoint::attach(qp, &world.tasks).map_err(|rejected| rejected.error);
        AsyncQueuePair::new(endpoint.unwrap())
    };
    let round = Round {
        world,
        qps: [attach(a), attach(b)],
        inboxes: [Inbox::by_imm(), Inbox::by_imm()],
        pair: Arc::new(Pair::new(world.role, false)),
        records: RefCell::default(),
        random: RefCell::new(Random(random.next())),
    };
    let regions: Vec<(Arc<Region>, usize, Option<What>, bool)> = (0..random.within(8..48))
        .filter_map(|_| choose(world, random))
        .collect();
    let handles: Vec<Option<Handle<'_>>> = regions.iter().map(|(of, ..)| of.handle()).collect();
    let places = regions.iter().zip(&handles).filter_map(|(region, handle)| {
        let (region, length, what, alone) = region;
        let mr = handle.as_ref()?.mr();
        let length = if *alone { region.length } else { *length };
        let place = Place {
            region,
            range: any(Arc::clone(region), length, random)?.range,
            mr,
            alone: *alone,
        };
        Some((place, *what, random.below(2), random.below(40)))
    });
    let mut tasks: Vec<Task<'_>> = Vec::new();
    for (place, what, side, polls) in places {
        let round = &round;
        let future: Pin<Box<dyn Future<Output = ()>>> = match what {
            None => Box::pin(round.recv(side, place)),
            Some(what) => Box::pin(round.send(side, what, place)),
        };
        tasks.push(Task {
            future,
            woken: Arc::new(Woken(AtomicBool::new(true))),
            // Some right away, most not at all.
            left: if polls < 10 { polls } else { 1000 },
            has_waited_for_room: false,
        });
    }
    run(&round, &handles, &mut tasks, random);
    tasks.into_iter().for_each(|task| task.cancel(random));
    drop(handles);
    end(round, random);
    for (region, _, _, alone) in regions {
        let Some(handle) = region.handle().filter(|_| alone) else {
            continue;
        };
        if !handle.mr().state().is_free() {
            fail(format_args!("held after the end: {:?}", handle.mr()));
        }
        region.look("after the end of its queue pair");
    }
    count("pair futures");
}

/// A region and what is to be done with it; `None` is a receive.
fn choose<F: Victim>(
    world: &World<F>,
    random: &mut Random,
) -> Option<(Arc<Region>, usize, Option<What>, bool)> {
    let what = random.pick(&[
        None,
        None,
        None,
        Some(What::Send),
        Some(What::Send),
        Some(What::Write),
        Some(What::WriteImm),
        Some(What::Read),
        Some(What::FetchAdd),
        Some(What::CompareSwap),
    ]);
    let length = match what {
        None => LONGEST,
        Some(what) => shape(what, false, random).0.min(LONGEST),
    };
    let integer = matches!(what, Some(What::FetchAdd | What::CompareSwap));
    let alone = random.once_in(3) && !integer;
    if alone {
        let length = if what.is_some() { 1600 } else { LONGEST };
        return Some((world.pool.make(length, random)?, length, what, true));
    }
    let mut plan = plan_of(world, what.unwrap_or(What::Send), length, random)?;
    plan.truncate(1);
    let bytes = plan.pop()?;
    let length = match what {
        None if bytes.region.length < LONGEST => return None,
        None => LONGEST,
        Some(_) => bytes.range.len(),
    };
    Some((bytes.region, length, what, false))
}

/// Polls whoever was woken, and others now and then, for a while; keys change meanwhile.
fn run<'r, F: Victim>(
    round: &'r Round<'_, F>,
    handles: &[Option<Handle<'_>>],
    tasks: &mut Vec<Task<'r>>,
    random: &mut Random,
) {
    let deadline = Instant::now() + F::PATIENCE;
    while !tasks.is_empty() && Instant::now() < deadline {
        if random.once_in(20) {
            let at = random.below(handles.len());
            let mr = handles[at].as_ref().map(Handle::mr);
            mr.inspect(|mr| rotate(mr, round.world.role, random));
        }
        let mut at = 0;
        while at < tasks.len() {
            let task = &mut tasks[at];
            let woken = task.woken.0.load(Ordering::SeqCst);
            if !woken && !random.once_in(50) {
                at += 1;
                continue;
            }
            if task.left == 0 {
                tasks.swap_remove(at).cancel(random);
                continue;
            }
            task.left -= 1;
            task.has_waited_for_room |= round.is_full();
            if task.poll() {
                drop(tasks.swap_remove(at));
            } else {
                at += 1;
            }
        }
        thread::sleep(Duration::from_micros(50));
    }
    for task in tasks {
        task.left = 0;
        task.has_waited_for_room |= round.is_full();
    }
}

/// Ends both queue pairs; what is left was abandoned.
fn end<F: Victim>(round: Round<'_, F>, random: &mut Random) {
    for qp in round.qps {
        let soon = Duration::from_micros(random.below(2000) as u64);
        match random.below(5) {
            0 => drop(qp),
            1 => drop(qp.into_endpoint().close()),
            2 => drop(qp.drain()),
            3 => {
                let drained = qp.drain().until(Instant::now() + soon);
                if drained.leaked > 0 {
                    fail(format_args!("{drained:?}"));
                }
            }
            _ => drop(poll_some(pin!(qp.drain()), random.below(30))),
        }
    }
    for record in round.records.into_inner().into_values() {
        record.unknown();
    }
    for (effect, holds) in std::mem::take(&mut *lock(&round.pair.until_the_end)) {
        effect.iter().for_each(Effect::fail);
        drop(holds);
    }
}
