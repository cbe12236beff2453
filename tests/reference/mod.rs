//! What regions are held to: a plain reference of one registration, its bytes in a vector, its parts and who holds them in
//! lists, nothing atomic and nothing clever. The fuzz target `region_ops` uses it too.
#![allow(dead_code, reason = "each user needs a part of it")]

use std::ops::Range;

/// How a part is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    CpuRead,
    CpuWrite,
    NicRead,
    NicWrite,
}

impl Kind {
    pub fn is_shared(self) -> bool {
        matches!(self, Kind::CpuRead | Kind::NicRead)
    }

    pub fn is_nic(self) -> bool {
        matches!(self, Kind::NicRead | Kind::NicWrite)
    }
}

/// A hold on one part, or of one operation on several.
#[derive(Clone, Debug)]
pub struct Held {
    pub name: usize,
    pub kind: Kind,
    /// Each part once.
    pub parts: Vec<usize>,
    /// In bytes from the start of the registration, in the order of the list.
    pub ranges: Vec<Range<usize>>,
    /// How often the keys had changed when it began.
    pub keys: usize,
}

/// Some bytes with a gate of their own.
#[derive(Clone, Debug)]
pub struct Part {
    pub range: Range<usize>,
    pub closed: bool,
    /// Whether there is a handle.
    pub owned: bool,
}

/// A registration.
#[derive(Clone, Debug)]
pub struct Reference {
    pub bytes: Vec<u8>,
    /// Never taken out: a part that is gone stays as one without bytes.
    pub parts: Vec<Part>,
    pub held: Vec<Held>,
    /// How often the keys have changed.
    pub keys: usize,
    /// Whether the NIC may write, by the keys in force.
    pub local_write: bool,
    names: usize,
}

impl Reference {
    pub fn new(bytes: Vec<u8>) -> Self {
        let whole = Part {
            range: 0..bytes.len(),
            closed: false,
            owned: true,
        };
        Reference {
            bytes,
            parts: vec![whole],
            held: Vec::new(),
            keys: 0,
            local_write: true,
            names: 0,
        }
    }

    fn of(&self, part: usize) -> impl Iterator<Item = &Held> {
        self.held
            .iter()
            .filter(move |held| held.parts.contains(&part))
    }

    /// How many hold it so.
    pub fn count(&self, part: usize, kind: Kind) -> u64 {
        self.of(part).filter(|held| held.kind == kind).count() as u64
    }

    pub fn is_free(&self, part: usize) -> bool {
        self.of(part).next().is_none()
    }

    /// Whether it has a handle, or is held: the registration stays as long.
    pub fn lives(&self, part: usize) -> bool {
        self.parts[part].owned || !self.is_free(part)
    }

    pub fn is_over(&self) -> bool {
        (0..self.parts.len()).all(|part| !self.lives(part))
    }

    /// Whether who asks is let in.
    pub fn admits(&self, part: usize, kind: Kind) -> bool {
        let beside = match kind.is_shared() {
            true => self.of(part).all(|held| held.kind.is_shared()),
            false => self.is_free(part),
        };
        let closed = kind.is_nic() && self.parts[part].closed;
        beside && !closed && (kind != Kind::NicWrite || self.local_write)
    }

    /// The bytes of a part in this range of it, counted from the start of the registration; `None` if it is empty, or not
    /// inside.
    pub fn place(&self, part: usize, (start, end): (usize, usize)) -> Option<Range<usize>> {
        let Range {
            start: first,
            end: last,
        } = self.parts[part].range;
        let inside = start < end && end <= last - first;
        inside.then(|| first + start..first + end)
    }

    /// Lets somebody in, and gives the name.
    pub fn hold(&mut self, kind: Kind, parts: &[usize], ranges: Vec<Range<usize>>) -> usize {
        let mut each = parts.to_vec();
        each.sort_unstable();
        each.dedup();
        self.names += 1;
        self.held.push(Held {
            name: self.names,
            kind,
            parts: each,
            ranges,
            keys: self.keys,
        });
        self.names
    }

    pub fn held(&self, name: usize) -> Option<&Held> {
        self.held.iter().find(|held| held.name == name)
    }

    pub fn release(&mut self, name: usize) {
        self.held.retain(|held| held.name != name);
    }

    /// The bytes that the hold names, in order.
    pub fn gather(&self, name: usize) -> Vec<u8> {
        let ranges = self.held(name).into_iter().flat_map(|held| &held.ranges);
        ranges
            .flat_map(|range| self.bytes[range.clone()].to_vec())
            .collect()
    }

    /// Puts bytes where the hold says, as far as they go.
    pub fn scatter(&mut self, name: usize, mut bytes: &[u8]) {
        let ranges = self
            .held(name)
            .map_or(Vec::new(), |held| held.ranges.clone());
        for range in ranges {
            let (now, later) = bytes.split_at(range.len().min(bytes.len()));
            self.bytes[range.start..][..now.len()].copy_from_slice(now);
            bytes = later;
        }
    }

    /// Cuts a part in two, and gives the one in front; `None` if it can't be.
    pub fn split(&mut self, part: usize, at: usize) -> Option<usize> {
        let Range { start, end } = self.parts[part].range;
        if at == 0 || at >= end - start || !self.is_free(part) {
            return None;
        }
        self.parts[part].range = start + at..end;
        self.parts.push(Part {
            range: start..start + at,
            ..self.parts[part].clone()
        });
        Some(self.parts.len() - 1)
    }

    /// Joins `next` to `part`, unless that can't be.
    pub fn join(&mut self, part: usize, next: usize) -> bool {
        let adjacent = self.parts[part].range.end == self.parts[next].range.start;
        let joins = adjacent && self.is_free(part) && self.is_free(next);
        if joins {
            let Part { range, closed, .. } = self.parts[next].clone();
            self.parts[part].range.end = range.end;
            self.parts[part].closed |= closed;
            self.parts[next].owned = false;
        }
        joins
    }

    /// Whether a part is held by an operation that began with other keys than those in force.
    pub fn uses_old_keys(&self) -> bool {
        let old = |held: &Held| held.kind.is_nic() && held.keys < self.keys;
        self.held.iter().any(old)
    }

    /// Whether an operation is in flight.
    pub fn is_used_by_nic(&self) -> bool {
        self.held.iter().any(|held| held.kind.is_nic())
    }
}
