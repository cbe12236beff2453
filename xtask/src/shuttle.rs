//! `cargo xtask shuttle`: runs the models in `loom_tests/shuttle/`.

use anyhow::Result;

use crate::{loom, process};

/// What is asked for; what is not, the models choose.
#[derive(Default)]
pub struct Options {
    /// Where the scheduler's choices start from. That of a failure brings it back.
    pub seed: Option<u64>,
    /// How many executions of each model by each scheduler.
    pub iterations: Option<u64>,
    /// Part of the names of models.
    pub filter: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    let mut test = loom::under_shuttle()?;
    test.args(["--test", "shuttle", "--", "--test-threads=2"]);
    test.args(&options.filter);
    let variables = [
        ("SHUTTLE_RANDOM_SEED", options.seed),
        ("RDMA_MR_SHUTTLE_ITERATIONS", options.iterations),
    ];
    for (variable, value) in variables {
        if let Some(value) = value {
            test.env(variable, value.to_string());
        }
    }
    process::run(&mut test)
}
