//! The one error type of the crate (rule R19): every variant says what was wrong and what to do.

use std::fmt;
use std::io;

use crate::registration::{Access, AtomicCap};

/// What went wrong. Nothing was lost and nothing was half done when a call returns one of these.
///
/// Converts into [`io::Error`] with a fitting [`io::ErrorKind`], so `?` works in functions that
/// return `io::Result`.
///
/// ```
/// use rdma_mr::Error;
/// use std::io;
///
/// let error = io::Error::from(Error::ZeroLength);
/// assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A range that holds no byte was asked for.
    #[error("empty range at {start}: ask for at least one byte")]
    EmptyRange {
        /// Where the range starts, in bytes from the start of the region.
        start: usize,
    },
    /// A range that does not lie inside the region.
    #[error("range {start}..{end} is outside of the region of {length} bytes")]
    RangeOutside {
        /// First byte of the range.
        start: usize,
        /// One past the last byte of the range.
        end: usize,
        /// Length of the region in bytes.
        length: usize,
    },
    /// Memory of zero bytes can't be registered.
    #[error("memory of length 0 can't be registered: give at least one byte")]
    ZeroLength,
    /// Longer than a Rust slice can be.
    #[error("{length} bytes are more than a slice can hold (isize::MAX): register less at once")]
    TooLong {
        /// The length that was asked for, in bytes.
        length: usize,
    },
    /// Memory without an address.
    #[error("the memory's address is null")]
    NullAddress,
    /// An address range that wraps around the end of the address space.
    #[error("{length} bytes at {addr:#x} run past the end of the address space")]
    AddressOverflow {
        /// Start address.
        addr: u64,
        /// Length in bytes.
        length: usize,
    },
    /// Remote writes or atomics were asked for without local write (verbs answer `EINVAL`).
    #[error("{access:?} needs LOCAL_WRITE as well: a peer may not write what this side may not")]
    RemoteWithoutLocalWrite {
        /// The rights that were asked for.
        access: Access,
    },
    /// Rights that let a peer write a `LocalMr` at any time were asked for through the safe door.
    #[error(
        "{access:?} lets peers write behind the slices of a LocalMr (rule R6): \
         use the unsafe MrOptions::grant_remote_write and keep its contract"
    )]
    RemoteWriteNeedsUnsafe {
        /// The rights that were asked for.
        access: Access,
    },
    /// A lease without a right for peers.
    #[error(
        "a lease of {access:?} lends nothing: ask for REMOTE_READ, REMOTE_WRITE or REMOTE_ATOMIC"
    )]
    NothingLent {
        /// The rights that were asked for.
        access: Access,
    },
    /// A region was to be made of memory that can't be written.
    #[error("the memory is read-only: a region needs memory that can be written; copy it")]
    ReadOnlyMemory,
    /// The region, or what stands for it, lacks a right that the call needs.
    #[error("needs {needed:?} but only {access:?} was granted")]
    MissingRight {
        /// What the call needs.
        needed: Access,
        /// What is there.
        access: Access,
    },
    /// The region has been closed.
    #[error("the region is closed")]
    Closed,
    /// The region is held in a way that the call can't share, and the call does not wait.
    #[error("the region is held ({state}): release it or use a form that waits")]
    Held {
        /// Who held it when the call looked.
        state: crate::gate::Snapshot,
    },
    /// Other regions live on the same registration.
    #[error(
        "{others} other part(s) of the same registration are alive: drop or unsplit them first"
    )]
    PartsAlive {
        /// How many others there are.
        others: usize,
    },
    /// The deadline passed while the region was held.
    #[error("the deadline passed while the region was held ({state})")]
    Deadline {
        /// Who held it when the call gave up.
        state: crate::gate::Snapshot,
    },
    /// A pool that has no registration to spare for more slots.
    #[error("the pool has {max} registrations, its limit: give slots back, or make it larger")]
    PoolFull {
        /// How many it can have.
        max: usize,
    },
    /// A pool of no slots, or of more than can be counted.
    #[error("a pool of {slots} slots: it can have 1 to {max}")]
    PoolSize {
        /// How many were asked for, over all registrations.
        slots: usize,
        /// How many it can have.
        max: usize,
    },
    /// The deadline passed while all slots of a pool were out.
    #[error("the deadline passed while all {slots} slots of the pool were out")]
    PoolEmpty {
        /// How many there are.
        slots: usize,
    },
    /// Slots of the pool are out.
    #[error("{out} of {slots} slots of the pool are out, or operations on them in flight")]
    SlotsOut {
        /// How many have not come back.
        out: usize,
        /// How many there are.
        slots: usize,
    },
    /// The two regions don't touch, or belong to different registrations.
    #[error("the regions are not neighbours on one registration, in this order")]
    NotAdjacent,
    /// An address that has to be aligned and is not.
    #[error("address {addr:#x} is not a multiple of {align}")]
    Misaligned {
        /// The address.
        addr: u64,
        /// What it has to be a multiple of, in bytes.
        align: usize,
    },
    /// The CPU's atomics and the device's don't agree on one word.
    #[error(
        "the device's atomics ({cap:?}) are not atomic towards the CPU: post one to a queue pair of it, or use cpu_* \
         on words that no peer changes"
    )]
    AtomicsNotGlobal {
        /// What the device says of its atomics.
        cap: AtomicCap,
    },
    /// A record with a version was being written each time it was looked at.
    #[error("the record at offset {offset} is being written: try again, or its writer is gone")]
    RecordBusy {
        /// Where it starts, in bytes from the start of the region.
        offset: usize,
    },
    /// A token whose deadline has passed.
    #[error("the token's deadline has passed: ask its owner for a new one")]
    TokenExpired,
    /// A deadline that the clock can't express.
    #[error("the deadline is further away than the clock can express")]
    DeadlineOverflow,
    /// A queue has no room for another work request.
    #[error("the queue is full ({capacity} work requests): poll its completions first")]
    QueueFull {
        /// What it holds, in work requests.
        capacity: u32,
    },
    /// A poller has as many queue pairs, or shared receive queues, as it can tell apart.
    #[error("the poller has {max} queues already: use another completion queue")]
    PollerFull {
        /// How many it can have.
        max: usize,
    },
    /// An operation ended with an error completion. The bytes that it was to write are unspecified
    /// (rule R12), and its queue pair is in ERR.
    #[error(
        "the operation failed: {status} (vendor code {vendor_err:#x}); its queue pair is in ERR: drain or drop it"
    )]
    OperationFailed {
        /// How it ended.
        status: crate::work::WcStatus,
        /// The provider's own code.
        vendor_err: u32,
    },
    /// The queue pair came to its end before the operation's completion. Whether it was carried out is
    /// not known.
    #[error("the queue pair was ended while the operation was outstanding")]
    QueuePairGone,
    /// The completion queue has failed: what becomes of the operation can't be learnt any more.
    #[error(
        "the completion queue failed, the operation's completion is lost: drain or drop the queue pair"
    )]
    CompletionsLost,
    /// More scatter/gather elements than the queue allows.
    #[error("{given} scatter/gather elements, the queue takes {max}")]
    TooManySge {
        /// How many there were.
        given: usize,
        /// How many the queue takes in one work request.
        max: u32,
    },
    /// More inline bytes than the queue allows.
    #[error("{given} inline bytes, the queue takes {max}: post without INLINE")]
    InlineTooLong {
        /// How many there were.
        given: usize,
        /// How many the queue takes in one work request.
        max: u32,
    },
    /// The work request does not fit the operation (a one-byte atomic, a READ posted inline, …).
    #[error("the work request is not valid: {reason}")]
    InvalidWorkRequest {
        /// What does not fit.
        reason: &'static str,
    },
    /// A completion whose `wr_id` belongs to nothing that is outstanding here. Nothing was released.
    #[error("a completion with wr_id {wr_id:#x} belongs to nothing outstanding on this queue pair")]
    UnknownCompletion {
        /// The number that it carried.
        wr_id: u64,
    },
    /// The queue pair is in a state in which the call is not possible.
    #[error("the queue pair is in state {state}: {needed}")]
    QueuePairState {
        /// The state it is in, in the words of the verbs (`RESET`, `INIT`, `RTR`, `RTS`, `ERR`).
        state: &'static str,
        /// What the call needs.
        needed: &'static str,
    },
    /// No device of that name.
    #[error("no RDMA device named {name:?}; there is: {known}")]
    UnknownDevice {
        /// The name that was asked for.
        name: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// No RDMA device at all.
    #[error("no RDMA device on this machine (is a driver loaded? `rdma link` lists them)")]
    NoDevice,
    /// Memory could not be had.
    #[error("{length} bytes of memory could not be had: {source}")]
    Memory {
        /// How many bytes were asked for.
        length: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The provider refused to register.
    #[error("the provider refused to register the memory: {0}")]
    Register(#[source] io::Error),
    /// The provider refused to deregister: the registration is still in force.
    #[error("the provider refused to deregister the memory: {0}")]
    Deregister(#[source] io::Error),
    /// The provider refused a call about a device, queue or connection.
    #[error("{call}: {source}")]
    Provider {
        /// The verbs call that failed.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::Held { .. }
            | Error::QueueFull { .. }
            | Error::PoolFull { .. }
            | Error::RecordBusy { .. } => Kind::WouldBlock,
            Error::AtomicsNotGlobal { .. } => Kind::Unsupported,
            Error::PartsAlive { .. } | Error::SlotsOut { .. } => Kind::ResourceBusy,
            Error::Deadline { .. } | Error::PoolEmpty { .. } | Error::TokenExpired => {
                Kind::TimedOut
            }
            Error::RemoteWriteNeedsUnsafe { .. }
            | Error::ReadOnlyMemory
            | Error::MissingRight { .. } => Kind::PermissionDenied,
            Error::UnknownDevice { .. } | Error::NoDevice | Error::UnknownCompletion { .. } => {
                Kind::NotFound
            }
            Error::Closed | Error::QueuePairState { .. } | Error::QueuePairGone => {
                Kind::NotConnected
            }
            Error::OperationFailed { .. } | Error::CompletionsLost => Kind::Other,
            Error::Memory { source, .. }
            | Error::Register(source)
            | Error::Deregister(source)
            | Error::Provider { source, .. } => source.kind(),
            _ => Kind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was handed to a call that refused it, as it was, and why: nothing is lost. `?` turns it into
/// [`Error`] or [`io::Error`] and drops the value.
///
/// ```
/// use rdma_mr::{Error, LocalMr, backend::soft::Nic};
///
/// let pd = Nic::new().alloc_pd();
/// let rejected = LocalMr::register(&pd, Vec::new()).unwrap_err();
/// assert!(matches!(rejected.error, Error::ZeroLength));
/// let mut memory: Vec<u8> = rejected.value;
/// memory.push(1);
/// LocalMr::register(&pd, memory)?;
/// # Ok::<(), Error>(())
/// ```
pub struct Rejected<T> {
    /// What was handed in.
    pub value: T,
    /// What was wrong.
    pub error: Error,
}

impl<T> Rejected<T> {
    /// The value rejected because of `error`; for use in `map_err`.
    pub(crate) fn new(value: T, error: impl Into<Error>) -> Self {
        Rejected {
            value,
            error: error.into(),
        }
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<T> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<T> From<Rejected<T>> for Error {
    fn from(rejected: Rejected<T>) -> Self {
        rejected.error
    }
}

impl<T> From<Rejected<T>> for io::Error {
    fn from(rejected: Rejected<T>) -> Self {
        rejected.error.into()
    }
}
