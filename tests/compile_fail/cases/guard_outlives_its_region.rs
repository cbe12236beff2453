//! R2: a guard does not outlive its region.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn outlive(mr: LocalMr) {
    let guard = mr.as_slice();
    drop(mr);
    drop(guard);
}

fn main() {
    let _ = outlive;
}
