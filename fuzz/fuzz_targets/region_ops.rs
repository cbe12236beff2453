//! See `src/region_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|program: rdma_mr_fuzz::region_ops::Program| {
    rdma_mr_fuzz::region_ops::run(program)
});
