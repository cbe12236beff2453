//! R9: posting without a hold needs `unsafe`, also through an endpoint's queue pair.
use rdma_mr::op::Endpoint;
use rdma_mr::work::{QueuePair, RecvWr};

fn post<Q: QueuePair>(endpoint: &Endpoint<Q>) {
    let _ = endpoint.qp().post_recv(&RecvWr { wr_id: 0, sge: &[] });
}

fn main() {
    let _ = post::<rdma_mr::backend::soft::QueuePair>;
}
