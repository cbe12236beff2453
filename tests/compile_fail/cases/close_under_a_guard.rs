//! R14: a region can't be closed while a guard or a slice of it lives.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn close(mr: LocalMr) {
    let slice = mr.get(1..).unwrap();
    let _ = mr.close();
    let _ = slice.as_slice();
}

fn main() {
    let _ = close;
}
