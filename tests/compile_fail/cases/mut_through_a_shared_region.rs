//! R1: `&LocalMr` gives no bytes to write to.
use rdma_mr::{LocalMr, LocalMrWriteAccess};

fn write(mr: &LocalMr) {
    mr.as_mut_slice()[0] = 1;
}

fn main() {
    let _ = write;
}
