//! Moving the bytes of one message: walks two scatter/gather lists side by side, resolves each
//! element when its turn comes and copies packet by packet.

use std::ptr::NonNull;
use std::sync::Arc;

use super::MTU;
use super::memory::{KeyKind, KeyTable, Mr};
use crate::Access;
use crate::raw::{self, Whole};
use crate::work::Sge;

/// One side of a message: elements that are named by keys, or bytes of the NIC's own.
pub(super) struct Cursor<'a> {
    elements: &'a [Sge],
    kind: KeyKind,
    pd: u64,
    needs: Access,
    /// The element whose turn it is.
    index: usize,
    /// Bytes of it that are done.
    done: u32,
    place: Option<Place>,
}

/// Where an element is.
struct Place {
    /// `None` for the NIC's own bytes.
    mr: Option<Arc<Mr>>,
    start: NonNull<u8>,
    length: u32,
}

/// Why one side can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Unknown or stale key, other protection domain, outside of the bounds, right missing.
    Protection,
    /// No element is left.
    Exhausted,
}

/// Why a transfer ended early. What was copied before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken<I> {
    /// The source refused.
    From(Refused),
    /// The target refused.
    To(Refused),
    /// The observer said so.
    Interrupted(I),
}

impl<'a> Cursor<'a> {
    /// Elements of this side.
    pub(super) fn local(elements: &'a [Sge], pd: u64, needs: Access) -> Self {
        Self::new(elements, KeyKind::Local, pd, needs)
    }

    /// Bytes that a peer named: `element.lkey` is an rkey here.
    pub(super) fn remote(element: &'a [Sge; 1], pd: u64, needs: Access) -> Self {
        Self::new(element, KeyKind::Remote, pd, needs)
    }

    /// The NIC's own bytes, such as an inline message.
    pub(super) fn own(bytes: &'a [u8]) -> Self {
        let mut cursor = Self::new(&[], KeyKind::Local, 0, Access::empty());
        cursor.place = Some(Place {
            mr: None,
            start: NonNull::from(bytes).cast(),
            length: bytes.len() as u32,
        });
        cursor
    }

    fn new(elements: &'a [Sge], kind: KeyKind, pd: u64, needs: Access) -> Self {
        Cursor {
            elements,
            kind,
            pd,
            needs,
            index: 0,
            done: 0,
            place: None,
        }
    }

    /// Finds the place of the next byte, unless it is known.
    fn seek(&mut self, keys: &KeyTable) -> Result<(), Refused> {
        loop {
            match &self.place {
                Some(place) if self.done < place.length => return Ok(()),
                _ => {}
            }
            let element = self.elements.get(self.index).ok_or(Refused::Exhausted)?;
            self.index += 1;
            self.done = 0;
            self.place = None;
            if element.length == 0 {
                // Names no byte: the key is not looked at.
                continue;
            }
            let (mr, start) = keys
                .resolve(
                    (self.kind, element.lkey),
                    self.pd,
                    self.needs,
                    element.addr,
                    u64::from(element.length),
                )
                .ok_or(Refused::Protection)?;
            self.place = Some(Place {
                mr: Some(mr),
                start,
                length: element.length,
            });
        }
    }

    /// Bytes that are left at the place; 0 before a successful [`Cursor::seek`].
    fn left(&self) -> usize {
        self.place
            .as_ref()
            .map_or(0, |place| (place.length - self.done) as usize)
    }

    /// The registration and the next byte; after a successful [`Cursor::seek`].
    fn here(&self) -> Option<(Option<&Arc<Mr>>, *mut u8)> {
        let place = self.place.as_ref()?;
        // SAFETY: `done <= length`, and `length` bytes from `start` lie inside of the registration
        // (or are the NIC's own).
        let at = unsafe { place.start.add(self.done as usize) };
        Some((place.mr.as_ref(), at.as_ptr()))
    }
}

/// Copies `length` bytes. Before each packet `go_on` is asked, with the bytes done so far.
pub(super) fn transfer<I>(
    keys: &KeyTable,
    from: &mut Cursor<'_>,
    to: &mut Cursor<'_>,
    length: u64,
    mut go_on: impl FnMut(u64) -> Result<(), I>,
) -> Result<(), Broken<I>> {
    let mut done = 0;
    while done < length {
        go_on(done).map_err(Broken::Interrupted)?;
        from.seek(keys).map_err(Broken::From)?;
        to.seek(keys).map_err(Broken::To)?;
        let step = from.left().min(to.left()).min(MTU);
        copy_packet(from, to, step)?;
        from.done += step as u32;
        to.done += step as u32;
        done += step as u64;
    }
    Ok(())
}

