//! R1: a guard for reading gives nothing to write to.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn write(mr: &LocalMr) {
    mr.as_slice()[0] = 1;
}

fn main() {
    let _ = write;
}
