//! `&mut` is needed to write to a peer's memory, as to memory of this side.
use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{Endpoint, Hold};
use rdma_mr::RemoteMr;

fn write(endpoint: &mut Endpoint<QueuePair>, hold: Hold, remote: &RemoteMr) {
    let _ = endpoint.write(hold, remote, None);
}

fn main() {
    let _ = write;
}
