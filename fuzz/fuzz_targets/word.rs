//! See `src/word`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |program: rdma_mr_fuzz::word::Program| rdma_mr_fuzz::word::run(program)
);
