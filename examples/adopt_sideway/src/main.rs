//! A program on the `sideway` binding: its device, its MRs, its queues. From rdma-mr it has the holds:
//! who has the bytes while the NIC works. Only numbers go between the two.
//!
//! ```text
//! cargo run --manifest-path examples/adopt_sideway/Cargo.toml      on a machine with an RDMA device
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use rdma_mr::op::{Begin, Hold};
use rdma_mr::registration::{Adoption, Registered};
use rdma_mr::work::WcStatus;
use rdma_mr::{Access, LocalMr, LocalMrReadAccess, LocalMrWriteAccess, MrOptions};
use sideway::ibverbs::AccessFlags;
use sideway::ibverbs::address::{AddressHandleAttribute, GidEntry, GidType};
use sideway::ibverbs::completion::GenericCompletionQueue;
use sideway::ibverbs::device::DeviceList;
use sideway::ibverbs::device_context::DeviceContext;
use sideway::ibverbs::memory_region::MemoryRegion;
use sideway::ibverbs::protection_domain::ProtectionDomain;
use sideway::ibverbs::queue_pair::{
    GenericQueuePair, PostSendGuard, QueuePair, QueuePairAttribute, QueuePairState,
    SetScatterGatherEntry, WorkRequestFlags,
};

type Failure = Box<dyn Error>;

