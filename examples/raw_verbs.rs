//! A program that keeps its device, completion queue and queue pairs, and calls the verbs by rdma-sys
//! alone. From this crate it has the regions, and who holds them while the NIC works.
//!
//! ```text
//! cargo run --features verbs --example raw_verbs      on a machine with an RDMA device
//! ```
//!
//! Both ends are here, two queue pairs in loopback. First the hold itself is the `wr_id`: nothing to keep
//! beside the queue. Then a ring beside each queue, which knows what unsignalled work requests, lists and
//! the end of a queue pair mean for the holds.
//!
//! rdma-sys comes through `backend::verbs::sys`, so that its version is the crate's. A program that
//! depends on rdma-sys itself uses the same types.

#[path = "raw_verbs/queues.rs"]
mod queues;

use std::process::ExitCode;
use std::sync::Arc;

use queues::{Bad, Device, Queues, element, request};
use rdma_mr::backend::verbs::ProtectionDomain;
use rdma_mr::backend::verbs::sys::{ibv_send_flags, ibv_send_wr, ibv_wr_opcode, rdma_t, wr_t};
use rdma_mr::gate::Holder;
use rdma_mr::op::{Begin, Completer, Hold, OpId, Poster, recv_ring, send_ring};
use rdma_mr::work::SendFlags;
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrAccess, MrOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The two ends.
const A: usize = 0;
const B: usize = 1;

/// Work requests in each queue.
const DEPTH: u32 = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("raw_verbs: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let device = Device::open()?;
    // SAFETY: VPD-1: the device allocated it; VPD-2: what is handed over keeps the device open, until the
    // last region is gone, whichever is dropped first; VPD-3: nobody else deregisters here.
    let pd = unsafe { ProtectionDomain::adopt(device.pd(), Box::new(Arc::clone(&device))) }?;
    holds_as_ids(&device, &pd)?;
    rings(&device, &pd)?;
    let leaks = rdma_mr::leaks();
    if leaks != rdma_mr::Leaks::default() {
        return Err(format!("leaked: {leaks:?}").into());
    }
    println!("all went well, nothing leaked");
    Ok(())
}

/// A region that the peer may write to and use atomics on.
///
/// # Safety
/// REMOTE-1, REMOTE-2: while the peer may write there, a hold for writing is out.
unsafe fn open_to_peer(pd: &Arc<ProtectionDomain>, length: usize) -> Result<LocalMr, Failure> {
    // SAFETY: as required of the caller.
    let options = unsafe { MrOptions::new().grant_remote_write() };
    Ok(options.access(Access::all()).alloc(pd, length)?)
}

fn expect(what: &str, right: bool) -> Result<(), Failure> {
    match right {
        true => Ok(()),
        false => Err(format!("{what} is not what it should be").into()),
    }
}

// ---- The hold as the `wr_id` ---------------------------------------------------------------------

/// Posts with the hold as the `wr_id`. From then on nothing but that number in the queue owns the
/// region: the NIC has it, and `as_slice` waits.
fn post_send(queues: &Queues, hold: Hold, mut wr: ibv_send_wr) -> Result<(), Failure> {
    let mut list = element(hold.sge());
    wr.sg_list = &mut list;
    wr.num_sge = 1;
    wr.wr_id = hold.into_wr_id();
    // SAFETY: POST-1: the hold is out until `release` gets the completion.
    unsafe { queues.post_send(A, &mut wr) }.map_err(|(error, bad)| {
        if let Bad::At(wr_id) = bad {
            // SAFETY: WRID-1, WRID-2: made a moment ago, turned back here alone; WRID-3: not posted.
            drop(unsafe { Hold::from_wr_id(wr_id) });
        }
        error
    })
}

/// The same for a receive of B.
fn post_recv(queues: &Queues, hold: Hold) -> Result<(), Failure> {
    let sge = hold.sge();
    let wr_id = hold.into_wr_id();
    // SAFETY: POST-2: as above; the hold is one for writing, so nobody has the bytes.
    unsafe { queues.post_recv(B, wr_id, sge) }.inspect_err(|_| {
        // SAFETY: WRID-1 to WRID-3: as above.
        drop(unsafe { Hold::from_wr_id(wr_id) });
    })
}

