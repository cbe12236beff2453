//! R3: of memory that a peer may write at any moment there is no slice, guard or pointer to be had.
use rdma_mr::prelude::*;
use rdma_mr::{LocalMrReadAccess, LocalMrWriteAccess, SharedMrSlice};

fn slices(mr: &mut SharedMr, slice: SharedMrSlice<'_>) {
    let _ = mr.as_slice();
    let _ = mr.try_as_slice();
    let _ = mr.as_mut_slice();
    let _ = mr.as_ptr();
    let _ = slice.as_slice();
    let _: &[u8] = &**mr;
}

fn the_region_inside(mr: SharedMr) -> rdma_mr::LocalMr {
    mr.0
}

fn main() {
    let _ = (slices, the_region_inside);
}
