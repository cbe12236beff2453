//! Owned forms of `rdma_event_channel` and `rdma_cm_id`, events as plain data, and what an event
//! that was not hoped for means.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdma_sys::{
    rdma_ack_cm_event, rdma_bind_addr, rdma_cm_event_type as event, rdma_cm_id,
    rdma_create_event_channel, rdma_create_id, rdma_destroy_event_channel, rdma_destroy_id,
    rdma_event_channel, rdma_get_cm_event, rdma_migrate_id, rdma_port_space,
};

use super::super::{Context, failed, last_error, note_leak, os};
use crate::error::{Error, Result};

/// Where events of connections come in (`struct rdma_event_channel`), non-blocking.
pub(super) struct EventChannel(NonNull<rdma_event_channel>);

// SAFETY: librdmacm may be called on a channel from any thread at the same time.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: we created it, and its ids held an `Arc` of it and are gone.
        unsafe { rdma_destroy_event_channel(self.0.as_ptr()) }
    }
}

/// An event, copied and acknowledged.
pub(super) struct Event {
    pub(super) kind: event::Type,
    pub(super) status: c_int,
    /// Of a connect request: the new id, owned by whoever got the event.
    pub(super) new_id: *mut rdma_cm_id,
    /// READs and atomics that the peer wants to have under way.
    pub(super) responder_resources: u8,
    /// READs and atomics that the peer serves.
    pub(super) initiator_depth: u8,
    pub(super) private_data: Vec<u8>,
}

impl EventChannel {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: takes no argument.
        let Some(raw) = NonNull::new(unsafe { rdma_create_event_channel() }) else {
            let error = last_error("rdma_create_event_channel");
            let none = super::super::devices().is_ok_and(|devices| devices.is_empty());
            return Err(if none { Error::NoDevice } else { error });
        };
        let channel = EventChannel(raw);
        os::set_nonblocking(channel.fd()).map_err(|source| Error::Provider {
            call: "fcntl",
            source,
        })?;
        Ok(channel)
    }

    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: the channel is alive; the field does not change.
        unsafe { (*self.0.as_ptr()).fd }
    }

    /// The next event, if there is one.
    pub(super) fn next(&self) -> Result<Option<Event>> {
        let mut raw = ptr::null_mut();
        loop {
            // SAFETY: the channel is alive, and so is the result, for the call.
            if unsafe { rdma_get_cm_event(self.0.as_ptr(), &mut raw) } == 0 {
                break;
            }
            let source = io::Error::last_os_error();
            match source.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => {
                    let call = "rdma_get_cm_event";
                    return Err(Error::Provider { call, source });
                }
            }
        }
        // SAFETY: the event is ours until it is acknowledged. Its id is of `RDMA_PS_TCP`, as all
        // here are, so that the parameters are those of a connection: zeros where there are none.
        let copy = unsafe {
            let conn = (*raw).param.conn;
            let private_data = if conn.private_data.is_null() {
                Vec::new()
            } else {
                let len = usize::from(conn.private_data_len);
                slice::from_raw_parts(conn.private_data.cast::<u8>(), len).to_vec()
            };
            Event {
                kind: (*raw).event,
                status: (*raw).status,
                new_id: match (*raw).event {
                    event::RDMA_CM_EVENT_CONNECT_REQUEST => (*raw).id,
                    _ => ptr::null_mut(),
                },
                responder_resources: conn.responder_resources,
                initiator_depth: conn.initiator_depth,
                private_data,
            }
        };
        // SAFETY: got above, acknowledged once, and not used after.
        unsafe { rdma_ack_cm_event(raw) };
        Ok(Some(copy))
    }

    /// Waits until there may be an event; `false` once the deadline has passed.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        os::wait_readable([self.fd(), -1], deadline).map_err(|source| Error::Provider {
            call: "poll",
            source,
        })
    }
}

/// One end of a connection, or a listener (`struct rdma_cm_id`).
pub(super) struct CmId {
    raw: NonNull<rdma_cm_id>,
    channel: Arc<EventChannel>,
}

