//! R9: a hold is `'static`; the wish for one is not.
use rdma_mr::LocalMr;
use rdma_mr::op::Begin;

fn outlive(mr: LocalMr) {
    let future = mr.begin_write_async();
    drop(mr);
    drop(future);
}

fn main() {
    let _ = outlive;
}
