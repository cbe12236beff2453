//! R10: a hold is posted once.
use rdma_mr::op::{Endpoint, Hold};
use rdma_mr::work::QueuePair;

fn twice<Q: QueuePair>(endpoint: &mut Endpoint<Q>, hold: Hold) {
    let _ = endpoint.recv(hold);
    let _ = endpoint.recv(hold);
}

fn main() {
    let _ = twice::<rdma_mr::backend::soft::QueuePair>;
}
