//! Listening: the listener, and the requests that come in.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdma_sys::{rdma_listen, rdma_reject};

use super::super::{Context, failed, os};
use super::establish::data_len;
use super::id::{CmId, EventChannel, returned};
use super::{Config, Connection, MAX_REJECT_DATA, Pending};
use crate::error::Result;

/// How long the peer of an accepted request may take to go on with it.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// What stands for a peer whose address is not known.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Waits for connect requests at an address (`rdma_listen`). Several threads may use it at once.
pub struct Listener {
    id: Arc<CmId>,
    /// Held from taking a connect request until its id has a channel of its own, so that no other
    /// thread takes an event of that id for one of the listener.
    taking: Mutex<()>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl Listener {
    /// Listens at `addr` (`rdma_bind_addr`, `rdma_listen`); port 0 lets the system choose one, the
    /// unspecified address listens on all devices.
    ///
    /// # Errors
    /// [`Error::NoDevice`](crate::Error::NoDevice); [`Error::Provider`](crate::Error::Provider),
    /// for an address that no RDMA device has as well.
    pub fn bind(addr: SocketAddr) -> Result<Listener> {
        let id = CmId::new(Arc::new(EventChannel::new()?))?;
        id.bind(addr)?;
        // SAFETY: the id is alive.
        returned("rdma_listen", unsafe { rdma_listen(id.as_raw(), 128) })?;
        Ok(Listener {
            id: Arc::new(id),
            taking: Mutex::new(()),
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.addresses().0
    }

    /// The next connect request; `None` once `timeout` has passed. Blocks; `None` as the timeout is
    /// for ever, and zero only looks.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn request(&self, timeout: Option<Duration>) -> Result<Option<Request>> {
        let deadline = os::deadline(timeout);
        let channel = self.id.channel();
        loop {
            if let Some(request) = self.take_request()? {
                return Ok(Some(request));
            }
            if !channel.wait(deadline)? {
                return self.take_request();
            }
        }
    }

    fn take_request(&self) -> Result<Option<Request>> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = self.id.channel();
        while let Some(event) = channel.next()? {
            if let Some(raw) = NonNull::new(event.new_id) {
                // SAFETY: from a connect request on this channel, taken by us just now.
                let id = unsafe { CmId::from_request(raw, channel)? };
                return Ok(Some(Request {
                    id: Arc::new(id),
                    private_data: event.private_data,
                    responder_resources: event.responder_resources,
                    initiator_depth: event.initiator_depth,
                }));
            }
        }
        Ok(None)
    }

    /// Waits for a connect request, accepts it and waits until the connection stands. Blocks: for
    /// `timeout` at most (`None`: for ever) until the request comes, then for `timeout` at most
    /// (`None`: 30 s) until the connection stands.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider); of kind `TimedOut` if no request came, or its
    /// sender gave up.
    pub fn accept(&self, config: &Config, timeout: Option<Duration>) -> Result<Connection> {
        let Some(request) = self.request(timeout)? else {
            let kind = io::ErrorKind::TimedOut;
            let why = format!(
                "no connect request within {:?}",
                timeout.unwrap_or_default()
            );
            return Err(failed("Listener::accept", kind, why));
        };
        let timeout = timeout.unwrap_or(ESTABLISH_TIMEOUT);
        request.prepare(config)?.establish(timeout)
    }
}

/// A peer that wants to connect. Dropping it rejects it.
pub struct Request {
    id: Arc<CmId>,
    private_data: Vec<u8>,
    responder_resources: u8,
    initiator_depth: u8,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// What the peer sent with it, padded with zeros.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// The address of the peer.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.addresses().1
    }

    /// The device context that it came in by.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn context(&self) -> Result<Context> {
        Arc::clone(&self.id).context()
    }

    /// Makes the queue pair, so that receives can be posted before the connection stands.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider), and those of
    /// [`create_qp`](super::super::ProtectionDomain::create_qp); of kind `ConnectionAborted` if the
    /// peer has given up meanwhile. The request is rejected then.
    pub fn prepare(self, config: &Config) -> Result<Pending> {
        let peer = self.peer_addr().unwrap_or(UNKNOWN_PEER);
        let asked = (self.responder_resources, self.initiator_depth);
        Pending::for_request(self.id, peer, config, asked, self.private_data)
    }

    /// Rejects it (`rdma_reject`), with up to [`MAX_REJECT_DATA`] bytes of private data.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider).
    pub fn reject(self, private_data: &[u8]) -> Result<()> {
        let len = data_len("rdma_reject", private_data, MAX_REJECT_DATA)?;
        // SAFETY: the id is alive, and the data for the call.
        returned("rdma_reject", unsafe {
            rdma_reject(self.id.as_raw(), private_data.as_ptr().cast(), len)
        })
    }
}
