//! Threads that do the same to one thing, one after the other, each between two marks: `cargo xtask lines`
//! records which bytes they touch, and replays them beside each other.

mod shapes;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use crossbeam_utils::CachePadded;
use crossbeam_utils::sync::ShardedLock;
use rdma_mr::gate;
use rdma_mr::op::Begin;
use rdma_mr::prelude::*;
use shapes::rivals::Rival;
use shapes::{Locked, biased, region};

/// What each thread does, made for all of them.
type Shape = (&'static str, fn() -> Arc<dyn Fn() + Send + Sync>);

const SHAPES: &[Shape] = &[
    ("floor: fetch_add + fetch_sub", || {
        let word = CachePadded::new(AtomicU64::new(0));
        Arc::new(move || {
            word.fetch_add(1, Ordering::Acquire);
            word.fetch_sub(1, Ordering::Release);
        })
    }),
    ("as_slice", || read(region())),
    ("as_slice, biased", || read(biased(gate::Barrier::Fence))),
    ("begin_read", || {
        let mr = region();
        Arc::new(move || drop(black_box(mr.begin_read())))
    }),
    ("lkey", || {
        let mr = region();
        Arc::new(move || {
            black_box(mr.lkey());
        })
    }),
    ("refusal", || {
        let mr = region();
        std::mem::forget(mr.begin_write());
        Arc::new(move || assert!(mr.try_as_slice().is_none()))
    }),
    ("rival: parking_lot read", || {
        read(parking_lot::RwLock::new(0))
    }),
    ("rival: std read", || read(std::sync::RwLock::new(0))),
    ("rival: tokio read", || read(tokio::sync::RwLock::new(0))),
    ("rival: ShardedLock read", || {
        let lock = ShardedLock::new(Locked::default());
        Arc::new(move || {
            black_box(lock.read().unwrap().lkey);
        })
    }),
    ("rival: read_arc of an Arc<RwLock>", || {
        let lock = Arc::new(parking_lot::RwLock::new(Locked::default()));
        Arc::new(move || {
            black_box(lock.read_arc().lkey);
        })
    }),
];

fn read(of: impl Rival + Send + 'static) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || of.shared(|| ()))
}

static BEGIN: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);

/// So many threads that stay until all had their turn, as those that use a region do.
fn run(shape: Shape, threads: usize) {
    let ((_, make), over) = (shape, Barrier::new(threads));
    let once = &*make();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (done, wait) = mpsc::channel();
            let over = &over;
            scope.spawn(move || {
                // What a thread does the first time it does not do again.
                (0..3).for_each(|_| once());
                BEGIN.store(1, Ordering::SeqCst);
                once();
                END.store(1, Ordering::SeqCst);
                done.send(()).unwrap();
                over.wait();
            });
            wait.recv().unwrap();
        }
    });
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["names"] => SHAPES.iter().for_each(|(name, _)| println!("{name}")),
        ["run", name, threads] => {
            let shape = SHAPES.iter().find(|shape| shape.0 == name);
            let (Some(shape), Ok(threads)) = (shape, threads.parse()) else {
                eprintln!("{name}: no such shape, or {threads} is no number");
                return ExitCode::FAILURE;
            };
            println!("{:p} {:p}", &BEGIN, &END);
            run(*shape, threads);
        }
        // `cargo bench` runs every bench; this one has nothing to say there.
        _ => {}
    }
    ExitCode::SUCCESS
}
