//! R2: a guard to come does not outlive the region.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn outlive(mr: LocalMr) {
    let future = mr.as_slice_async();
    drop(mr);
    drop(future);
}

fn main() {
    let _ = outlive;
}
