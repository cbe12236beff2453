//! The word as people read it.

use std::fmt;

use super::word::Word;

/// Who holds a region exclusively.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// A `&mut [u8]` on the CPU.
    Cpu,
    /// An operation in flight that lets the NIC write.
    Nic,
}

/// Who held a region at one moment: for people to print. By the time it is read it may be past, so
/// never decide by it; `try_*` decides.
///
/// ```
/// use rdma_mr::gate::{Gate, Holder};
///
/// let gate = Gate::new();
/// let reader = gate.try_acquire(Holder::CpuRead)?;
/// assert_eq!(gate.state().to_string(), "1 CPU reader");
/// # drop(reader);
/// # Ok::<(), rdma_mr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Snapshot {
    /// Guards with `&[u8]`.
    pub cpu_readers: u64,
    /// Operations in flight that let the NIC read.
    pub nic_reads: u64,
    /// The exclusive holder, if there is one.
    pub writer: Option<Writer>,
    /// Whether somebody who wants in shared is parked.
    pub waiting_shared: bool,
    /// Whether somebody who wants in exclusively is parked.
    pub waiting_exclusive: bool,
    /// Whether an exclusive side asks new shared holders to stand back.
    pub pending: bool,
    /// Whether new operations are refused.
    pub closed: bool,
    /// Whether readers are published in slots at this time ([`ReadBias`](super::ReadBias)).
    pub biased: bool,
    /// Whether operations are waited for that began before the keys were changed: a registration before the
    /// one in force ends with them.
    pub retiring: bool,
    /// Whether the handle is gone: the last release frees.
    pub orphaned: bool,
}

impl Snapshot {
    /// Whether nobody held the region.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.cpu_readers == 0 && self.nic_reads == 0 && self.writer.is_none()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        let mut parts: Vec<String> = Vec::new();
        match self.writer {
            Some(Writer::Cpu) => parts.push("a CPU writer".into()),
            Some(Writer::Nic) => parts.push("a NIC write in flight".into()),
            None => {}
        }
        for (n, what) in [
            (self.cpu_readers, "CPU reader"),
            (self.nic_reads, "NIC read"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {what}{}", plural(n)));
            }
        }
        if parts.is_empty() {
            parts.push("free".into());
        }
        for (set, what) in [
            (self.waiting_shared, "shared side waiting"),
            (self.waiting_exclusive, "exclusive side waiting"),
            (self.closed, "closed to new operations"),
            (self.biased, "biased to readers"),
            (self.retiring, "operations under retired keys"),
            (self.orphaned, "handle dropped"),
        ] {
            if set {
                parts.push(what.into());
            }
        }
        f.write_str(&parts.join(", "))
    }
}

impl Word {
    /// With so many readers who are published besides.
    pub(super) fn snapshot(self, published: u64) -> Snapshot {
        Snapshot {
            cpu_readers: self.readers() + published,
            nic_reads: self.nic_reads(),
            writer: match self.bits() & Self::EXCL {
                0 => None,
                Self::CPU_EXCL => Some(Writer::Cpu),
                _ => Some(Writer::Nic),
            },
            waiting_shared: self.has(Self::WAIT_SHARED),
            waiting_exclusive: self.has(Self::WAIT_EXCL),
            pending: self.has(Self::PENDING),
            closed: self.has(Self::CLOSED),
            biased: self.has(Self::BIASED),
            retiring: self.has(Self::RETIRING | Self::WAIT_OLD),
            orphaned: self.has(Self::ORPHANED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_says_who_holds() {
        let bits = (2 * Word::READER) | Word::NIC_READ | Word::WAIT_EXCL;
        let text = Word::from_bits(bits).snapshot(0).to_string();
        assert_eq!(text, "2 CPU readers, 1 NIC read, exclusive side waiting");
        assert_eq!(Word::from_bits(0).snapshot(0).to_string(), "free");
        assert!(Word::from_bits(Word::WAIT_EXCL).snapshot(0).is_free());
        let bits = Word::NIC_EXCL | Word::CLOSED | Word::ORPHANED | Word::WAIT_OLD;
        let text = Word::from_bits(bits).snapshot(1).to_string();
        let all = "a NIC write in flight, 1 CPU reader, closed to new operations, \
                   operations under retired keys, handle dropped";
        assert_eq!(text, all);
    }
}
