//! Posting: work requests in lists of C's, and what a provider's refusal means for each of them.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use rdma_sys::{ibv_recv_wr, ibv_send_wr};

use super::code;
use crate::error::{Error, Result};
use crate::work::BadWr;

/// Work requests that the provider is handed in one call; their C form lies on the stack.
pub(super) const LIST: usize = 32;

/// A work request of C's, which names the next one of its list.
pub(super) trait Linked {
    fn next(&mut self) -> &mut *mut Self;
}

impl Linked for ibv_send_wr {
    fn next(&mut self) -> &mut *mut Self {
        &mut self.next
    }
}

impl Linked for ibv_recv_wr {
    fn next(&mut self) -> &mut *mut Self {
        &mut self.next
    }
}

/// Posts `wrs` in order, `N` at most in one `call`, until one is refused.
///
/// - `form` makes the C form, or refuses: those before it are posted, as if the provider had refused.
/// - `call` gets the first of a list and where to put the bad one; its value is the error, `errno` is
///   not set.
/// - `refused` makes the error out of that value; the bool says whether `call` named the bad one.
///   `Ok`: all of this list are posted for all that. An unnamed one is the first.
pub(super) fn in_lists<const N: usize, W, R: Linked>(
    wrs: &[W],
    form: impl Fn(&W) -> Result<R>,
    call: impl Fn(*mut R, &mut *mut R) -> c_int,
    refused: impl Fn(c_int, bool) -> Result<()>,
) -> Result<(), BadWr> {
    let mut list = [const { MaybeUninit::<R>::uninit() }; N];
    // The one pointer that all others are made from: the provider follows them.
    let list = list.as_mut_ptr().cast::<R>();
    let mut posted = 0;
    for wrs in wrs.chunks(N) {
        let mut count = 0;
        let mut bad_form = Ok(());
        for wr in wrs {
            match form(wr) {
                Ok(raw) => {
                    let this = list.wrapping_add(count);
                    // SAFETY: one of the `N` elements, of which a chunk needs no more.
                    unsafe { this.write(raw) };
                    if count > 0 {
                        // SAFETY: the element before, written in the round before.
                        *unsafe { &mut *this.wrapping_sub(1) }.next() = this;
                    }
                    count += 1;
                }
                Err(error) => {
                    bad_form = Err(error);
                    break;
                }
            }
        }
        let mut bad = ptr::null_mut();
        let ret = if count > 0 { call(list, &mut bad) } else { 0 };
        if ret != 0 {
            let named = (0..count).find(|&at| ptr::eq(bad, list.wrapping_add(at)));
            refused(ret, named.is_some()).map_err(|error| BadWr {
                at: posted + named.unwrap_or(0),
                error,
            })?;
        }
        posted += count;
        bad_form.map_err(|error| BadWr { at: posted, error })?;
    }
    Ok(())
}

/// The error of a post to a queue of `capacity` that returned `ret`.
#[cold]
pub(super) fn refusal(call: &'static str, ret: c_int, capacity: u32) -> Error {
    match ret {
        libc::ENOMEM => Error::QueueFull { capacity },
        libc::EINVAL => Error::InvalidWorkRequest {
            reason: "the provider refused it (EINVAL)",
        },
        _ => Error::Provider {
            call,
            source: code(ret),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// How the provider refuses the work request that it has no room for.
    #[derive(Clone, Copy, PartialEq)]
    enum Names {
        It,
        Nothing,
        Another,
    }

    /// Posts 0..`count`, of which `misformed` is refused here, and the provider has `room` for some;
    /// `keeps`: it keeps a list that it refuses without a name. What was posted, and the bad one.
    fn run(
        count: u64,
        misformed: u64,
        room: usize,
        names: Names,
        keeps: bool,
    ) -> (Vec<u64>, Option<(usize, bool)>) {
        let posted = RefCell::new(Vec::new());
        let calls = RefCell::new(0);
        let wrs: Vec<u64> = (0..count).collect();
        let result = in_lists::<4, _, _>(
            &wrs,
            |&wr_id| match wr_id == misformed {
                true => Err(Error::ZeroLength),
                false => Ok(ibv_recv_wr {
                    wr_id,
                    next: ptr::null_mut(),
                    sg_list: ptr::null_mut(),
                    num_sge: 0,
                }),
            },
            |mut list, bad| {
                *calls.borrow_mut() += 1;
                assert!(!list.is_null());
                let mut other = ibv_recv_wr {
                    wr_id: 0,
                    next: ptr::null_mut(),
                    sg_list: ptr::null_mut(),
                    num_sge: 0,
                };
                let mut ret = 0;
                while !list.is_null() {
                    let full = posted.borrow().len() >= room;
                    if full {
                        ret = libc::ENOMEM;
                        match names {
                            Names::It => *bad = list,
                            Names::Nothing => {}
                            Names::Another => *bad = &mut other,
                        }
                        if !keeps {
                            break;
                        }
                    }
                    // SAFETY: a list of live work requests.
                    let wr = unsafe { &*list };
                    posted.borrow_mut().push(wr.wr_id);
                    list = wr.next;
                }
                ret
            },
            |ret, named| match named || !keeps {
                true => Err(refusal("ibv_post_recv", ret, 7)),
                false => Ok(()),
            },
        );
        assert!(calls.into_inner() <= count.div_ceil(4));
        let bad = result.err().map(|bad| {
            (
                bad.at,
                matches!(bad.error, Error::QueueFull { capacity: 7 }),
            )
        });
        (posted.into_inner(), bad)
    }

    #[test]
    fn r10_those_before_the_bad_one_are_posted_and_no_more() {
        let none = u64::MAX;
        for count in [0, 1, 3, 4, 5, 11] {
            let all: Vec<u64> = (0..count).collect();
            assert_eq!(run(count, none, 99, Names::It, false), (all.clone(), None));
            for bad in 0..count as usize {
                let before = all[..bad].to_vec();
                assert_eq!(
                    run(count, none, bad, Names::It, false),
                    (before.clone(), Some((bad, true)))
                );
                assert_eq!(
                    run(count, bad as u64, 99, Names::It, false),
                    (before.clone(), Some((bad, false)))
                );
                // The provider's comes first.
                if bad > 0 {
                    assert_eq!(
                        run(count, bad as u64, bad - 1, Names::It, false),
                        (all[..bad - 1].to_vec(), Some((bad - 1, true)))
                    );
                }
            }
        }
    }

    #[test]
    fn r10_a_list_without_a_bad_one_is_kept_whole_or_not_at_all() {
        let all: Vec<u64> = (0..11).collect();
        for names in [Names::Nothing, Names::Another] {
            assert_eq!(run(11, u64::MAX, 4, names, true), (all.clone(), None));
            assert_eq!(
                run(11, 9, 4, names, true),
                (all[..9].to_vec(), Some((9, false)))
            );
            assert_eq!(
                run(11, u64::MAX, 4, names, false),
                (all[..4].to_vec(), Some((4, true)))
            );
        }
    }

    #[test]
    fn the_error_is_the_return_value() {
        let error = |ret| refusal("ibv_post_send", ret, 1);
        assert!(matches!(
            error(libc::ENOMEM),
            Error::QueueFull { capacity: 1 }
        ));
        assert!(matches!(
            error(libc::EINVAL),
            Error::InvalidWorkRequest { .. }
        ));
        let text = error(libc::EOPNOTSUPP).to_string();
        assert!(text.starts_with("ibv_post_send: "), "{text}");
    }
}
