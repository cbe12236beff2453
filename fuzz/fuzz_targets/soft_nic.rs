//! See `src/soft_nic`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |program: rdma_mr_fuzz::soft_nic::Program| rdma_mr_fuzz::soft_nic::run(program)
);
