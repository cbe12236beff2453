//! Random programs of acquisitions, releases, futures and the close, on one thread, against a naive
//! model: who is let in, and that nothing is left behind.
#![no_main]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rdma_mr::Error;
use rdma_mr::gate::{Acquire, Gate, Holder, Patience, Permit};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    CpuRead,
    NicRead,
    CpuWrite,
    NicWrite,
}

impl From<Kind> for Holder {
    fn from(kind: Kind) -> Holder {
        match kind {
            Kind::CpuRead => Holder::CpuRead,
            Kind::NicRead => Holder::NicRead,
            Kind::CpuWrite => Holder::CpuWrite,
            Kind::NicWrite => Holder::NicWrite,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Try(Kind),
    Release(u8),
    Begin(Kind),
    Poll(u8),
    Abandon(u8),
    Forget(u8),
    Close,
}

/// Whether the naive model lets `wants` in beside `held`.
fn lets_in(held: &[Permit<'_>], closed: bool, wants: Holder) -> bool {
    let free = match wants.is_shared() {
        true => held.iter().all(|permit| permit.holder().is_shared()),
        false => held.is_empty(),
    };
    free && !(closed && wants.is_nic())
}

fuzz_target!(|steps: Vec<Step>| {
    let gate = Gate::with_patience(Patience {
        spin: Duration::ZERO,
        stand_back: Duration::ZERO,
    });
    let mut cx = Context::from_waker(Waker::noop());
    let mut held: Vec<Permit<'_>> = Vec::new();
    let mut waiting: Vec<(Holder, Pin<Box<Acquire<'_>>>)> = Vec::new();
    // As good as forgotten: nothing touches them before all has been checked.
    let mut forgotten = Vec::new();
    let (mut closed, mut asked) = (false, false);
    for step in steps {
        match step {
            Step::Try(kind) => {
                let holder = kind.into();
                let expected = lets_in(&held, closed, holder);
                match gate.try_acquire(holder) {
                    Ok(permit) => {
                        assert!(expected);
                        held.push(permit);
                    }
                    Err(Error::Closed) => assert!(closed && holder.is_nic()),
                    // Joining other readers is refused while an exclusive side asks to stand back.
                    Err(_) => assert!(!expected || (asked && holder.is_shared() && !held.is_empty())),
                }
            }
            Step::Release(at) if !held.is_empty() => {
                let at = usize::from(at) % held.len();
                drop(held.swap_remove(at));
            }
            Step::Begin(kind) => {
                let holder = kind.into();
                waiting.push((holder, Box::pin(gate.acquire_async(holder))));
            }
            Step::Poll(at) if !waiting.is_empty() => {
                let at = usize::from(at) % waiting.len();
                let (holder, future) = &mut waiting[at];
                let holder = *holder;
                let expected = lets_in(&held, closed, holder);
                asked |= !holder.is_shared();
                match future.as_mut().poll(&mut cx) {
                    Poll::Ready(Ok(permit)) => {
                        assert!(expected);
                        held.push(permit);
                        drop(waiting.swap_remove(at));
                    }
                    Poll::Ready(Err(error)) => {
                        assert!(matches!(error, Error::Closed) && closed && holder.is_nic());
                        drop(waiting.swap_remove(at));
                    }
                    Poll::Pending => assert!(!expected || (asked && holder.is_shared())),
                }
            }
            Step::Abandon(at) if !waiting.is_empty() => {
                let at = usize::from(at) % waiting.len();
                drop(waiting.swap_remove(at));
            }
            Step::Forget(at) if !waiting.is_empty() => {
                let at = usize::from(at) % waiting.len();
                forgotten.push(waiting.swap_remove(at));
            }
            Step::Close => {
                gate.close();
                closed = true;
            }
            _ => {}
        }
        let state = gate.state();
        let count = |holder| held.iter().filter(|p| p.holder() == holder).count() as u64;
        assert_eq!(state.cpu_readers, count(Holder::CpuRead));
        assert_eq!(state.nic_reads, count(Holder::NicRead));
        assert_eq!(
            state.writer.is_some(),
            count(Holder::CpuWrite) + count(Holder::NicWrite) == 1
        );
    }
    drop(waiting);
    drop(held);
    assert!(gate.state().is_free());
    assert!(gate.acquire(Holder::CpuRead).is_ok());
    assert!(gate.try_acquire(Holder::CpuWrite).is_ok());
    drop(forgotten);
});