/// Copies `length` bytes, at most what is left at both places.
fn copy_packet<I>(from: &Cursor<'_>, to: &Cursor<'_>, length: usize) -> Result<(), Broken<I>> {
    let (from_mr, from) = from.here().ok_or(Broken::From(Refused::Exhausted))?;
    let (to_mr, to) = to.here().ok_or(Broken::To(Refused::Exhausted))?;
    // Both registrations are held off from ending during the copy: DEREG-1. One that is on both
    // sides is locked once.
    let _from_pin = match from_mr {
        None => None,
        Some(mr) => Some(mr.pin().ok_or(Broken::From(Refused::Protection))?),
    };
    let _to_pin = match (from_mr, to_mr) {
        (_, None) => None,
        (Some(from), Some(to)) if Arc::ptr_eq(from, to) => None,
        (_, Some(mr)) => Some(mr.pin().ok_or(Broken::To(Refused::Protection))?),
    };
    raw::barrier();
    // SAFETY: RAW-1 by REG-4: the registrations were in force when they were pinned, so their bytes are
    // allocated, and writable on the target's side (`resolve` asked for a write right). Both
    // pointers have `length` bytes left inside of the registration. POST-1, POST-2: nobody else
    // touches them in a way that a device's access would not allow.
    unsafe { raw::copy(from, to, length, Whole::To) };
    Ok(())
}

/// What an atomic operation does to the peer's integer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// FETCH_ADD.
    Add(u64),
    /// CMP_SWAP.
    Swap {
        /// What it has to be,
        compare: u64,
        /// and what it becomes then.
        swap: u64,
    },
}

/// Changes the integer at the cursor, in one go; returns what it was.
pub(super) fn change_word(
    keys: &KeyTable,
    word: &mut Cursor<'_>,
    change: Change,
) -> Result<u64, Refused> {
    word.seek(keys)?;
    let (Some(mr), at) = word.here().ok_or(Refused::Exhausted)? else {
        return Err(Refused::Protection);
    };
    if word.left() < size_of::<u64>() || !at.cast::<u64>().is_aligned() {
        return Err(Refused::Protection);
    }
    // DEREG-1: as in `copy_packet`.
    let _pin = mr.pin().ok_or(Refused::Protection)?;
    raw::barrier();
    // SAFETY: RAW-2 by REG-4, as in `copy_packet`: 8 bytes are left there, aligned, pinned and writable.
    Ok(unsafe {
        match change {
            Change::Add(add) => raw::fetch_add(at, add),
            Change::Swap { compare, swap } => raw::compare_swap(at, compare, swap),
        }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Fixture {
        keys: KeyTable,
        bytes: Vec<u8>,
        mr: Arc<Mr>,
    }

    /// A registration of 10,000 bytes, of which the first half counts up.
    fn fixture() -> Fixture {
        let keys = KeyTable::new();
        let mut bytes: Vec<u8> = (0..10_000_u32)
            .map(|i| if i < 5000 { i as u8 | 1 } else { 0 })
            .collect();
        let start = NonNull::from(bytes.as_mut_slice()).cast();
        let mr = keys
            .insert(start, bytes.len(), Access::LOCAL_WRITE, 1)
            .unwrap();
        Fixture { keys, bytes, mr }
    }

    impl Fixture {
        fn sge(&self, offset: u64, length: u32) -> Sge {
            Sge {
                addr: self.bytes.as_ptr() as u64 + offset,
                length,
                lkey: self.mr.lkey,
            }
        }
    }

    #[test]
    fn lists_of_different_shape() {
        let f = fixture();
        let from = [f.sge(0, 1), f.sge(0, 0), f.sge(1, 2999), f.sge(3000, 2000)];
        let to = [f.sge(5000, 4500), f.sge(9500, 500)];
        let mut packets = 0;
        transfer::<()>(
            &f.keys,
            &mut Cursor::local(&from, 1, Access::empty()),
            &mut Cursor::local(&to, 1, Access::LOCAL_WRITE),
            5000,
            |_| {
                packets += 1;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(packets, 4);
        assert_eq!(f.bytes[..5000], f.bytes[5000..]);
    }

    #[test]
    fn what_came_before_stays() {
        let f = fixture();
        let stale = Sge {
            lkey: 0,
            ..f.sge(3000, 100)
        };
        let from = [f.sge(0, 3000), stale];
        let to = [f.sge(5000, 5000)];
        let end = transfer::<()>(
            &f.keys,
            &mut Cursor::local(&from, 1, Access::empty()),
            &mut Cursor::local(&to, 1, Access::LOCAL_WRITE),
            3100,
            |_| Ok(()),
        );
        assert_eq!(end, Err(Broken::From(Refused::Protection)));
        assert_eq!(f.bytes[..3000], f.bytes[5000..8000]);
        assert!(f.bytes[8000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_target_that_is_too_short() {
        let f = fixture();
        let to = [f.sge(5000, 5)];
        let end = transfer::<()>(
            &f.keys,
            &mut Cursor::own(b"sixsix"),
            &mut Cursor::local(&to, 1, Access::LOCAL_WRITE),
            6,
            |_| Ok(()),
        );
        assert_eq!(end, Err(Broken::To(Refused::Exhausted)));
        assert_eq!(&f.bytes[5000..5006], b"sixsi\0");
    }

    #[test]
    fn ended_between_two_packets() {
        let f = fixture();
        let from = [f.sge(0, 5000)];
        let to = [f.sge(5000, 5000)];
        let end = transfer::<()>(
            &f.keys,
            &mut Cursor::local(&from, 1, Access::empty()),
            &mut Cursor::local(&to, 1, Access::LOCAL_WRITE),
            5000,
            |done| {
                if done == MTU as u64 {
                    f.keys.remove(&f.mr);
                }
                Ok(())
            },
        );
        assert_eq!(end, Err(Broken::From(Refused::Protection)));
        assert!(f.bytes[5000 + MTU..].iter().all(|byte| *byte == 0));
    }
}
