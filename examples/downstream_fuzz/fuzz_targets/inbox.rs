//! With cargo-fuzz, from the directory above `examples/`:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir examples/downstream_fuzz inbox
//! ```
//!
//! Built by itself, it runs the files that it is given: a corpus, or what the fuzzer found.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    downstream_fuzz::run(data, None);
});

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let outcome = downstream_fuzz::run(&std::fs::read(&path)?, None);
        println!("{}: {outcome:?}", path.display());
    }
    Ok(())
}
