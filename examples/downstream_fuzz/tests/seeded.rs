//! The harness on a corpus that comes from a seed, as a plain test on the stable toolchain.

use std::panic::catch_unwind;

use downstream_fuzz::{Outcome, run};
use downstream_loom::Bug;

const PROGRAMS: u64 = 2_000;
const LENGTH: usize = 300;

/// Bytes from a number, by SplitMix64.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u8
    };
    (0..LENGTH).map(|_| next()).collect()
}

#[test]
fn any_program_keeps_the_rules() {
    let outcomes: Vec<Outcome> = (0..PROGRAMS).map(|seed| run(&bytes(seed), None)).collect();
    // Programs that get nowhere would show nothing.
    let count = |what: fn(&Outcome) -> bool| outcomes.iter().filter(|&o| what(o)).count();
    let (failed, whole) = (count(|o| o.failed), count(|o| !o.failed));
    let slots_again = count(|o| o.read > 4);
    println!(
        "{failed} failed, {whole} did not, in {slots_again} each slot was used more than twice"
    );
    assert!(failed > 100 && whole > 100 && slots_again > 100);
}

#[test]
fn the_same_bytes_do_the_same() {
    for seed in 0..50 {
        assert_eq!(run(&bytes(seed), None), run(&bytes(seed), None));
    }
}

/// The harness is asked whether it would notice.
#[test]
fn a_failure_that_passes_for_a_message_is_noticed() {
    let noticed = (0..PROGRAMS)
        .any(|seed| catch_unwind(|| run(&bytes(seed), Some(Bug::FailuresAreMessages))).is_err());
    assert!(noticed);
}
