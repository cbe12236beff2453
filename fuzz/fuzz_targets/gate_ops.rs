//! See `src/gate_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    |program: rdma_mr_fuzz::gate_ops::Program| rdma_mr_fuzz::gate_ops::run(program)
);
