//! Lists of work requests in one post, good ones and such with a bad one in the middle (R10).

use std::sync::Arc;

use rdma_mr::gate::Holder;
use rdma_mr::op::{Hold, PartlyPosted, SendRequest};
use rdma_mr::work::{QueuePair, SendFlags, SendOp};

use super::holds::any;
use super::lane::Lane;
use super::ops::{LONGEST, Plan, What, plan_of, posted, prepare, refused, shape, single};
use super::random::Random;
use super::record::{Effect, Record};
use super::report::count;
use super::{Victim, World};

impl<F: Victim> Lane<F> {
    fn of_list(
        &mut self,
        world: &World<F>,
        side: usize,
        random: &mut Random,
    ) -> Option<(Hold, Plan)> {
        let what = random.pick(&[What::Send, What::Write, What::Read, What::FetchAdd]);
        let (length, holder) = shape(what, false, random);
        let mut bytes = plan_of(world, what, length.min(LONGEST), random)?;
        bytes.truncate(1);
        let hold = single(&bytes[0], holder, random)?;
        let handle = bytes[0].region.handle()?;
        let pair = Some(Arc::clone(&self.pair));
        let record = Record::new("", self.ends[side].owner, pair);
        let plan = prepare(world, what, record, &bytes, &[handle.mr()], random)?;
        Some((hold, plan))
    }

    /// Posts a list of three to a send queue.
    pub fn send_list(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        let side = random.below(2);
        if self.inboxes[1 - side].by_imm {
            return None;
        }
        let (mut requests, mut records, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        while let (true, Some((holds, plan))) =
            (requests.len() < 3, self.of_list(world, side, random))
        {
            let mut op = plan.op;
            if let (SendOp::FetchAdd { remote, .. }, true) = (&mut op, random.once_in(2)) {
                remote.addr += 1;
            }
            let mut flags = SendFlags::empty();
            flags.set(SendFlags::SIGNALED, !random.once_in(3));
            requests.push(SendRequest { holds, op, flags });
            let message = plan.message;
            keys.push(message.map(|message| self.announce(1 - side, message)));
            records.push(plan.record);
        }
        let count_posted = match requests.try_into() {
            Ok(requests) => {
                let requests: [SendRequest<Hold>; 3] = requests;
                let end = &mut self.ends[side];
                let mut table = end.hub.table();
                let (first, posted_ones) = match end.endpoint.post_list(requests) {
                    Ok(first) => {
                        count("list posted");
                        (first, 3)
                    }
                    Err(PartlyPosted {
                        first,
                        posted,
                        error,
                    }) => {
                        refused(&error);
                        count(if posted > 0 {
                            "list partly posted"
                        } else {
                            "list refused"
                        });
                        (first, posted)
                    }
                };
                for (at, record) in (0..).zip(records.drain(..posted_ones)) {
                    posted(&mut table, first.after(at), record);
                }
                posted_ones
            }
            Err(_) => 0,
        };
        records.into_iter().for_each(Record::cancel);
        for key in keys.drain(count_posted..).rev().flatten() {
            self.recall(1 - side, key);
        }
        Some(())
    }

    /// Posts a list of two receives.
    pub fn recv_list(&mut self, world: &World<F>, random: &mut Random) -> Option<()> {
        let side = random.below(2);
        if self.ends[side].endpoint.qp().caps().max_recv_wr == 0 {
            return None;
        }
        let (mut list, mut records) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let bytes = any(world.pool.large(random)?, LONGEST + 100, random)?;
            let Some(hold) = single(&bytes, Holder::NicWrite, random) else {
                break;
            };
            let Some(handle) = bytes.region.handle() else {
                break;
            };
            let pair = Some(Arc::clone(&self.pair));
            let mut record = Record::new("op RECV", self.ends[side].owner, pair);
            record.inbox = Some(Arc::clone(&self.inboxes[side]));
            record.words = 1;
            let bytes = std::slice::from_ref(&bytes);
            // SAFETY: the hold is exclusive, and not posted yet.
            record.to = Some(unsafe { Effect::begin(bytes, &[handle.mr()], None) });
            list.push(hold);
            records.push(record);
        }
        if let Ok(list) = <[Hold; 2]>::try_from(list) {
            let end = &mut self.ends[side];
            let mut table = end.hub.table();
            let (first, count_posted) = match end.endpoint.recv_list(list) {
                Ok(first) => (first, 2),
                Err(partly) => {
                    refused(&partly.error);
                    (partly.first, partly.posted)
                }
            };
            for (at, record) in (0..).zip(records.drain(..count_posted)) {
                posted(&mut table, first.after(at), record);
            }
        }
        records.into_iter().for_each(Record::cancel);
        Some(())
    }
}