/// What a program does with each completion, whatever its status: the work request is over.
fn release(queues: &Queues) {
    queues.poll(|wr_id, status| {
        // SAFETY: WRID-1: nothing else is posted to these queues; WRID-2: each has one completion;
        // WRID-3: polled just now.
        let hold = unsafe { Hold::from_wr_id(wr_id) };
        let what = match hold.holder() {
            Holder::NicRead => "read (a SEND or a WRITE)",
            _ => "written (a RECV, a READ or an atomic)",
        };
        println!("  completion: {status:?}, a region that the NIC has {what}");
    });
}

fn holds_as_ids(device: &Arc<Device>, pd: &Arc<ProtectionDomain>) -> Result<(), Failure> {
    println!("the hold as the wr_id:");
    let mut queues = Queues::new(device, DEPTH)?;
    let mut from = LocalMr::alloc(pd, 64)?;
    let to = LocalMr::alloc(pd, 64)?;
    from.as_mut_slice().fill(7);

    // The NIC writes into a receive: exclusive. It reads what is sent: shared, beside readers.
    post_recv(&queues, to.begin_write()?)?;
    post_send(
        &queues,
        from.begin_read()?,
        request(ibv_wr_opcode::IBV_WR_SEND),
    )?;
    expect("a region that is read twice", from.as_slice()[0] == 7)?;
    expect(
        "a receive that can be read early",
        to.try_as_slice().is_none(),
    )?;
    // This thread polls, so a plain `as_slice` would wait for itself.
    let received = to.as_slice_with(|| release(&queues));
    expect("what was received", *received == *from.as_slice())?;
    drop(received);

    // READ: B has the bytes, and lets A read them for good (REMOTE_READ is safe).
    let readable = Access::LOCAL_WRITE | Access::REMOTE_READ;
    let mut theirs = MrOptions::new().access(readable).alloc(pd, 64)?;
    theirs.as_mut_slice().fill(8);
    let mut read = request(ibv_wr_opcode::IBV_WR_RDMA_READ);
    read.wr = at(&theirs, 0);
    post_send(&queues, to.begin_write_with(|| release(&queues))?, read)?;
    let got = to.as_slice_with(|| release(&queues));
    expect("what was read", *got == *theirs.as_slice())?;
    drop(got);

    // FETCH_ADD on an integer of B's, which holds it for as long as A may write there.
    // SAFETY: REMOTE-1, REMOTE-2: `granted` is out until the completion.
    let mut counter = unsafe { open_to_peer(pd, 8) }?;
    counter
        .as_mut_slice()
        .copy_from_slice(&40_u64.to_ne_bytes());
    let granted = counter.begin_write()?;
    let old = LocalMr::alloc(pd, 8)?;
    let mut add = request(ibv_wr_opcode::IBV_WR_ATOMIC_FETCH_AND_ADD);
    add.wr.atomic.remote_addr = counter.addr() as u64;
    add.wr.atomic.rkey = counter.rkey();
    add.wr.atomic.compare_add = 2;
    post_send(&queues, old.begin_write()?, add)?;
    let before = *old.as_slice_with(|| release(&queues)) == 40_u64.to_ne_bytes();
    drop(granted);
    expect("the integer before", before)?;
    expect(
        "the integer after",
        *counter.as_slice() == 42_u64.to_ne_bytes(),
    )?;
    // The send's hold may be out still; the completions that are left release it.
    drop(from.as_mut_slice_with(|| release(&queues)));
    queues.destroy_queue_pairs()?;
    println!("  SEND, RECV, READ and FETCH_ADD: the bytes are right");
    Ok(())
}

