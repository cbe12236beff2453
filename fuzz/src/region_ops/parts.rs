//! Keys, parts and handles.

use rdma_mr::{Access, LocalMrReadAccess, MrAccess};

use super::world::World;

impl World {
    pub fn rotate(&mut self, part: u8, rights: u8) {
        let Some(part) = self.part(part) else {
            return;
        };
        let rights = Access::from_bits_truncate(rights.into());
        let mr = self.mr(part);
        let before = mr.lkey();
        let changed = mr.reregister(rights);
        assert_eq!(changed.is_ok(), !rights.lets_peers_write(), "{changed:?}");
        if changed.is_ok() {
            assert_ne!(mr.lkey(), before);
            assert_eq!(mr.access(), rights);
            self.reference.keys += 1;
            self.reference.local_write = rights.contains(Access::LOCAL_WRITE);
        }
    }

    pub fn retire(&mut self, part: u8) {
        let Some(part) = self.part(part) else {
            return;
        };
        let retired = self.mr(part).try_retire();
        if retired.is_ok() {
            assert_eq!(self.mr(part).registrations(), 1);
        } else {
            assert!(self.reference.is_used_by_nic(), "{retired:?}");
        }
    }

    pub fn split(&mut self, part: u8, at: u8, front: bool) {
        let Some(part) = self.unborrowed(part) else {
            return;
        };
        let (at, _) = self.range(part, (at, 0));
        let number = self.reference.split(part, at);
        let mr = self.parts[part].as_mut().expect("it has a handle");
        let split = match front {
            true => mr.split_to(at),
            false => mr.split_off(at),
        };
        assert_eq!(split.is_ok(), number.is_some(), "{split:?}");
        if let (Ok(split), Some(number)) = (split, number) {
            assert_eq!(number, self.parts.len());
            self.parts.push(Some(Box::new(split)));
            if !front {
                self.parts.swap(part, number);
            }
        }
    }

    pub fn join(&mut self, part: u8, next: u8) {
        let (Some(part), Some(next)) = (self.unborrowed(part), self.unborrowed(next)) else {
            return;
        };
        if part == next {
            return;
        }
        let joins = self.reference.join(part, next);
        let taken = self.parts[next].take().expect("it has a handle");
        let mr = self.parts[part].as_mut().expect("it has a handle");
        let joined = mr.unsplit(*taken);
        assert_eq!(joined.is_ok(), joins, "{joined:?}");
        if let Err(rejected) = joined {
            self.parts[next] = Some(Box::new(rejected.value));
        }
    }

    pub fn drop_part(&mut self, part: usize) {
        self.parts[part] = None;
        self.reference.parts[part].owned = false;
    }

    pub fn close(&mut self, part: usize) {
        let mut others = (0..self.parts.len()).filter(|other| *other != part);
        let alone = !others.any(|other| self.reference.lives(other));
        let closes = alone && self.reference.is_free(part);
        let mr = self.parts[part].take().expect("it has a handle");
        match mr.close() {
            Ok(memory) => {
                assert!(closes);
                self.reference.parts[part].owned = false;
                drop(memory);
            }
            Err((mr, error)) => {
                assert!(!closes, "{error}");
                self.parts[part] = Some(Box::new(mr));
            }
        }
    }
}
