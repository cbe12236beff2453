//! R2: a slice does not outlive the guard that it came from.
use rdma_mr::{LocalMr, LocalMrReadAccess};

fn escape(mr: &LocalMr) -> &[u8] {
    let guard = mr.as_slice();
    &guard[..]
}

fn main() {
    let _ = escape;
}