/// The bytes from `offset` on, as the target of a WRITE or READ.
fn at(mr: &LocalMr, offset: usize) -> wr_t {
    wr_t {
        rdma: rdma_t {
            remote_addr: (mr.addr() + offset) as u64,
            rkey: mr.rkey(),
        },
    }
}

// ---- A ring beside each queue --------------------------------------------------------------------

/// The completing sides, and what was polled. (With more queues than two, `op::Dispatch` finds the right
/// one.)
struct Completions<'q> {
    queues: &'q Queues,
    sends: Completer,
    recvs: Completer,
    polled: usize,
    released: usize,
}

impl Completions<'_> {
    fn progress(&mut self) {
        let Self {
            sends,
            recvs,
            polled,
            released,
            ..
        } = self;
        self.queues.poll(|wr_id, status| {
            let ring = match OpId::from_wr_id(wr_id).is_recv() {
                true => &mut *recvs,
                false => &mut *sends,
            };
            // SAFETY: COMPLETE-1: polled just now; all that is posted goes through these two rings.
            match unsafe { ring.complete(wr_id, status) } {
                Ok(over) => *released += over.count(),
                // It belongs to nothing: it releases nothing.
                Err(error) => println!("  {error}"),
            }
            *polled += 1;
        });
    }
}

/// Posts one WRITE: prepare, post, commit (rule R10).
fn write(
    queues: &Queues,
    poster: &mut Poster,
    hold: Hold,
    remote: wr_t,
    flags: SendFlags,
) -> Result<(), Failure> {
    // Refuses when the queue is full, or would be full of unsignalled work requests, before anything is
    // posted; the hold comes back in the error.
    let prepared = poster.prepare(hold, flags)?;
    let mut list = element(prepared.sges()[0]);
    let mut wr = request(ibv_wr_opcode::IBV_WR_RDMA_WRITE);
    wr.wr_id = prepared.wr_id();
    wr.sg_list = &mut list;
    wr.num_sge = 1;
    wr.send_flags = flags.bits();
    wr.wr = remote;
    // SAFETY: POST-1: after the commit the ring has the hold.
    match unsafe { queues.post_send(A, &mut wr) } {
        // Dropped, `prepared` takes the work request back, and gives the hold back.
        Err((error, Bad::At(_))) => return Err(error),
        Err((error, Bad::Unknown)) => {
            prepared.commit();
            return Err(error);
        }
        Ok(()) => prepared.commit(),
    };
    Ok(())
}

