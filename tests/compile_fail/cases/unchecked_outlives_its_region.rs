//! SLICE-3, SLICEMUT-3: no region is closed or dropped under a slice of it that was had without a hold.
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

fn close(mr: LocalMr) -> u8 {
    // SAFETY: SLICE-1, SLICE-2; the compiler sees to SLICE-3.
    let slice = unsafe { mr.as_slice_unchecked() };
    let _ = mr.close();
    slice[0]
}

fn outlive(mut mr: LocalMr) {
    // SAFETY: SLICEMUT-1, SLICEMUT-2; the compiler sees to SLICEMUT-3.
    let slice = unsafe { mr.as_mut_slice_unchecked() };
    drop(mr);
    slice[0] = 1;
}

fn main() {
    let _ = (close, outlive);
}
