//! Whether this device enforces the range of a memory window. Leases are registrations of their own because
//! none that could be tried does (ARCHITECTURE.md, "The way of a lease"); here that is asked, not believed.
//! `cargo xtask vm test` runs it on soft-RoCE.
#![cfg(feature = "verbs")]

mod fabric;

use std::io;
use std::ptr;

use fabric::{Device, Fabric, completions, finish};
use rdma_mr::backend::verbs::sys::{
    ibv_access_flags, ibv_alloc_mw, ibv_bind_mw, ibv_dealloc_mw, ibv_dereg_mr, ibv_mr, ibv_mw,
    ibv_mw_bind, ibv_mw_bind_info, ibv_mw_type, ibv_reg_mr, ibv_send_flags,
};
use rdma_mr::backend::verbs::{QueuePair, leaked};
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};

const LENGTH: usize = 4096;
/// What the window covers.
const WINDOW: std::ops::Range<usize> = 1024..1088;

/// Memory whose registration gives peers nothing, and lets windows be bound.
struct Region {
    mr: *mut ibv_mr,
    bytes: Vec<u8>,
}

impl Region {
    fn new(fabric: &Device) -> Self {
        let mut bytes = vec![0; LENGTH];
        let rights =
            ibv_access_flags::IBV_ACCESS_LOCAL_WRITE | ibv_access_flags::IBV_ACCESS_MW_BIND;
        let (pd, addr) = (fabric.pd().as_raw(), bytes.as_mut_ptr().cast());
        // SAFETY: the protection domain is alive; the memory is freed after the registration's end.
        let mr = unsafe { ibv_reg_mr(pd, addr, LENGTH, rights.0 as i32) };
        assert!(!mr.is_null(), "{}", io::Error::last_os_error());
        Region { mr, bytes }
    }

    /// The byte there, which the device may have written.
    fn byte(&self, at: usize) -> u8 {
        // SAFETY: inside; no operation is under way.
        unsafe { ptr::read_volatile(&self.bytes[at]) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was registered in `new`; no window is bound to it any more.
        assert_eq!(unsafe { ibv_dereg_mr(self.mr) }, 0, "a window is bound");
    }
}

/// A window, bound. Dropped before its queue pair and its region.
struct Window(*mut ibv_mw);

impl Window {
    /// `Err`: the device has none.
    fn bind(fabric: &Device, region: &Region, qp: &QueuePair) -> io::Result<Self> {
        // SAFETY: the protection domain is alive.
        let mw = unsafe { ibv_alloc_mw(fabric.pd().as_raw(), ibv_mw_type::IBV_MW_TYPE_1) };
        let mw = mw.filter(|mw| !mw.is_null());
        let window = Window(mw.ok_or_else(io::Error::last_os_error)?);
        let mut bind = ibv_mw_bind {
            wr_id: 1,
            send_flags: ibv_send_flags::IBV_SEND_SIGNALED.0,
            bind_info: ibv_mw_bind_info {
                mr: region.mr,
                addr: region.bytes[WINDOW.start..].as_ptr() as u64,
                length: WINDOW.len() as u64,
                mw_access_flags: ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0,
            },
        };
        // SAFETY: all three are alive and of one protection domain.
        match unsafe { ibv_bind_mw(qp.as_raw(), window.0, &mut bind) } {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        match completions(qp.send_cq(), 1)[0].status {
            WcStatus::Success => Ok(window),
            status => Err(io::Error::other(format!("the binding failed: {status}"))),
        }
    }

    fn rkey(&self) -> u32 {
        // SAFETY: it is alive; the binding, which wrote the key, is over.
        unsafe { (*self.0).rkey }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: it was allocated in `bind`, and is used no more.
        assert_eq!(unsafe { ibv_dealloc_mw(self.0) }, 0);
    }
}

/// Whether a peer writes the byte there with the key of a window; `Err`: the device has none.
fn reaches(fabric: &Device, at: usize) -> io::Result<bool> {
    let region = Region::new(fabric);
    let (a, b) = fabric.queue_pairs(&fabric.cq(16), &fabric.cq(16), QpCaps::default());
    let window = Window::bind(fabric, &region, &b)?;
    let mut peer = Endpoint::new(a);
    let from = fabric.region(&[7]);
    let to = RemoteAddr {
        addr: region.bytes[at..].as_ptr() as u64,
        rkey: window.rkey(),
    };
    peer.write(from.begin_read().unwrap(), to, None).unwrap();
    let status = finish(&mut peer, 1)[0].status;
    let reached = match (status, region.byte(at)) {
        (WcStatus::Success, 7) => true,
        (WcStatus::RemAccessErr, 0) => false,
        other => panic!("{other:?}"),
    };
    drop(window);
    Ok(reached)
}

#[test]
#[ignore = "needs an RDMA device: cargo xtask vm test"]
fn no_provider_is_trusted_with_windows() {
    let fabric = Device::open();
    let inside = match reaches(&fabric, WINDOW.start) {
        Ok(inside) => inside,
        Err(error) => {
            println!("no windows here ({error}): leases have to be registrations");
            return;
        }
    };
    assert!(inside, "the window does not cover its first byte");
    assert!(reaches(&fabric, WINDOW.end - 1).unwrap());
    let outside = [0, WINDOW.start - 1, WINDOW.end, LENGTH - 1];
    let reached: Vec<usize> = outside
        .into_iter()
        .filter(|at| reaches(&fabric, *at).unwrap())
        .collect();
    assert!(
        !reached.is_empty(),
        "this device enforces the range of a window: leases could be windows here, which are bound in \
         a fraction of a registration's time. ARCHITECTURE.md says that there is no such device"
    );
    println!(
        "a window over {WINDOW:?} lets a peer write at {reached:?}: its range is not enforced"
    );
    assert_eq!((fabric.registered(), leaked()), (0, 0));
}
