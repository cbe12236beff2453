//! Memory that a program has registered by rdma-sys, adopted: from then on operations hold it, and it
//! ends when the last of them is over.
//!
//! ```text
//! cargo run --features verbs --example adopt_rdma_sys      on a machine with an RDMA device
//! ```
//!
//! The queues are the program's own, too: those of `raw_verbs`. `adopt_sideway`, a crate beside this one,
//! does the same with the `sideway` binding.

#[allow(dead_code, reason = "`raw_verbs` uses all of it")]
#[path = "raw_verbs/queues.rs"]
mod queues;

use std::io;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::Arc;

use queues::{Device, Queues, element, request};
use rdma_mr::backend::verbs::sys::{
    ibv_access_flags, ibv_dereg_mr, ibv_mr, ibv_reg_mr, ibv_wr_opcode,
};
use rdma_mr::backend::verbs::{lent_mr, owned_mr};
use rdma_mr::op::{Begin, Hold};
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The two ends.
const A: usize = 0;
const B: usize = 1;

const LENGTH: usize = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("adopt_rdma_sys: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Registers memory as any program does: `ibv_reg_mr` with local write, and nothing for peers.
fn register(device: &Device, memory: &mut Vec<u8>) -> Result<NonNull<ibv_mr>, Failure> {
    let rights = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 as i32;
    let addr = memory.as_mut_ptr().cast();
    // SAFETY: the protection domain is alive; the memory outlives the registration, see the callers.
    let mr = unsafe { ibv_reg_mr(device.pd(), addr, memory.len(), rights) };
    Ok(NonNull::new(mr).ok_or_else(io::Error::last_os_error)?)
}

/// What keeps an MR that is deregistered by the region. Dropped in this order.
struct Parts {
    memory: Vec<u8>,
    _device: Arc<Device>,
}

/// The MR handed over for good: `ibv_dereg_mr` is called when the region ends.
fn hand_over(device: &Arc<Device>) -> Result<LocalMr, Failure> {
    let mut memory = vec![0; LENGTH];
    let mr = register(device, &mut memory)?;
    let keepalive = Parts {
        memory,
        _device: Arc::clone(device),
    };
    // SAFETY: VMR-1: registered a moment ago; VMR-2: nobody else has it; the keepalive has the device.
    let adoption = unsafe { owned_mr(mr.as_ptr()) }?;
    // SAFETY: ADOPT-1: the keepalive has the memory, and a `Vec` does not move it; ADOPT-2: registered so
    // above; ADOPT-3: nobody else has either.
    Ok(unsafe { MrOptions::new().adopt(adoption, keepalive) }?)
}

/// An MR of a type of the program's own, which deregisters it when it is dropped.
struct OwnMr {
    mr: NonNull<ibv_mr>,
    _memory: Vec<u8>,
    _device: Arc<Device>,
}

// SAFETY: the verbs may be called on an MR from any thread.
unsafe impl Send for OwnMr {}
// SAFETY: as above.
unsafe impl Sync for OwnMr {}

impl Drop for OwnMr {
    fn drop(&mut self) {
        // SAFETY: registered in `lend`, and deregistered here alone; the memory goes after it.
        if unsafe { ibv_dereg_mr(self.mr.as_ptr()) } != 0 {
            eprintln!("adopt_rdma_sys: ibv_dereg_mr refused, so the memory has to stay");
            std::mem::forget(std::mem::take(&mut self._memory));
        }
    }
}

/// The MR lent: its own type deregisters it, after the region has ended.
fn lend(device: &Arc<Device>) -> Result<LocalMr, Failure> {
    let mut memory = vec![7; LENGTH];
    let mr = register(device, &mut memory)?;
    let keepalive = OwnMr {
        mr,
        _memory: memory,
        _device: Arc::clone(device),
    };
    // SAFETY: VMR-1: registered a moment ago; LENT-1: the keepalive deregisters it when it is dropped,
    // before it frees the memory.
    let adoption = unsafe { lent_mr(mr.as_ptr()) }?;
    // SAFETY: ADOPT-1 to ADOPT-3 as in `hand_over`.
    Ok(unsafe { MrOptions::new().adopt(adoption, keepalive) }?)
}

fn run() -> Result<(), Failure> {
    let device = Device::open()?;
    let queues = Queues::new(&device, 4)?;
    let (mut from, to) = (lend(&device)?, hand_over(&device)?);
    from.as_mut_slice()[..5].copy_from_slice(b"hello");

    let hold = to.begin_write()?;
    let (sge, wr_id) = (hold.sge(), hold.into_wr_id());
    // SAFETY: POST-2: the hold is out until its completion; if the post fails it stays out.
    unsafe { queues.post_recv(B, wr_id, sge) }?;
    let hold = from.begin_read()?;
    let mut list = element(hold.sge());
    let mut wr = request(ibv_wr_opcode::IBV_WR_SEND);
    (wr.sg_list, wr.num_sge, wr.wr_id) = (&mut list, 1, hold.into_wr_id());
    // SAFETY: POST-1, as above.
    unsafe { queues.post_send(A, &mut wr) }.map_err(|(failure, _)| failure)?;

    if to.try_as_slice().is_some() {
        return Err("the NIC has a region, and it can be read".into());
    }
    let release = |wr_id, _| {
        // SAFETY: WRID-1: nothing else is posted here; WRID-2: each completes once; WRID-3: polled now.
        drop(unsafe { Hold::from_wr_id(wr_id) });
    };
    if *to.as_slice_with(|| queues.poll(release)) != *from.as_slice() {
        return Err("what came is not what was sent".into());
    }
    drop(from.as_mut_slice_with(|| queues.poll(release)));
    println!("\"hello\" went from one adopted region to the other");

    drop(from); // `OwnMr` deregisters it
    let memory = to.close().map_err(|(_, error)| error)?;
    let parts = memory.into_keepalive::<Parts>().map_err(|_| "not ours")?;
    println!("given back: {} bytes", parts.memory.len());
    if rdma_mr::leaks() != rdma_mr::Leaks::default() {
        return Err("something was leaked".into());
    }
    println!("all went well, nothing leaked");
    Ok(())
}
