//! R11: a number is turned back into a hold under a promise.
use rdma_mr::op::Hold;

fn main() {
    let _ = Hold::from_wr_id(1);
}
