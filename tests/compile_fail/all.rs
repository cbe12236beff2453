//! What the types keep from being written at all (R1, R2, R6): each case must fail to compile, for the
//! reason in its `.stderr`.

#[test]
fn r1_r2_r6_these_do_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