// SAFETY: librdmacm may be called on an id from any thread at the same time.
unsafe impl Send for CmId {}
// SAFETY: as above.
unsafe impl Sync for CmId {}

impl Drop for CmId {
    fn drop(&mut self) {
        // All events are acknowledged as they are taken, so this does not block on one.
        // SAFETY: the id is ours, and what was made on its device context held an `Arc` of this.
        if unsafe { rdma_destroy_id(self.raw.as_ptr()) } != 0 {
            note_leak();
            mem::forget(Arc::clone(&self.channel));
        }
    }
}

impl CmId {
    pub(super) fn new(channel: Arc<EventChannel>) -> Result<Self> {
        let mut raw = ptr::null_mut();
        let space = rdma_port_space::RDMA_PS_TCP;
        // SAFETY: the channel is alive as long as the id, the result alive for the call.
        if unsafe { rdma_create_id(channel.0.as_ptr(), &mut raw, ptr::null_mut(), space) } != 0 {
            return Err(last_error("rdma_create_id"));
        }
        let raw = NonNull::new(raw).ok_or_else(|| last_error("rdma_create_id"))?;
        Ok(CmId { raw, channel })
    }

    /// Takes over the id of a connect request and gives it a channel of its own.
    ///
    /// # Safety
    /// - `raw` is from a connect request on `listening`, and nobody else has taken it.
    pub(super) unsafe fn from_request(
        raw: NonNull<rdma_cm_id>,
        listening: &Arc<EventChannel>,
    ) -> Result<Self> {
        let mut id = CmId {
            raw,
            channel: Arc::clone(listening),
        };
        let own = Arc::new(EventChannel::new()?);
        // SAFETY: the id and both channels are alive.
        if unsafe { rdma_migrate_id(raw.as_ptr(), own.0.as_ptr()) } != 0 {
            return Err(last_error("rdma_migrate_id"));
        }
        id.channel = own;
        Ok(id)
    }

    pub(super) fn as_raw(&self) -> *mut rdma_cm_id {
        self.raw.as_ptr()
    }

    pub(super) fn channel(&self) -> &Arc<EventChannel> {
        &self.channel
    }

    pub(super) fn bind(&self, addr: SocketAddr) -> Result<()> {
        let mut c = os::CAddr::from(addr);
        // SAFETY: the id is alive, and the address for the call.
        returned("rdma_bind_addr", unsafe {
            rdma_bind_addr(self.as_raw(), c.as_mut_ptr())
        })
    }

    /// The device context that it is bound to; it lives as long as the id does.
    pub(super) fn context(self: Arc<Self>) -> Result<Context> {
        // SAFETY: the id is alive; the field is set before the event (or the bind) that made the
        // caller ask, and does not change after.
        let Some(verbs) = NonNull::new(unsafe { (*self.as_raw()).verbs }) else {
            let why = "the address stands for no single device";
            return Err(failed(
                "rdma_bind_addr",
                io::ErrorKind::AddrNotAvailable,
                why,
            ));
        };
        // SAFETY: librdmacm keeps the device open while an id is bound to it, and the owner is one.
        unsafe { Context::wrap(verbs, Some(Box::new(self))) }
    }