const PORT: u8 = 1;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("adopt_sideway: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// What keeps an adopted region. Dropped in this order: sideway deregisters, then the memory goes.
struct Keepalive {
    mr: Arc<MemoryRegion>,
    memory: Vec<u8>,
}

/// Registers `memory` by sideway, and makes a region of it.
fn adopt(pd: &Arc<ProtectionDomain>, mut memory: Vec<u8>) -> Result<LocalMr, Failure> {
    let addr = memory.as_mut_ptr();
    // SAFETY: the memory is there until the MR has been dropped, see `Keepalive`.
    let mr = unsafe { pd.reg_mr(addr as usize, memory.len(), AccessFlags::LocalWrite) }?;
    let adoption = Adoption {
        addr,
        length: mr.region_len(),
        // SAFETY: LENT-1: the keepalive has the only handle of the MR, and drops it before the memory.
        registered: unsafe { Registered::lent(mr.lkey(), mr.rkey()) },
    };
    let options = MrOptions::new().access(Access::LOCAL_WRITE);
    // SAFETY: ADOPT-1: a `Vec` does not move its bytes; ADOPT-2: registered with these rights above;
    // ADOPT-3: nobody else has the memory, nor the keys.
    Ok(unsafe { options.adopt(adoption, Keepalive { mr, memory }) }?)
}

/// Posts to the receive queue, with the hold as the `wr_id`: it is out until its completion. It stays
/// out also if the post fails, since sideway does not say what the provider has kept then.
fn recv(qp: &mut GenericQueuePair, hold: Hold) -> Result<(), Failure> {
    let sge = hold.sge();
    let mut guard = qp.start_post_recv();
    let handle = guard.construct_wr(hold.into_wr_id());
    // SAFETY: POST-2: the hold keeps the bytes registered, and for the NIC alone.
    unsafe { handle.setup_sge(sge.lkey, sge.addr, sge.length) };
    Ok(guard.post()?)
}

/// The same for a SEND.
fn send(qp: &mut GenericQueuePair, hold: Hold) -> Result<(), Failure> {
    let sge = hold.sge();
    let mut guard = qp.start_post_send();
    let handle = guard.construct_wr(hold.into_wr_id(), WorkRequestFlags::Signaled);
    // SAFETY: POST-1: the hold keeps the bytes registered, and nobody writes them.
    unsafe {
        handle
            .setup_send()
            .setup_sge(sge.lkey, sge.addr, sge.length)
    };
    Ok(guard.post()?)
}

/// Takes what has completed, and gives each one's region back, whatever its status.
fn release(cq: &GenericCompletionQueue) {
    // An error is a queue that is empty.
    for wc in cq.start_poll().into_iter().flatten() {
        // SAFETY: WRID-1: nothing but holds is posted here; WRID-2: each has one completion; WRID-3: it
        // was polled just now.
        drop(unsafe { Hold::from_wr_id(wc.wr_id()) });
        let status = WcStatus::from_raw(wc.status());
        if !status.is_success() {
            // What is outstanding might never complete now: nothing to wait for.
            eprintln!("adopt_sideway: an operation failed: {status}");
            std::process::exit(1);
        }
    }
}

fn run() -> Result<(), Failure> {
    let devices = DeviceList::new()?;
    let device = devices.iter().next().ok_or("there is no RDMA device")?;
    let context = device.open()?;
    let pd = context.alloc_pd()?;
    let cq = GenericCompletionQueue::from(context.create_cq_builder().setup_cqe(16).build()?);
    let (mut a, mut b) = (queue_pair(&pd, &cq)?, queue_pair(&pd, &cq)?);
    let gid = gid(&context)?;
    let (number_a, number_b) = (a.qp_number(), b.qp_number());
    connect(&context, &gid, &mut a, number_b)?;
    connect(&context, &gid, &mut b, number_a)?;

    let (mut from, to) = (adopt(&pd, vec![7; 64])?, adopt(&pd, vec![0; 64])?);
    from.as_mut_slice()[..5].copy_from_slice(b"hello");
    recv(&mut b, to.begin_write()?)?;
    send(&mut a, from.begin_read()?)?;
    if to.try_as_slice().is_some() {
        return Err("the NIC has a region, and it can be read".into());
    }
    if *to.as_slice_with(|| release(&cq)) != *from.as_slice() {
        return Err("what came is not what was sent".into());
    }
    drop(from.as_mut_slice_with(|| release(&cq)));
    println!("\"hello\" went from one adopted region to the other");

    drop(from); // sideway deregisters it
    let memory = to.close().map_err(|(_, error)| error)?;
    let Keepalive { mr, memory } = memory.into_keepalive().map_err(|_| "not ours")?;
    drop(mr);
    println!("given back: {:?}", String::from_utf8_lossy(&memory[..5]));
    if rdma_mr::leaks() != rdma_mr::Leaks::default() {
        return Err("something was leaked".into());
    }
    println!("all went well, nothing leaked");
    Ok(())
}

// ---- sideway alone: two queue pairs in loopback --------------------------------------------------

fn queue_pair(
    pd: &Arc<ProtectionDomain>,
    cq: &GenericCompletionQueue,
) -> Result<GenericQueuePair, Failure> {
    let mut builder = pd.create_qp_builder();
    builder.setup_max_send_wr(4).setup_max_recv_wr(4);
    builder.setup_send_cq(cq.clone()).setup_recv_cq(cq.clone());
    let mut qp = GenericQueuePair::from(builder.build()?);
    let mut attr = QueuePairAttribute::new();
    attr.setup_state(QueuePairState::Init)
        .setup_pkey_index(0)
        .setup_port(PORT)
        .setup_access_flags(AccessFlags::LocalWrite);
    qp.modify(&attr)?;
    Ok(qp)
}

/// The first one of the port that can be routed.
fn gid(context: &Arc<DeviceContext>) -> Result<GidEntry, Failure> {
    let fits = |entry: &GidEntry| {
        let rocev2 = entry.gid_type() == GidType::RoceV2;
        entry.port_num() == PORT.into() && !(rocev2 && entry.gid().is_unicast_link_local())
    };
    let found = context.query_gid_table()?.into_iter().find(fits);
    Ok(found.ok_or("the port has no GID")?)
}

fn connect(
    context: &Arc<DeviceContext>,
    gid: &GidEntry,
    qp: &mut GenericQueuePair,
    peer: u32,
) -> Result<(), Failure> {
    let port = context.query_port(PORT)?;
    let mut address = AddressHandleAttribute::new();
    address
        .setup_dest_lid(port.lid())
        .setup_port(PORT)
        .setup_grh_src_gid_index(gid.gid_index().try_into()?)
        .setup_grh_dest_gid(&gid.gid())
        .setup_grh_hop_limit(64);
    let mut attr = QueuePairAttribute::new();
    attr.setup_state(QueuePairState::ReadyToReceive)
        .setup_path_mtu(port.active_mtu())
        .setup_dest_qp_num(peer)
        .setup_rq_psn(0)
        .setup_max_dest_read_atomic(0)
        .setup_min_rnr_timer(12)
        .setup_address_vector(&address);
    qp.modify(&attr)?;
    let mut attr = QueuePairAttribute::new();
    attr.setup_state(QueuePairState::ReadyToSend)
        .setup_sq_psn(0)
        .setup_timeout(16)
        .setup_retry_cnt(6) // 7 never gives up on some devices
        .setup_rnr_retry(7)
        .setup_max_read_atomic(0);
    qp.modify(&attr)?;
    Ok(())
}
