//! What is lent, and what peers do with it.

use std::time::Duration;

use rdma_mr::backend::soft::QueuePair;
use rdma_mr::op::{Begin, Endpoint};
use rdma_mr::work::{QpCaps, RemoteAddr, WcStatus};
use rdma_mr::{Access, Lend, RemoteMr};

use super::Bytes;
use super::wire::{self, Posted, What};
use super::world::{Lent, World, kind};

const DAY: Duration = Duration::from_secs(24 * 3600);

impl World {
    pub fn lease(&mut self, part: u8, bytes: Bytes, rights: u8) {
        let Some(part) = self.part(part) else {
            return;
        };
        let (start, end) = self.range(part, bytes);
        let rights = Access::from_bits_truncate(rights.into());
        let lease = self.mr(part).try_lease(start..end, rights, DAY);
        let rights = rights & Access::REMOTE;
        let kind = kind(rights.lets_peers_write());
        let range = self.reference.place(part, (start, end));
        let range = range.filter(|_| !rights.is_empty() && self.reference.admits(part, kind));
        assert_eq!(lease.is_ok(), range.is_some(), "{lease:?}");
        if let (Ok(lease), Some(range)) = (lease, range) {
            let name = self.reference.hold(kind, &[part], vec![range.clone()]);
            self.leases.push(Lent {
                token: lease.token(),
                lease: Some(lease),
                range,
                rights,
                name,
            });
        }
    }

    pub fn end_lease(&mut self, at: usize, dropped: bool) {
        if self.wire.uses(at) {
            return; // the queue pair would end with it
        }
        let lent = &mut self.leases[at];
        if let Some(lease) = lent.lease.take() {
            if !dropped {
                lease.revoke().expect("no fault was injected");
                assert!(lease.is_revoked());
            }
            drop(lease);
            self.reference.release(lent.name);
        }
    }

    /// A peer that has the token.
    pub fn peer(&mut self, at: usize, bytes: Bytes) {
        let Lent {
            lease,
            token,
            range,
            rights,
            ..
        } = &self.leases[at];
        let writes = rights.contains(Access::REMOTE_WRITE);
        if lease.is_none() || !writes && !rights.contains(Access::REMOTE_READ) {
            return;
        }
        let (start, end) = (usize::from(bytes.0) % range.len(), usize::from(bytes.1));
        let length = 1 + end % (range.len() - start);
        let mut remote = RemoteMr::new(*token).expect("a day has not passed");
        let remote = remote.get_mut(start..start + length).expect("inside");
        let part = self.far.get(..length).expect("inside");
        let hold = match writes {
            true => part.try_begin_read(),
            false => part.try_begin_write(),
        };
        let Ok(hold) = hold else {
            return; // another one is under way
        };
        let posted = match writes {
            true => self.endpoint.write(hold, remote, None),
            false => self.endpoint.read(hold, remote),
        };
        let full = self.wire.sends.len() == wire::CAPS.max_send_wr as usize;
        assert_eq!(posted.is_err(), full);
        if posted.is_ok() {
            self.wire.sends.push_back(Posted {
                what: What::Peer {
                    lease: at,
                    start: range.start + start,
                    length,
                    writes,
                },
                name: None,
                length,
            });
        }
    }

    /// Somebody with a key, who writes where it may not be good: by a queue pair that may end with it.
    pub fn intrude(&mut self, at: usize, offset: i8, length: u8) {
        while self.nic() {}
        let Lent {
            lease,
            token,
            range,
            rights,
            ..
        } = &self.leases[at];
        let length = 1 + usize::from(length) % 8;
        let start = range.start as isize + isize::from(offset);
        let inside = range.start as isize <= start && start + length as isize <= range.end as isize;
        let may = lease.is_some() && inside && rights.contains(Access::REMOTE_WRITE);
        let remote = RemoteAddr {
            addr: token.addr().wrapping_add_signed(offset.into()),
            rkey: token.rkey(),
        };
        let Ok(hold) = self
            .far
            .get(..length)
            .and_then(|part| part.try_begin_read())
        else {
            return;
        };
        let ends = [(); 2].map(|()| {
            let cq = self.nic.create_cq(2).expect("2 completions");
            self.pd
                .create_qp(&cq, &cq, QpCaps::default())
                .expect("small")
        });
        QueuePair::connect_pair(&ends[0], &ends[1]).expect("new ones");
        let mut ends = ends.map(Endpoint::new);
        ends[0].write(hold, remote, None).expect("there is room");
        self.nic.run_until_idle();
        let mut status = None;
        let count = ends[0].poll(|done| status = Some(done.status));
        assert_eq!(count.ok(), Some(1));
        let expected = if may {
            WcStatus::Success
        } else {
            WcStatus::RemAccessErr
        };
        assert_eq!(status, Some(expected));
        if may {
            let bytes = &self.far_bytes[..length];
            self.reference.bytes[start as usize..][..length].copy_from_slice(bytes);
        }
    }
}
