//! R1: `LocalMrSlice` is to read.
use rdma_mr::{LocalMrSlice, LocalMrWriteAccess};

fn write(mut slice: LocalMrSlice<'_>) {
    slice.as_mut_slice()[0] = 1;
}

fn main() {
    let _ = write;
}
