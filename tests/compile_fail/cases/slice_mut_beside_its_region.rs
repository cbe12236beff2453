//! R1: while a `LocalMrSliceMut` lives, the region has no other way in.
use rdma_mr::{LocalMr, LocalMrReadAccess, LocalMrWriteAccess};

fn both(mr: &mut LocalMr) {
    let mut slice = mr.get_mut(..4).unwrap();
    let _ = mr.as_slice();
    let _ = slice.as_mut_slice();
}

fn main() {
    let _ = both;
}
