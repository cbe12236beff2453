//! R3, R9: a slice of a shared region borrows it; a hold is what outlives it.
use rdma_mr::{SharedMr, SharedMrSlice};

fn outlives(mr: SharedMr) -> SharedMrSlice<'static> {
    mr.get(..8).unwrap()
}

fn closed(mr: SharedMr) {
    let slice = mr.get(..8).unwrap();
    let _ = mr.close();
    drop(slice.get(..4));
}

fn main() {
    let _ = (outlives, closed);
}
