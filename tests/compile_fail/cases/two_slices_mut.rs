//! R1: nor a second `LocalMrSliceMut`, even of other bytes.
use rdma_mr::{LocalMr, LocalMrWriteAccess};

fn two(mr: &mut LocalMr) {
    let mut one = mr.get_mut(..4).unwrap();
    let mut two = mr.get_mut(4..).unwrap();
    let _ = one.as_mut_slice();
    let _ = two.as_mut_slice();
}

fn main() {
    let _ = two;
}
