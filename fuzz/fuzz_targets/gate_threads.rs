//! See `src/gate_threads`.
#![no_main]

libfuzzer_sys::fuzz_target!(|program: rdma_mr_fuzz::gate_threads::Program| {
    rdma_mr_fuzz::gate_threads::run(program)
});
