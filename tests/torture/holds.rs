//! Beginning operations at random: which bytes, and in which form.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rdma_mr::gate::Holder;
use rdma_mr::op::{Begin, Gather, Hold, Holding, Holds};
use rdma_mr::registration::Registrar;
use rdma_mr::{Error, LocalMr, LocalMrSlice, MrAccess, Result};

use super::forget;
use super::random::Random;
use super::record::Bytes;
use super::region::{Handle, Pool};
use super::report::count;

/// What is done with the holds of a list of any length.
pub trait Consumer {
    fn take<H: Holding>(&mut self, holds: H, bytes: &[Bytes], mrs: &[&LocalMr]);
}

/// One to three ranges, of `length` bytes together or somewhat more.
pub fn plan<R: Registrar>(
    pool: &Pool<R>,
    mut length: usize,
    random: &mut Random,
) -> Option<Vec<Bytes>> {
    let mut pieces = random.pick(&[1, 1, 1, 2, 3]).min(length);
    let mut plan: Vec<Bytes> = Vec::new();
    while pieces > 0 {
        let here = length.div_ceil(pieces);
        let again = plan.last().filter(|_| random.once_in(3));
        let bytes = match again {
            // The next bytes of the same region, with a gap.
            Some(last) => {
                let start = last.range.end + random.below(3);
                let region = Arc::clone(&last.region);
                let range = start..start + here;
                Bytes { region, range }
            }
            None => any(pool.with_room(here, random)?, here, random)?,
        };
        if bytes.range.end > bytes.region.length {
            return None;
        }
        plan.push(bytes);
        pieces -= 1;
        length -= here;
    }
    let twice = |at: usize| {
        let (before, [this, ..]) = plan.split_at(at) else {
            return false;
        };
        let same = |other: &Bytes| {
            Arc::ptr_eq(&other.region, &this.region)
                && other.range.start < this.range.end
                && this.range.start < other.range.end
        };
        before.iter().any(same)
    };
    (!(0..plan.len()).any(twice)).then_some(plan)
}

/// `length` bytes of the region, anywhere.
pub fn any(
    region: Arc<super::region::Region>,
    length: usize,
    random: &mut Random,
) -> Option<Bytes> {
    let room = region.length.checked_sub(length)?;
    let start = match random.once_in(4) {
        true => 0,
        false => random.below(room + 1),
    };
    let range = start..start + length;
    Some(Bytes { region, range })
}

/// Polls a future a few times.
pub fn poll_some<T>(mut future: Pin<&mut impl Future<Output = T>>, polls: usize) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        thread::yield_now();
    }
    None
}

fn soon(random: &mut Random) -> Instant {
    Instant::now() + Duration::from_micros(random.below(300) as u64)
}

fn refused<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(holds) => Some(holds),
        Err(Error::Deadline { .. }) => {
            count("cancel deadline passed");
            None
        }
        Err(_) => {
            count("refused held");
            None
        }
    }
}

/// One region or a part of it.
pub fn one(mr: &LocalMrSlice<'_>, holder: Holder, random: &mut Random) -> Option<Hold> {
    let write = holder == Holder::NicWrite;
    let form = random.below(8);
    if form < 5 {
        return refused(match write {
            true => mr.try_begin_write(),
            false => mr.try_begin_read(),
        });
    }
    if form == 5 {
        return refused(match write {
            true => mr.begin_write_until(soon(random)),
            false => mr.begin_read_until(soon(random)),
        });
    }
    let future = match write {
        true => mr.begin_write_async(),
        false => mr.begin_read_async(),
    };
    let mut future = Box::pin(future);
    match poll_some(future.as_mut(), 1 + random.below(4)) {
        Some(hold) => refused(hold),
        None if form == 6 => {
            count("cancel hold future dropped");
            None
        }
        None => {
            count("cancel hold future forgotten");
            forget(future);
            None
        }
    }
}

/// Several.
fn several<const N: usize>(
    mrs: [&dyn MrAccess; N],
    holder: Holder,
    random: &mut Random,
) -> Option<Holds<N>> {
    let gather = Gather::new(mrs);
    let write = holder == Holder::NicWrite;
    let form = random.below(6);
    if form < 4 {
        return refused(match write {
            true => gather.try_begin_write(),
            false => gather.try_begin_read(),
        });
    }
    if form == 4 {
        return refused(match write {
            true => gather.begin_write_until(soon(random)),
            false => gather.begin_read_until(soon(random)),
        });
    }
    let mut future = pin!(match write {
        true => gather.begin_write_async(),
        false => gather.begin_read_async(),
    });
    let holds = poll_some(future.as_mut(), 1 + random.below(4));
    if holds.is_none() {
        count("cancel gather future dropped");
    }
    refused(holds?)
}

/// Holds all of them and hands them to `consumer`, if nobody is in the way.
pub fn all(
    plan: &[Bytes],
    holder: Holder,
    random: &mut Random,
    consumer: &mut impl Consumer,
) -> Option<()> {
    let handles: Vec<Handle<'_>> = plan
        .iter()
        .map(|bytes| bytes.region.handle())
        .collect::<Option<_>>()?;
    let mrs: Vec<&LocalMr> = handles.iter().map(Handle::mr).collect();
    let slices: Vec<LocalMrSlice<'_>> = plan
        .iter()
        .zip(&mrs)
        .map(|(bytes, mr)| mr.get(bytes.range.clone()).expect("it lies inside"))
        .collect();
    match slices.as_slice() {
        [a] => {
            let hold = one(a, holder, random)?;
            if random.once_in(30) {
                count("cancel hold given back");
                return None;
            }
            consumer.take(hold, plan, &mrs);
        }
        [a, b] => consumer.take(several([a, b], holder, random)?, plan, &mrs),
        [a, b, c] => consumer.take(several([a, b, c], holder, random)?, plan, &mrs),
        _ => return None,
    }
    Some(())
}
