//! ACCESS-1 to ACCESS-3 are the crate's to keep: its traits have no other implementors.
use rdma_mr::{LocalMrReadAccess, LocalMrWriteAccess, MrAccess};

struct Mine;

impl MrAccess for Mine {}

unsafe impl LocalMrReadAccess for Mine {}

unsafe impl LocalMrWriteAccess for Mine {}

fn main() {}
