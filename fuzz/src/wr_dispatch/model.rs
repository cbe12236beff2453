//! What is outstanding, as lists.

use std::collections::VecDeque;

use rdma_mr::work::{WcStatus, WorkCompletion};

use crate::place;

/// Which queue; queue pairs by their numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Name {
    Sends(u32),
    Recvs(u32),
    Shared,
}

/// The region, and whether the NIC writes it.
type Held = (usize, bool);

struct Item {
    wr_id: u64,
    held: Option<Held>,
    /// Whether its success has a completion, too.
    signaled: bool,
    over: bool,
}

/// A queue, from its oldest work request that is not over on.
#[derive(Default)]
pub struct Queue(VecDeque<Item>);

impl Queue {
    pub fn push(&mut self, wr_id: u64, held: Option<Held>, signaled: bool) {
        assert!(self.0.iter().all(|item| item.over || item.wr_id != wr_id));
        self.0.push_back(Item {
            wr_id,
            held,
            signaled,
            over: false,
        });
    }

    pub fn is_full(&self, capacity: usize) -> bool {
        self.0.len() >= capacity
    }

    pub fn outstanding(&self) -> usize {
        self.left().count()
    }

    fn left(&self) -> impl Iterator<Item = &Item> {
        self.0.iter().filter(|item| !item.over)
    }

    fn pass(&mut self) {
        while self.0.front().is_some_and(|item| item.over) {
            self.0.pop_front();
        }
    }
}

/// All of them, and all names that were ever given.
#[derive(Default)]
pub struct Model {
    queues: Vec<(Name, Queue)>,
    pub ids: Vec<(Name, u64)>,
    /// The numbers, in `wr_id`s, of queue pairs that are gone.
    gone: Vec<u64>,
}

impl Model {
    pub fn queue(&mut self, name: Name) -> &mut Queue {
        self.remember();
        let found = self.queues.iter().position(|(known, _)| *known == name);
        let at = found.unwrap_or_else(|| {
            self.queues.push((name, Queue::default()));
            self.queues.len() - 1
        });
        &mut self.queues[at].1
    }

    pub fn queue_of(&self, name: Name) -> Option<&Queue> {
        let mut queues = self.queues.iter();
        queues
            .find(|(known, _)| *known == name)
            .map(|(_, queue)| queue)
    }

    /// What was pushed since the last call is a name from now on.
    fn remember(&mut self) {
        for (name, queue) in &self.queues {
            if let Some(last) = queue.0.back() {
                let id = (*name, last.wr_id);
                if !self.ids.contains(&id) {
                    self.ids.push(id);
                }
            }
        }
    }

    /// One that is outstanding.
    pub fn outstanding(&self, at: u8) -> Option<u64> {
        let all = || self.queues.iter().flat_map(|(_, queue)| queue.left());
        let at = place(at, all().count())?;
        all().nth(at).map(|item| item.wr_id)
    }

    /// A completion: whether it is of anything. What it says is over is put to `told`.
    pub fn complete(&mut self, wc: &WorkCompletion, told: &mut Vec<(u64, WcStatus)>) -> bool {
        for (name, queue) in &mut self.queues {
            let number = match *name {
                Name::Sends(number) | Name::Recvs(number) => number,
                Name::Shared => wc.qp_num,
            };
            let is_it = |item: &Item| !item.over && item.wr_id == wc.wr_id;
            let Some(at) = queue.0.iter().position(is_it) else {
                continue;
            };
            if number != wc.qp_num {
                return false;
            }
            if let Name::Sends(_) = name {
                let mut sure = true;
                for item in queue.0.drain(..at) {
                    // A flush does not say that those before it are done, and of a signalled one the completion was
                    // lost.
                    sure &= wc.status != WcStatus::WrFlushErr || !item.signaled;
                    let status = if sure { WcStatus::Success } else { wc.status };
                    told.push((item.wr_id, status));
                }
                queue.0.pop_front();
            } else {
                queue.0[at].over = true;
                match name {
                    Name::Shared => drop(queue.0.remove(at)),
                    _ => queue.pass(),
                }
            }
            told.push((wc.wr_id, wc.status));
            return true;
        }
        false
    }

    /// Whether a completion that is of nothing is told as unknown for sure. Of those with the number of a queue
    /// pair that is gone it is not, and that number is known only if something was posted there.
    pub fn is_surprise(&self, wc: &WorkCompletion) -> bool {
        let number = number(wc.wr_id);
        let mut live = self.queues.iter().flat_map(|(_, queue)| &queue.0);
        live.any(|item| self::number(item.wr_id) == number) && !self.gone.contains(&number)
    }

    pub fn gone(&mut self, qp: u32) {
        self.remember();
        let own = |name: &Name| matches!(*name, Name::Sends(n) | Name::Recvs(n) if n == qp);
        let ids = self.ids.iter().filter(|(name, _)| own(name));
        self.gone.extend(ids.map(|(_, wr_id)| number(*wr_id)));
        self.queues.retain(|(name, _)| !own(name));
    }

    /// How many reads and writes of the NIC hold the region.
    pub fn held(&self, region: usize) -> (u64, u64) {
        let items = self.queues.iter().flat_map(|(_, queue)| queue.left());
        let held = items
            .filter_map(|item| item.held)
            .filter(|(at, _)| *at == region);
        held.fold((0, 0), |(reads, writes), (_, written)| match written {
            true => (reads, writes + 1),
            false => (reads + 1, writes),
        })
    }
}

/// The number of the queue in a `wr_id`.
fn number(wr_id: u64) -> u64 {
    wr_id << 1 >> 49
}
