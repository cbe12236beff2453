//! The operations that complete at one poller, by their names.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use rdma_mr::op::{Done, OpId};

use super::record::{Outcome, Record};
use super::report::{count, fail, lock};

/// How many of these are remembered, at least.
const ENDED: usize = 10_000;

#[derive(Default)]
pub struct Hub {
    table: Mutex<Table>,
}

#[derive(Default)]
pub struct Table {
    pub open: HashMap<OpId, Record>,
    /// Of queue pairs that could not be destroyed.
    pub leaked: HashMap<OpId, Record>,
    /// Released by the end of the queue pair; another thread may tell of their completion still, soon.
    ended: HashSet<OpId>,
    ended_before: HashSet<OpId>,
}

impl Table {
    fn has_ended(&mut self, id: &OpId) -> bool {
        self.ended.remove(id) || self.ended_before.remove(id)
    }
}

impl Hub {
    /// For a post: whoever polls meanwhile finds the record once this is given back.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub fn done(&self, done: Done) {
        let mut table = self.table();
        let record = match table.open.remove(&done.id) {
            Some(record) => record,
            // To the poller it was over before the queue pair's end.
            None if table.leaked.remove(&done.id).is_some() => return count("told late, leaked"),
            None if table.has_ended(&done.id) => return count("told late, ended"),
            None => return fail(format_args!("{:?} is not outstanding", done.id)),
        };
        drop(table);
        record.complete(&Outcome {
            status: done.status,
            byte_len: done.byte_len,
            imm: done.imm,
            sequence: done.id.sequence(),
        });
    }

    /// That queue pair is gone, or could not be destroyed. How many operations that ended.
    pub fn end(&self, owner: u64, destroyed: bool) -> usize {
        let mut table = self.table();
        let is_its = |(id, record): (&OpId, &Record)| (record.owner == owner).then_some(*id);
        let ids: Vec<OpId> = table.open.iter().filter_map(is_its).collect();
        let remove = |id: OpId| Some((id, table.open.remove(&id)?));
        let mut its: Vec<_> = ids.into_iter().filter_map(remove).collect();
        let count = its.len();
        if destroyed {
            if table.ended.len() > ENDED {
                table.ended_before = std::mem::take(&mut table.ended);
            }
            table.ended.extend(its.iter().map(|(id, _)| *id));
            drop(table);
            its.into_iter().for_each(|(_, record)| record.unknown());
        } else {
            its.iter_mut().for_each(|(_, record)| record.leaked());
            table.leaked.extend(its);
        }
        count
    }

    pub fn outstanding(&self, owner: u64) -> usize {
        let table = self.table();
        let its = table.open.values().filter(|record| record.owner == owner);
        its.count()
    }

    /// For people, when nothing moves.
    pub fn describe(&self) -> String {
        let table = self.table();
        let records = table.open.iter().map(|(id, record)| {
            let regions = record.to.iter().flat_map(|to| to.regions());
            let states: Vec<String> = regions
                .chain(&record.from)
                .filter_map(|region| Some(region.handle()?.mr().state().to_string()))
                .collect();
            let age = record.born.elapsed();
            format!("  {id:?} {} since {age:?}: {states:?}\n", record.kind)
        });
        records.collect()
    }
}
