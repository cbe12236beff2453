//! What the CPU does: guards, and writing.

use rdma_mr::MrReadGuard;
use rdma_mr::{LocalMrReadAccess, LocalMrWriteAccess};

use super::Bytes;
use super::world::{Guard, World};
use crate::reference::Kind;

impl World {
    pub fn read(&mut self, part: u8, bytes: Bytes) {
        let Some(part) = self.part(part) else {
            return;
        };
        let (start, end) = self.range(part, bytes);
        let range = self.reference.place(part, (start, end));
        let slice = self.mr(part).get(start..end);
        assert_eq!(slice.is_ok(), range.is_some());
        let (Ok(slice), Some(range)) = (slice, range) else {
            return;
        };
        let guard = slice.try_as_slice().map(|guard| {
            // SAFETY: the part is boxed, and neither moved out of its box nor changed while it has guards.
            unsafe { std::mem::transmute::<MrReadGuard<'_>, MrReadGuard<'static>>(guard) }
        });
        let admitted = self.reference.admits(part, Kind::CpuRead);
        assert_eq!(guard.is_some(), admitted);
        if let Some(bytes) = guard {
            assert_eq!(*bytes, self.reference.bytes[range.clone()]);
            let ranges = vec![range.clone()];
            let name = self.reference.hold(Kind::CpuRead, &[part], ranges);
            self.guards.push(Guard {
                part,
                range,
                name,
                bytes,
            });
        }
    }

    pub fn end_read(&mut self, at: usize) {
        let guard = self.guards.swap_remove(at);
        assert_eq!(*guard.bytes, self.reference.bytes[guard.range]);
        self.reference.release(guard.name);
    }

    pub fn write(&mut self, part: u8, bytes: Bytes, byte: u8) {
        let Some(part) = self.unborrowed(part) else {
            return;
        };
        let (start, end) = self.range(part, bytes);
        let range = self.reference.place(part, (start, end));
        let admitted = self.reference.admits(part, Kind::CpuWrite);
        let mr = self.parts[part].as_mut().expect("it has a handle");
        let slice = mr.get_mut(start..end);
        assert_eq!(slice.is_ok(), range.is_some());
        let (Ok(mut slice), Some(range)) = (slice, range) else {
            return;
        };
        let guard = slice.try_as_mut_slice();
        assert_eq!(guard.is_some(), admitted);
        if let Some(mut guard) = guard {
            assert_eq!(*guard, self.reference.bytes[range.clone()]);
            guard.fill(byte);
            self.reference.bytes[range].fill(byte);
        }
    }
}
