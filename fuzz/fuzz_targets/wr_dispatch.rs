//! See `src/wr_dispatch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|program: rdma_mr_fuzz::wr_dispatch::Program| {
    rdma_mr_fuzz::wr_dispatch::run(program)
});
