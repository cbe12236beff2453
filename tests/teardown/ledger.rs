//! What was registered and what was freed, and whether that went in the right order (R14).

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use rdma_mr::registration::StableMemory;

use crate::watched::Event;

/// What freed memory is filled with.
const FREED: u8 = 0xDD;

/// Counts the registrations in force and the memory that was given back; notes what must not be.
#[derive(Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    in_force: Vec<(u32, Range<usize>)>,
    made: usize,
    freed: usize,
    /// How often the provider is to refuse from now on.
    refusals: usize,
    /// Memory that was freed and is kept, to see that nobody writes it.
    graves: Vec<Box<[u8]>>,
    faults: Vec<String>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap()
    }

    /// Registrations in force.
    pub fn registered(&self) -> usize {
        self.entries().in_force.len()
    }

    /// How many pieces of memory there are.
    pub fn in_use(&self) -> usize {
        let entries = self.entries();
        entries.made - entries.freed
    }

    /// The provider refuses to end the next registration whose end is asked for.
    pub fn refuse_once(&self) {
        self.entries().refusals += 1;
    }

    /// To be told by the registrar.
    pub fn enter(&self, event: Event) -> io::Result<()> {
        let entries = &mut *self.entries();
        match event {
            Event::Registered { key, addr, length } => {
                entries.in_force.push((key, addr..addr + length));
            }
            Event::Ends { .. } if entries.refusals > 0 => {
                entries.refusals -= 1;
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            Event::Ends { key } => {
                if !entries.in_force.iter().any(|(other, _)| *other == key) {
                    entries.faults.push(format!("{key:#x} is ended twice"));
                }
            }
            Event::Ended { key } => entries.in_force.retain(|(other, _)| *other != key),
        }
        Ok(())
    }

    /// All of it has come to its end, in the right order, and nobody wrote what was freed.
    #[track_caller]
    pub fn check(&self) {
        let entries = self.entries();
        assert_eq!(entries.faults, [""; 0]);
        assert!(entries.in_force.is_empty(), "{:x?}", entries.in_force);
        assert_eq!(entries.freed, entries.made, "memory was not given back");
        assert_eq!(entries.refusals, 0);
        for grave in &entries.graves {
            assert!(
                grave.iter().all(|byte| *byte == FREED),
                "freed memory was written: {grave:x?}"
            );
        }
    }
}

/// Memory whose end is entered. Freed, it is kept until the ledger is gone, or not.
pub struct Bytes {
    bytes: Box<[u8]>,
    ledger: Arc<Ledger>,
    bury: bool,
}

impl Bytes {
    pub fn new(ledger: &Arc<Ledger>, length: usize, bury: bool) -> Self {
        ledger.entries().made += 1;
        Bytes {
            bytes: vec![1; length].into(),
            ledger: ledger.clone(),
            bury,
        }
    }
}

// SAFETY: MEM-1 to MEM-4: as of the box.
unsafe impl StableMemory for Bytes {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        <[u8]>::as_mut_ptr(&mut self.bytes)
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let entries = &mut *self.ledger.entries();
        let start = self.bytes.as_ptr() as usize;
        let end = start + self.bytes.len();
        let meets = |other: &Range<usize>| other.start < end && start < other.end;
        let in_force = entries.in_force.iter();
        for (key, _) in in_force.filter(|(_, range)| meets(range)) {
            let fault = format!("{key:#x} is in force, its memory is freed");
            entries.faults.push(fault);
        }
        entries.freed += 1;
        if self.bury {
            self.bytes.fill(FREED);
            entries.graves.push(std::mem::take(&mut self.bytes));
        }
    }
}
