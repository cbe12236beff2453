//! R2: deref gives the bytes, not a reference that could be copied out of the guard.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn copy_out(mr: &LocalMr) -> &[u8] {
    *mr.as_slice()
}

fn main() {
    let _ = copy_out;
}
