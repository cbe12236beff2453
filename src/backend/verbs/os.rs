//! The few system calls and C structures that the verbs need beside themselves: waiting for a file
//! descriptor, switching it to non-blocking, socket addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Switches `fd` to non-blocking, so that reading an event never waits.
pub(super) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointer; a bad descriptor is an error.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above, F_SETFL takes an integer.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// When `timeout` from now is over; `None` is never (none was given, or the clock can't express it).
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// What is left until `deadline` in whole milliseconds, rounded up; -1 for never, as `poll` has it.
pub(super) fn millis_left(deadline: Option<Instant>) -> i32 {
    deadline.map_or(-1, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    })
}

/// Waits until one of `fds` can be read (`poll(2)`); `false` once `deadline` has passed. May return
/// early with `true`. A negative descriptor is left out.
pub(super) fn wait_readable(fds: [RawFd; 2], deadline: Option<Instant>) -> io::Result<bool> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: `polled` is an array of that many `pollfd`, alive for the call.
    let ready = unsafe {
        libc::poll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            millis_left(deadline),
        )
    };
    if ready >= 0 {
        return Ok(ready > 0 || deadline.is_none_or(|deadline| Instant::now() < deadline));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(true)
    } else {
        Err(error)
    }
}

/// A socket address in C's layout.
#[repr(C)]
pub(super) union CAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl From<SocketAddr> for CAddr {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => CAddr {
                v4: libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(addr.ip().octets()),
                    },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(addr) => CAddr {
                v6: libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: addr.ip().octets(),
                    },
                    sin6_scope_id: addr.scope_id(),
                },
            },
        }
    }
}

impl CAddr {
    /// As the connection manager takes it.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        std::ptr::from_mut(self).cast()
    }
}

/// Reads an address that the connection manager wrote; `None` for a family other than IP.
pub(super) fn to_socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let ptr: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: of this family, the storage holds a `sockaddr_in`; it is large and aligned
            // enough for each address type.
            let v4 = unsafe { &*ptr.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with a `sockaddr_in6`.
            let v6 = unsafe { &*ptr.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_c() {
        for text in ["10.0.0.1:7471", "[fe80::1%3]:18515", "[::]:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            // SAFETY: all zeros is a valid `sockaddr_storage`.
            let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
            let mut c = CAddr::from(addr);
            let to: *mut libc::sockaddr_storage = &mut storage;
            // SAFETY: a `CAddr` is no larger than the storage that holds every address.
            unsafe { std::ptr::copy_nonoverlapping(c.as_mut_ptr().cast::<CAddr>(), to.cast(), 1) };
            assert_eq!(to_socket_addr(&storage), Some(addr));
        }
    }

    #[test]
    fn a_deadline_rounds_up_and_never_waits_short() {
        assert_eq!(millis_left(None), -1);
        assert_eq!(millis_left(deadline(Some(Duration::ZERO))), 0);
        assert_eq!(millis_left(deadline(Some(Duration::from_micros(1500)))), 2);
        assert_eq!(deadline(Some(Duration::MAX)), None);
    }
}
