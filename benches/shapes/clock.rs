//! A clock for what lasts as long as it takes to ask the system for the time, and cores for threads that are
//! to run side by side.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The processor's counter, which all its cores have alike.
#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has them. The fences keep what comes before and after it there.
    unsafe {
        _mm_lfence();
        let count = _rdtsc();
        _mm_lfence();
        count
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

struct Scale {
    /// Nanoseconds of one count.
    count: f64,
    /// What two looks at the clock show with nothing in between, in nanoseconds.
    empty: f64,
}

static SCALE: LazyLock<Scale> = LazyLock::new(|| {
    let (time, start) = (Instant::now(), counter());
    while time.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    let count = time.elapsed().as_nanos() as f64 / (counter() - start) as f64;
    let pair = |_| {
        let before = counter();
        (counter() - before) as f64
    };
    let empty = super::turns::median((0..1001).map(pair).collect());
    Scale {
        count,
        empty: empty * count,
    }
});

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    pub fn now() -> Self {
        Tick(counter())
    }

    /// So many nanoseconds later.
    pub fn after(self, nanos: f64) -> Self {
        Tick(self.0 + (nanos / SCALE.count) as u64)
    }

    /// Nanoseconds since `earlier`, without what looking at the clock takes.
    pub fn since(self, earlier: Tick) -> f64 {
        // As numbers with a sign: another core's counter may be a little behind.
        let counts = self.0.wrapping_sub(earlier.0) as i64;
        counts as f64 * SCALE.count - SCALE.empty
    }

    /// Waits for it, awake.
    pub fn reach(self) {
        while Tick::now() < self {
            std::hint::spin_loop();
        }
    }
}

/// Keeps this thread on the `nth` of the cores that it may run on, if the system knows how: two threads that share
/// one measure its scheduler.
pub fn keep_to_core(nth: usize) {
    #[cfg(target_os = "linux")]
    {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: a set of cores is plain data, all zero is the empty one; the calls get its size.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            let own = ALLOWED.get_or_init(|| {
                libc::sched_getaffinity(0, size, &raw mut allowed);
                let cores = 0..libc::CPU_SETSIZE as usize;
                cores
                    .filter(|core| libc::CPU_ISSET(*core, &allowed))
                    .collect()
            });
            let Some(core) = own.get(nth % own.len().max(1)) else {
                return;
            };
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(*core, &mut one);
            libc::sched_setaffinity(0, size, &raw const one);
        }
    }
}

/// The cores that the first who asked may run on: later its children have what it was kept to.
#[cfg(target_os = "linux")]
static ALLOWED: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
