//! Keys that change while operations, futures and peers use them. What began under the old ones goes on
//! under them: that no operation fails for it is asked of each that fails, see `Record::complete`.

use std::time::{Duration, Instant};

use rdma_mr::{Access, Error, LocalMr, Result};

use super::holds::poll_some;
use super::random::Random;
use super::region::Region;
use super::report::{count, fail};
use super::{Role, forget};

/// New keys for the region and all that share its registration, and the old ones ended or not.
pub fn rotate(mr: &LocalMr, role: Role, random: &mut Random) {
    let rotated = match random.once_in(2) {
        true => mr.rotate_keys(),
        false => mr.reregister(Access::all()),
    };
    match rotated {
        Ok(()) => count("rotation of keys"),
        Err(Error::Register(_)) if role == Role::Refusing => count("fault rotation refused"),
        Err(error) => fail(format_args!("a rotation says: {error}")),
    }
    if random.once_in(2) {
        retire(mr, role, random);
    }
}

fn retire(mr: &LocalMr, role: Role, random: &mut Random) {
    let soon = Duration::from_micros(random.below(500) as u64);
    let retired: Option<Result<()>> = match random.below(3) {
        0 => Some(mr.try_retire()),
        1 => Some(mr.retire_until(Instant::now() + soon)),
        _ => {
            let mut future = Box::pin(mr.retire_async());
            let retired = poll_some(future.as_mut(), 1 + random.below(5));
            if retired.is_none() && random.once_in(2) {
                forget(future);
            }
            retired
        }
    };
    match retired {
        Some(Ok(())) => count("rotation retired"),
        Some(Err(Error::Held { .. })) => count("rotation held up"),
        Some(Err(Error::Deadline { .. })) => count("rotation held up until a deadline"),
        Some(Err(Error::Deregister(_))) if role == Role::Refusing => {
            count("fault retirement refused");
        }
        Some(Err(error)) => fail(format_args!("a retirement says: {error}")),
        None => count("rotation abandoned as a future"),
    }
}

impl Region {
    /// See [`rotate`].
    pub fn rotate(&self, role: Role, random: &mut Random) -> Option<()> {
        rotate(self.handle()?.mr(), role, random);
        Some(())
    }

    /// Nobody holds it, nor another part: one registration is left.
    pub fn must_have_one_registration(&self) {
        let Some(handle) = self.handle() else { return };
        let retired = handle.mr().try_retire();
        let left = handle.mr().registrations();
        if retired.is_err() || left != 1 {
            fail(format_args!(
                "{left} registrations at the end: {retired:?}, {:?}",
                handle.mr()
            ));
        }
    }
}
