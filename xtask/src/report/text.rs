//! What the page says beside its numbers.

pub const INTRODUCTION: &str = "\
# Performance

<!-- Written by `cargo xtask bench-report`; the words are in xtask/src/report/text.rs. -->

What the crate costs, beside the floor of the hardware and beside what would be used instead. The benches are in
`benches/`; each runs by itself with `cargo bench --bench NAME`, and with `-- --check` a promise that is missed is an
error. `cargo xtask bench-report` runs all of them and writes this page.

**How it is measured.** All that are compared take turns within one run, round after round, so that a machine that does
other things as well does them to all alike. A time is the median of the rounds. A ratio is the median of the ratios
within each round, and it is the ratios that mean something elsewhere: nanoseconds are those of one machine. The
contestants are made anew five times, because where memory lies makes a difference. A *floor* is the least that the
hardware asks for, written down by hand without what makes it safe; a *rival* is what would be used instead. Ratios are
to the row that has 1.00, the fastest of the baselines.
";

pub const PROMISES: &str = "\
What the benches promise, and what was found. A promise is a ratio, or a difference to the floor, so that it holds on other
machines; where it is of an absolute number, that is bytes or a count.

";

pub struct Section {
    /// The bench, or what else has made the figures.
    pub bench: &'static str,
    pub heading: &'static str,
    pub text: &'static str,
    /// The name of its plot, and what that shows.
    pub plot: Option<(&'static str, &'static str)>,
}

/// In the order of the page.
const SECTIONS: &[Section] = &[
    Section {
        bench: "gate",
        heading: "Guards",
        text: "\
A guard is taken, a byte is read or written through it, and it is dropped. The floor is two RMWs on one line, which no
lock of one word can be below. With two threads on one region the line changes hands all the time, and that is most of
what is measured; `ShardedLock` and `arc-swap` avoid it for readers, at the price of a writer that visits all shards, or
of readers that keep nobody from writing. A refusal is a look at the word that says no: an atomic load, and nothing
is written.
",
        plot: Some(("guards", "What a guard costs, beside floors and rivals")),
    },
    Section {
        bench: "bias",
        heading: "Biased guards",
        text: "\
Guards of a region with read bias: a reader fills a slot of its thread's own, has a fence, looks at the word, and
empties the slot. The floor is that, by hand; it is not much less than an RMW on a line that nobody else wants, so on one thread
there is little to be had. What is had is that threads don't wait for each other's line. An RMW takes as long whatever the
core does beside it, and a guard without one does not: where others share the cores, as on a virtual machine, the ratios
to a lock change by a quarter from one minute to the next, the floor's as ours.
",
        plot: None,
    },
    Section {
        bench: "keys",
        heading: "Keys",
        text: "\
Keys, rights and address beside a plain atomic load, and beside the same behind a lock. They never wait, whatever the NIC
does.
",
        plot: None,
    },
    Section {
        bench: "operation",
        heading: "Operations",
        text: "\
An operation from its beginning over the bookkeeping of the post to its completion, with nothing that stands for the
device: on one thread, and from one thread that posts to one that completes, over a queue like a device's. The rival is
the shape that crates for RDMA use: a write guard that owns its region, in a map by the `wr_id` behind a mutex.
",
        plot: None,
    },
    Section {
        bench: "pool",
        heading: "Slots",
        text: "\
A slot of a pool, taken and given back, beside the queue of numbers that a pool would be made of, and beside the
registration that it spares.
",
        plot: None,
    },
    Section {
        bench: "waiting",
        heading: "Waiting",
        text: "\
A thread waits for a region that an operation holds; measured is the time from just before the release until that
thread runs on with the guard in hand. Shortly held, the waiter is still awake (it spins for 10 µs before it parks), and
the floor is a thread that spins on a bare word: one transfer of a line, where a guard needs a second one to count
itself. The locks have parked by then. Held longer, the waiter sleeps, and the kernel's wake-up is nearly all there is:
the floor is a raw futex.
",
        plot: Some((
            "wake-ups",
            "From the release until the waiter runs, how it is spread",
        )),
    },
    Section {
        bench: "ring",
        heading: "A ring",
        text: "\
A slot is filled by the NIC every 4 µs, which takes 2 µs, and a thread reads it all the time. Measured is how long the
NIC's side waits for its hold (the reader is in the middle of a read half of the time), and what a read costs in
between. The floor exchanges a bare word until it succeeds, without a thought for who else wants it.
",
        plot: Some(("ring", "How long the NIC's side waits for its hold, how it is spread")),
    },
    Section {
        bench: "growth",
        heading: "Growth",
        text: "\
The same with 1, 10³ and 10⁶ regions alive, visited in random order: what grows is the time to reach memory, for a bare
word as for a region. Then what registrations, leases and splitting cost beside many of their kind.
",
        plot: Some(("growth", "What an operation costs by the number of regions")),
    },
    Section {
        bench: "lines",
        heading: "Lines between cores",
        text: "\
How often a cache line changes hands per operation, by the number of threads: the accesses of each operation, recorded
one by one, replayed by so many threads in a simulation of caches that keep each other coherent. The counts are exact for
that simulation, and of no machine in particular.
",
        plot: Some(("lines", "Transfers of lines per operation, by threads")),
    },
    Section {
        bench: "instructions",
        heading: "Instructions",
        text: "\
Instructions and RMWs of each hot path, as `benches/shapes/paths.rs` names them, counted under callgrind with the loop around
them: exact, the same on every run, and an error in `cargo xtask test` when they grow. Limits of instructions are in
`benches/instructions.rs`. `load` and `rival` are there to be compared with.
",
        plot: None,
    },
];

pub fn section(bench: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.bench == bench)
}

/// Where on the page it stands; at the end, if there is nothing to say of it.
pub fn position(bench: &str) -> usize {
    let found = SECTIONS.iter().position(|section| section.bench == bench);
    found.unwrap_or(SECTIONS.len())
}
