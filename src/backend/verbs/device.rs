//! Devices: which there are, an open one ([`Context`]), what it can do, what happens to it.

use std::any::Any;
use std::ffi::{CStr, c_int};
use std::fmt;
use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdma_sys::{
    ibv_ack_async_event, ibv_async_event, ibv_atomic_cap, ibv_close_device, ibv_context, ibv_cq,
    ibv_device, ibv_device_attr, ibv_event_type, ibv_free_device_list, ibv_get_async_event,
    ibv_get_device_guid, ibv_get_device_list, ibv_get_device_name, ibv_open_device,
    ibv_query_device,
};

use super::{check, last_error, note_leak, os};
use crate::error::{Error, Result};
use crate::registration::AtomicCap;

/// A device that is there, opened or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its name, such as `mlx5_0` or `rxe0` (`ibv_get_device_name`).
    pub name: String,
    /// Its globally unique number (`ibv_get_device_guid`).
    pub guid: u64,
}

/// What a device can do (`struct ibv_device_attr`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes in one registration.
    pub max_mr_size: u64,
    /// Registrations.
    pub max_mr: u32,
    /// Protection domains.
    pub max_pd: u32,
    /// Queue pairs.
    pub max_qp: u32,
    /// Outstanding work requests on one send or receive queue.
    pub max_qp_wr: u32,
    /// Scatter/gather elements in one work request.
    pub max_sge: u32,
    /// Entries of one completion queue.
    pub max_cqe: u32,
    /// READs and atomics that one queue pair serves at a time.
    pub max_qp_rd_atom: u32,
    /// READs and atomics that one queue pair has under way at a time.
    pub max_qp_init_rd_atom: u32,
    /// How atomics relate to other accesses.
    pub atomic_cap: AtomicCap,
    /// Ports; they are numbered from 1.
    pub ports: u8,
}

/// Something that happened to a device or queue outside of any work request
/// (`enum ibv_event_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsyncEvent {
    /// A completion queue was overrun (`IBV_EVENT_CQ_ERR`): completions are lost; its polls return
    /// an error from now on.
    CqOverrun,
    /// Any other, by its number.
    Other(u32),
}

/// The list that `ibv_get_device_list` returns.
struct DeviceList {
    raw: *mut *mut ibv_device,
    len: usize,
}

impl DeviceList {
    fn get() -> Result<Self> {
        let mut len: c_int = 0;
        // SAFETY: `len` is alive for the call.
        let raw = unsafe { ibv_get_device_list(&mut len) };
        if raw.is_null() {
            let source = io::Error::last_os_error();
            // Without the kernel's ib_uverbs there are no devices; that is no failure.
            if source.raw_os_error() == Some(libc::ENOSYS) {
                len = 0;
            } else {
                let call = "ibv_get_device_list";
                return Err(Error::Provider { call, source });
            }
        }
        Ok(DeviceList {
            raw,
            len: usize::try_from(len).unwrap_or(0),
        })
    }

    fn iter(&self) -> impl Iterator<Item = *mut ibv_device> + '_ {
        // SAFETY: the list has `len` entries, and lives until `self` is dropped.
        (0..self.len).map(|index| unsafe { *self.raw.add(index) })
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: from `ibv_get_device_list`, freed once.
            unsafe { ibv_free_device_list(self.raw) }
        }
    }
}

/// # Safety
/// - `device` is from a live device list or of an open context.
unsafe fn name_of(device: *mut ibv_device) -> String {
    // SAFETY: the device is alive; its name is a C string inside it.
    let name = unsafe { ibv_get_device_name(device) };
    if name.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a C string as above.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_string_lossy().into_owned()
}

/// The devices of this machine, in the order of libibverbs; none is an empty list
/// (`ibv_get_device_list`). Reads sysfs.
///
/// # Errors
/// [`Error::Provider`] if they could not be listed.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    let list = DeviceList::get()?;
    Ok(list
        .iter()
        // SAFETY: the devices are of the list, which is alive.
        .map(|device| unsafe {
            DeviceInfo {
                name: name_of(device),
                guid: u64::from_be(ibv_get_device_guid(device)),
            }
        })
        .collect())
}

