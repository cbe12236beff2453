//! R6: keys with which peers write need `unsafe`.
use rdma_mr::MrOptions;

fn main() {
    let _ = MrOptions::new().grant_remote_write();
}
