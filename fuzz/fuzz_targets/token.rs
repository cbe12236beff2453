//! See `src/token`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |program: rdma_mr_fuzz::token::Program| rdma_mr_fuzz::token::run(program)
);
