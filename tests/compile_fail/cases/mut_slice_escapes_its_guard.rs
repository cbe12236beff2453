//! R2: nor does a slice to write to.
use rdma_mr::{LocalMr, LocalMrWriteAccess};

fn escape(mr: &mut LocalMr) -> &mut [u8] {
    let mut guard = mr.as_mut_slice();
    &mut guard[..]
}

fn main() {
    let _ = escape;
}