/// An open device (`struct ibv_context`); clones share it. It is closed once the last clone and
/// everything that was made from it are gone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    raw: NonNull<ibv_context>,
    name: String,
    limits: Limits,
    /// The completion queues of ours that are alive, each with its overrun flag.
    cqs: Mutex<Vec<(NonNull<ibv_cq>, Arc<AtomicBool>)>>,
    /// What keeps a context alive that somebody else opened; `None` for our own.
    owner: Option<Box<dyn Any + Send + Sync>>,
}

// SAFETY: the verbs may be called on a context from any thread at the same time; the pointers to
// completion queues are only compared, the rest is Send and Sync.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: we opened it, and everything made from it holds an `Arc` of this: it was the
        // last user.
        if self.owner.is_none() && unsafe { ibv_close_device(self.raw.as_ptr()) } != 0 {
            note_leak();
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("device", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Opens the device of that name, or the first one (`ibv_open_device`).
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::UnknownDevice`] (it lists what there is), [`Error::Provider`].
    pub fn open(name: Option<&str>) -> Result<Context> {
        let list = DeviceList::get()?;
        // SAFETY: the devices are of the list, which is alive.
        let named = |device: *mut ibv_device| unsafe { name_of(device) };
        let device = match name {
            None => list.iter().next().ok_or(Error::NoDevice)?,
            Some(name) => list
                .iter()
                .find(|&device| named(device) == name)
                .ok_or_else(|| match list.len {
                    0 => Error::NoDevice,
                    _ => Error::UnknownDevice {
                        name: name.to_owned(),
                        known: list.iter().map(named).collect::<Vec<_>>().join(", "),
                    },
                })?,
        };
        // SAFETY: the list is alive until after the call; an open device outlives it.
        let raw = NonNull::new(unsafe { ibv_open_device(device) })
            .ok_or_else(|| last_error("ibv_open_device"))?;
        // SAFETY: just opened and nobody else's; should the query fail, `wrap` closes it.
        let context = unsafe { Self::wrap(raw, None)? };
        // SAFETY: an open context has its event descriptor from the start.
        let fd = unsafe { (*raw.as_ptr()).async_fd };
        os::set_nonblocking(fd).map_err(|source| Error::Provider {
            call: "fcntl",
            source,
        })?;
        Ok(context)
    }

    /// Wraps a context: with an owner it is left open and the owner dropped at the end, without
    /// one it is ours to close.
    ///
    /// # Safety
    /// - `raw` is open, and stays open until the owner is dropped; or it is nobody else's.
    pub(super) unsafe fn wrap(
        raw: NonNull<ibv_context>,
        owner: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Context> {
        let mut inner = Inner {
            raw,
            // SAFETY: the context is open, so its device is there.
            name: unsafe { name_of((*raw.as_ptr()).device) },
            limits: Limits::default(),
            cqs: Mutex::default(),
            owner,
        };
        // SAFETY: all zeros is a valid `ibv_device_attr`, which is plain numbers.
        let mut attr: ibv_device_attr = unsafe { mem::zeroed() };
        // SAFETY: the context is open and `attr` alive for the call.
        check("ibv_query_device", unsafe {
            ibv_query_device(raw.as_ptr(), &mut attr)
        })?;
        inner.limits = Limits::from(&attr);
        Ok(Context {
            inner: Arc::new(inner),
        })
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What the device can do, as it said when it was opened (`ibv_query_device`).
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The context itself, for code that makes its own queues. It stays open as long as a clone of
    /// `self` is kept; it must not be closed.
    #[must_use]
    pub fn as_raw(&self) -> *mut ibv_context {
        self.inner.raw.as_ptr()
    }

    /// Takes the asynchronous events off the device that have come in (`ibv_get_async_event`),
    /// acknowledges them, and makes a completion queue that was overrun say so from now on. Does
    /// not wait. [`CompletionQueue::wait`](super::CompletionQueue::wait) calls it too.
    ///
    /// A context that somebody else opened is left alone: those events are its owner's.
    ///
    /// # Errors
    /// [`Error::Provider`] if they could not be read.
    pub fn async_events(&self) -> Result<Vec<AsyncEvent>> {
        let mut events = Vec::new();
        while self.inner.owner.is_none() {
            let mut raw = RawEvent {
                element: ptr::null_mut(),
                kind: 0,
            };
            let event: *mut ibv_async_event = ptr::from_mut(&mut raw).cast();
            // SAFETY: `raw` has the layout of `ibv_async_event` but holds the type as a number: a
            // newer kernel may send one that is not in the Rust enum.
            if unsafe { ibv_get_async_event(self.as_raw(), event) } != 0 {
                let source = io::Error::last_os_error();
                if source.kind() == io::ErrorKind::WouldBlock {
                    break;
                }
                let call = "ibv_get_async_event";
                return Err(Error::Provider { call, source });
            }
            events.push(if raw.kind == ibv_event_type::IBV_EVENT_CQ_ERR as u32 {
                self.mark_overrun(raw.element.cast());
                AsyncEvent::CqOverrun
            } else {
                AsyncEvent::Other(raw.kind)
            });
            // SAFETY: got above, acknowledged once.
            unsafe { ibv_ack_async_event(event) };
        }
        Ok(events)
    }

    /// Remembers a completion queue, so that an overrun event finds its flag.
    pub(super) fn watch_cq(&self, cq: NonNull<ibv_cq>, overrun: Arc<AtomicBool>) {
        let mut cqs = self
            .inner
            .cqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        cqs.push((cq, overrun));
    }

    /// Forgets it; to be called before it is destroyed.
    pub(super) fn unwatch_cq(&self, cq: NonNull<ibv_cq>) {
        let mut cqs = self
            .inner
            .cqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        cqs.retain(|(watched, _)| *watched != cq);
    }

    /// Sets the flag of a completion queue; the pointer is only compared.
    fn mark_overrun(&self, cq: *mut ibv_cq) {
        let cqs = self
            .inner
            .cqs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (watched, overrun) in cqs.iter() {
            if watched.as_ptr() == cq {
                // Ordering: Relaxed, a flag that stands for itself; it publishes nothing.
                overrun.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The descriptor of asynchronous events, if they are ours to read; -1 otherwise.
    pub(super) fn async_fd(&self) -> c_int {
        match self.inner.owner {
            // SAFETY: the context is open; the field does not change.
            None => unsafe { (*self.as_raw()).async_fd },
            Some(_) => -1,
        }
    }
}

/// `struct ibv_async_event` with its type as a number.
#[repr(C)]
struct RawEvent {
    element: *mut std::ffi::c_void,
    kind: u32,
}

impl Limits {
    fn default() -> Self {
        // SAFETY: all zeros is a valid `ibv_device_attr`, which is plain numbers.
        Limits::from(&unsafe { mem::zeroed::<ibv_device_attr>() })
    }

    fn from(attr: &ibv_device_attr) -> Self {
        let count = |value: c_int| u32::try_from(value).unwrap_or(0);
        Limits {
            max_mr_size: attr.max_mr_size,
            max_mr: count(attr.max_mr),
            max_pd: count(attr.max_pd),
            max_qp: count(attr.max_qp),
            max_qp_wr: count(attr.max_qp_wr),
            max_sge: count(attr.max_sge),
            max_cqe: count(attr.max_cqe),
            max_qp_rd_atom: count(attr.max_qp_rd_atom),
            max_qp_init_rd_atom: count(attr.max_qp_init_rd_atom),
            atomic_cap: match attr.atomic_cap {
                ibv_atomic_cap::IBV_ATOMIC_HCA => AtomicCap::Hca,
                ibv_atomic_cap::IBV_ATOMIC_GLOB => AtomicCap::Global,
                _ => AtomicCap::None,
            },
            ports: attr.phys_port_cnt,
        }
    }
}
