//! R1: bytes without a hold need `unsafe`.
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

fn read(mr: &LocalMr) {
    let _ = mr.as_slice_unchecked();
}

fn write(mr: &mut LocalMr) {
    let _ = mr.as_mut_slice_unchecked();
}

fn main() {
    let _ = (read, write);
}
