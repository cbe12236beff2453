//! Connections by address through the connection manager (librdmacm): listen, connect, disconnect.
//!
//! A connection is made in three steps, so that memory can be registered and receives posted before
//! the peer sends: [`Listener::request`] or [`Pending::resolve`], then the [`Pending`] connection
//! whose queue pair is in INIT, then [`Pending::establish`]. [`Listener::accept`] and
//! [`Connection::connect`] take all three at once.
//!
//! The queue pair belongs to the [`Connection`], not to the `rdma_cm_id`: its states are changed
//! here (`rdma_init_qp_attr`), and destroying it returns what the provider said.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use rdma_mr::backend::verbs::cm::{Config, Connection};
//!
//! # fn main() -> rdma_mr::Result<()> {
//! let peer = "10.0.0.1:7471".parse().unwrap();
//! let connection = Connection::connect(peer, &Config::default(), Duration::from_secs(5))?;
//! println!("the peer says {:?}", connection.link.private_data());
//! # Ok(()) }
//! ```

mod establish;
mod id;
mod link;
mod listen;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use establish::Pending;
pub use link::Link;
pub use listen::{Listener, Request};

use self::id::{CmId, EventChannel, Limit};
use super::{CompletionQueue, Context, ProtectionDomain, QueuePair};
use crate::error::Result;
use crate::work::QpCaps;

/// Private data that a connect request carries, in bytes.
pub const MAX_CONNECT_DATA: usize = 56;

/// Private data that an accept carries, in bytes.
pub const MAX_ACCEPT_DATA: usize = 196;

/// Private data that a reject carries, in bytes.
pub const MAX_REJECT_DATA: usize = 148;

/// What a connection is made of.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What its queue pair takes.
    pub caps: QpCaps,
    /// Sent to the peer with the connect request ([`MAX_CONNECT_DATA`]) or the accept
    /// ([`MAX_ACCEPT_DATA`]).
    pub private_data: Vec<u8>,
    /// The protection domain to use; a new one unless given. It must be of the same device context
    /// as the connection: from [`context`], [`context_to`], or another connection of this module.
    pub pd: Option<Arc<ProtectionDomain>>,
    /// Where sends complete; a new queue unless given. A queue that several connections share has
    /// to have room for all of them (rule R15).
    pub send_cq: Option<Arc<CompletionQueue>>,
    /// Where receives complete; a new queue unless given.
    pub recv_cq: Option<Arc<CompletionQueue>>,
    /// Whether new completion queues get a channel, for [`CompletionQueue::wait`].
    pub channels: bool,
}

/// An established connection. Its parts may be taken out of it.
///
/// Dropped in this order: the [`Link`] tells the peer, then the queue pair is destroyed.
#[derive(Debug)]
pub struct Connection {
    /// The connection manager's side of it.
    pub link: Link,
    /// Its queue pair, in state RTS.
    pub qp: QueuePair,
    /// The protection domain of the queue pair.
    pub pd: Arc<ProtectionDomain>,
    /// Where sends complete.
    pub send_cq: Arc<CompletionQueue>,
    /// Where receives complete.
    pub recv_cq: Arc<CompletionQueue>,
}

impl Connection {
    /// Connects to a listener (`rdma_resolve_addr`, `rdma_resolve_route`, `rdma_connect`,
    /// `rdma_establish`). Blocks for `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider) with the step that failed and, by its
    /// [`ErrorKind`](std::io::ErrorKind): `ConnectionRefused` if nobody listens there or the
    /// listener rejected it, `TimedOut`, `HostUnreachable`, and what the calls return.
    pub fn connect(addr: SocketAddr, config: &Config, timeout: Duration) -> Result<Connection> {
        let limit = Limit::new(timeout);
        Pending::resolve_within(addr, config, &limit)?.establish_within(&limit)
    }

    /// Whether the peer has disconnected, or the device is gone; see [`Link::disconnected`].
    ///
    /// # Errors
    /// As [`Link::disconnected`].
    pub fn disconnected(&self) -> Result<bool> {
        self.link.disconnected()
    }
}

/// The device context that the connection manager uses for connections of a local address
/// (`rdma_bind_addr`), so that memory can be registered before there is any connection.
///
/// # Errors
/// [`Error::Provider`](crate::Error::Provider); an address that no RDMA device has is one.
pub fn context(addr: IpAddr) -> Result<Context> {
    let id = CmId::new(Arc::new(EventChannel::new()?))?;
    id.bind(SocketAddr::new(addr, 0))?;
    Arc::new(id).context()
}

/// The device context that the connection manager uses for connections to a peer's address
/// (`rdma_resolve_addr`): as [`context`], for the side that connects. Blocks for `timeout` at most.
///
/// # Errors
/// As [`Connection::connect`], but for what a listener says: the address alone is asked for.
pub fn context_to(addr: SocketAddr, timeout: Duration) -> Result<Context> {
    let id = establish::resolve_addr(addr, &Limit::new(timeout))?;
    Arc::new(id).context()
}
