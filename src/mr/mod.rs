//! What users hold: regions, their slices and parts, guards over their bytes, tokens for peers.

mod access;
mod forms;
mod guard;
mod local;
mod options;
mod part;
mod pool;
mod region;
mod remote;
mod rotate;
mod shared;
mod slice;
mod split;
mod token;

pub use access::{LocalMrReadAccess, LocalMrWriteAccess, MrAccess};
pub use forms::GuardFuture;
pub use guard::{
    MrConstPtr, MrCursor, MrCursorMut, MrMutPtr, MrReadGuard, MrWriteGuard, WriteInnerGuard,
};
pub use local::LocalMr;
pub use options::MrOptions;
pub(crate) use part::Part;
pub use pool::{MrPool, PoolOptions, PooledMr};
pub(crate) use region::RegionRef;
pub use remote::{Remote, RemoteMr, RemoteMrSlice, RemoteMrSliceMut, RemoteMut};
pub use shared::{SharedInt, SharedMr, SharedMrAccess, SharedMrSlice};
pub use slice::{LocalMrSlice, LocalMrSliceMut};
pub use split::Chunks;
pub use token::MrToken;