    /// The addresses of this side and of the peer.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        // SAFETY: the id is alive, and its addresses don't change once they are resolved; all bit
        // patterns are valid for the storage form of the unions.
        unsafe {
            let addr = &(*self.as_raw()).route.addr;
            (
                os::to_socket_addr(&addr.src_addr_union.src_storage),
                os::to_socket_addr(&addr.dst_addr_union.dst_storage),
            )
        }
    }

    /// Says why a call on this id failed, if it is for what the peer did meanwhile; otherwise what
    /// the call said. The kernel keeps events of a request to itself until it is accepted: that its
    /// sender has given up shows as `EINVAL` only.
    pub(super) fn explain(&self, error: Error, peer: SocketAddr, passive: bool) -> Error {
        let Error::Provider { call, source } = &error else {
            return error;
        };
        if source.raw_os_error() != Some(libc::EINVAL) || !call.starts_with("rdma_") {
            return error;
        }
        match self.channel.next() {
            Ok(Some(event)) => disappointment(call, &event, peer),
            _ if passive => {
                let why = format!("{peer} has given up: {source}");
                failed(call, io::ErrorKind::ConnectionAborted, why)
            }
            _ => error,
        }
    }

    /// Waits for the event `wanted` of the step `call` towards `peer`.
    pub(super) fn expect(
        &self,
        call: &'static str,
        wanted: event::Type,
        peer: SocketAddr,
        limit: &Limit,
    ) -> Result<Event> {
        loop {
            match self.channel.next()? {
                Some(event) if event.kind == wanted && event.status == 0 => return Ok(event),
                Some(event) if event.kind == event::RDMA_CM_EVENT_ADDR_CHANGE => {}
                Some(event) => return Err(disappointment(call, &event, peer)),
                None if self.channel.wait(limit.deadline)? => {}
                None => {
                    let why = format!("no answer from {peer} within {:?}", limit.timeout);
                    return Err(failed(call, io::ErrorKind::TimedOut, why));
                }
            }
        }
    }
}

/// How long something may take, and when that is over.
pub(super) struct Limit {
    pub(super) timeout: Duration,
    pub(super) deadline: Option<Instant>,
}

impl Limit {
    pub(super) fn new(timeout: Duration) -> Self {
        Limit {
            timeout,
            deadline: os::deadline(Some(timeout)),
        }
    }

    /// What is left, for calls that take milliseconds.
    pub(super) fn millis(&self) -> c_int {
        match os::millis_left(self.deadline) {
            never if never < 0 => c_int::MAX,
            left => left.max(1),
        }
    }
}

/// Turns the return value of a librdmacm call into a result; they set `errno`.
pub(super) fn returned(call: &'static str, ret: c_int) -> Result<()> {
    if ret == 0 {
        Ok(())
    } else {
        Err(last_error(call))
    }
}

/// `IB_CM_REJ_INVALID_SERVICE_ID`.
const REJ_NOBODY_LISTENS: c_int = 8;
/// `IB_CM_REJ_CONSUMER_DEFINED`.
const REJ_BY_LISTENER: c_int = 28;

/// What it means that `event` came instead of the one that was waited for.
fn disappointment(call: &'static str, event: &Event, peer: SocketAddr) -> Error {
    use io::ErrorKind as Kind;

    let status = event.status;
    let os = |status: c_int| io::Error::from_raw_os_error(status.saturating_abs());
    let (kind, why) = match event.kind {
        event::RDMA_CM_EVENT_ADDR_ERROR => (
            Kind::HostUnreachable,
            format!("no RDMA device reaches {peer}: {}", os(status)),
        ),
        event::RDMA_CM_EVENT_ROUTE_ERROR => (
            Kind::HostUnreachable,
            format!("no route to {peer}: {}", os(status)),
        ),
        event::RDMA_CM_EVENT_UNREACHABLE => (
            Kind::HostUnreachable,
            format!("{peer} does not answer: {}", os(status)),
        ),
        event::RDMA_CM_EVENT_REJECTED => (
            Kind::ConnectionRefused,
            match status {
                REJ_NOBODY_LISTENS => format!("nobody listens at {peer}"),
                REJ_BY_LISTENER => format!("{peer} rejected the connection"),
                reason => format!("{peer} rejected the connection (reason {reason})"),
            },
        ),
        event::RDMA_CM_EVENT_DISCONNECTED => {
            (Kind::ConnectionReset, format!("{peer} disconnected"))
        }
        event::RDMA_CM_EVENT_DEVICE_REMOVAL => {
            (Kind::NotConnected, "the device was removed".to_owned())
        }
        event::RDMA_CM_EVENT_CONNECT_ERROR => (
            Kind::ConnectionAborted,
            format!("the connection to {peer} failed: {}", os(status)),
        ),
        other => (
            Kind::Other,
            format!("event {other} with status {status} from {peer}"),
        ),
    };
    failed(call, kind, why)
}