fn rings(device: &Arc<Device>, pd: &Arc<ProtectionDomain>) -> Result<(), Failure> {
    println!("a ring beside each queue:");
    // Before the queues, so that they are dropped after them, whatever goes wrong: then no WRITE is under
    // way any more.
    // SAFETY: REMOTE-1, REMOTE-2: `granted` is out until all of A's WRITEs have completed, or the queue
    // pair is gone.
    let target = unsafe { open_to_peer(pd, 64 * 64) }?;
    let granted = target.begin_write()?;
    let mut queues = Queues::new(device, DEPTH)?;
    let (mut posts, sends) = send_ring(DEPTH, 1);
    let (mut receives, recvs) = recv_ring(DEPTH, 1);
    let mut done = Completions {
        queues: &queues,
        sends,
        recvs,
        polled: 0,
        released: 0,
    };
    // 16 slots over one registration, with a gate each: to fill one waits for its own WRITE alone.
    let mut slots: Vec<LocalMr> = LocalMr::alloc(pd, 16 * 64)?.chunks_of(64)?.collect();

    // One in 16 asks for a completion, which releases those before it as well.
    for n in 0..64_usize {
        let slot = &mut slots[n % 16];
        slot.as_mut_slice_with(|| done.progress()).fill(n as u8);
        let flags = match n % 16 {
            15 => SendFlags::SIGNALED,
            _ => SendFlags::empty(),
        };
        write(
            &queues,
            &mut posts,
            slot.begin_read()?,
            at(&target, n * 64),
            flags,
        )?;
    }
    slots
        .iter_mut()
        .for_each(|slot| drop(slot.as_mut_slice_with(|| done.progress())));
    println!(
        "  64 WRITEs: {} completions released {} holds",
        done.polled, done.released
    );
    expect(
        "the count of completions",
        (done.polled, done.released) == (4, 64),
    )?;

    chain(&queues, &mut posts, &mut done, &slots, &target)?;

    // All WRITEs have completed here. A peer in another process would be told by a message.
    drop(granted);
    let written = target.as_slice();
    let right = written.chunks(64).enumerate().all(|(n, slot)| {
        let want = if n < 2 { 48 + n } else { n } as u8;
        slot.iter().all(|byte| *byte == want)
    });
    expect("what was written", right)?;

    // A receive that nothing comes for. Neither a timeout nor the state ERR ends it: the bytes may
    // change until the queue pair has been destroyed (rule R11).
    let waiting = LocalMr::alloc(pd, 64)?;
    let prepared = receives.prepare(waiting.begin_write()?, SendFlags::SIGNALED)?;
    // SAFETY: POST-2: the ring has the hold until the end of the queue pair.
    unsafe { queues.post_recv(B, prepared.wr_id(), prepared.sges()[0]) }?;
    prepared.commit();
    expect("a region with a receive", waiting.try_as_slice().is_none())?;
    let Completions { sends, recvs, .. } = done;
    // If the provider refuses, return: the rings are dropped then, which keeps what is outstanding held
    // for ever, and counts it in `leaks()`.
    queues.destroy_queue_pairs()?;
    // SAFETY: COMPLETE-2: both were destroyed, and nothing is prepared.
    let released = unsafe { sends.release_all() + recvs.release_all() };
    expect(
        "what the end released",
        released == 1 && waiting.state().is_free(),
    )?;
    println!("  queue pairs destroyed: {released} outstanding hold released");
    Ok(())
}

/// A list of four in one post, of which the third is bad: it has more elements than the queue takes.
fn chain(
    queues: &Queues,
    posts: &mut Poster,
    done: &mut Completions<'_>,
    slots: &[LocalMr],
    target: &LocalMr,
) -> Result<(), Failure> {
    let mut lists = [const { Vec::new() }; 4];
    let mut wrs = [(); 4].map(|()| request(ibv_wr_opcode::IBV_WR_RDMA_WRITE));
    let mut chain = posts.chain();
    for (n, wr) in wrs.iter_mut().enumerate() {
        let hold = slots[n].begin_read()?;
        let elements = if n == 2 { queues.max_send_sge() + 1 } else { 1 };
        lists[n] = vec![element(hold.sge()); elements as usize];
        wr.wr_id = chain.push(hold, SendFlags::SIGNALED)?.wr_id();
        wr.sg_list = lists[n].as_mut_ptr();
        wr.num_sge = elements as i32;
        wr.send_flags = ibv_send_flags::IBV_SEND_SIGNALED.0;
        wr.wr = at(target, n * 64);
    }
    let first = wrs.as_mut_ptr();
    for n in 0..3 {
        // SAFETY: elements of the array, by the one pointer that the provider gets as well.
        unsafe { (*first.add(n)).next = first.add(n + 1) };
    }
    // SAFETY: POST-1: the chain has the holds, and keeps those of what is posted.
    let Err((_, Bad::At(wr_id))) = (unsafe { queues.post_send(A, first) }) else {
        // All of it may have been posted: then all holds stay, until completions or the end.
        chain.commit();
        return Err("the provider took a list with a bad work request, or did not name it".into());
    };
    chain.commit_before(OpId::from_wr_id(wr_id))?;
    let free = slots.iter().take(4).map(|slot| slot.state().is_free());
    expect(
        "who is held after a bad work request",
        free.skip(2).all(|free| free),
    )?;
    for slot in &slots[..2] {
        drop(slot.begin_write_with(|| done.progress())?);
    }
    println!("  a list of 4 with a bad third: 2 posted and completed, 2 holds given back at once");
    Ok(())
}
