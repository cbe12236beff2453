//! `cargo xtask mutants`: shows that the models can fail. Breaks the crate in a copy, one change at a time, and
//! expects a model to fail each time.
//!
//! What is changed is either an ordering, found in the source and made one step weaker (`weaken`), or what
//! the crate does, by hand (`hand`). The copy is told at run time what is broken, so that one build serves for
//! all.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::index;

use crate::workspace;

mod copy;
mod equivalent;
mod fate;
mod hand;
mod models;
mod orders;
mod sites;
mod weaken;

use copy::Copy;
use equivalent::Equivalents;
use fate::{Fate, Verdict};
use models::{End, Model};
use weaken::Orderings;

/// Which mutants, and what is done with them.
#[derive(Debug, Default)]
pub struct Options {
    /// Those of the files whose path contains it.
    pub filter: String,
    /// So many of them, at random.
    pub sample: Option<usize>,
    /// Which ones the sample has; others each time if it is not given.
    pub seed: Option<u64>,
    /// They are named, and that is all.
    pub list: bool,
}

/// One change.
struct Mutant {
    file: String,
    name: String,
    /// The variable by which the copy is told, and its value.
    told: (&'static str, String),
    killers: Killers,
}

/// Who may find it.
enum Killers {
    /// Whichever model comes by one of these orderings.
    ComingBy(Vec<usize>),
    /// The model of that name.
    Model(String),
}

/// Runs them.
pub fn run(options: &Options) -> Result<()> {
    let root = workspace::root();
    let orderings = Orderings::find(&root)?;
    let mut mutants = all(&orderings);
    let equivalents = read_equivalents(&root, &mutants)?;
    mutants.retain(|mutant| mutant.file.contains(&options.filter));
    ensure!(!mutants.is_empty(), "no file with mutants is called so");
    if options.list {
        mutants
            .iter()
            .for_each(|mutant| println!("{}", mutant.name));
        orderings.print_relaxed(&options.filter);
        return Ok(());
    }
    if let Some(count) = options.sample {
        mutants.retain(|mutant| !equivalents.has(&mutant.name));
        mutants = sample(mutants, count, options.seed);
    }
    let mut copy = Copy::new()?;
    orderings.switch(&mut copy)?;
    hand::switch(&mut copy)?;
    let copy = copy.write()?;
    let scratch = tempfile::tempdir()?;
    let models = models::build(&copy, scratch.path())?;
    let verdicts = models::on_all_processors(&mutants, |number, mutant| {
        let output = scratch.path().join(format!("mutant-{number}"));
        let fate = mutant.fate(&models, &output).context(mutant.name.clone())?;
        let fate = fate.expecting(equivalents.has(&mutant.name));
        let name = mutant.name.clone();
        let verdict = Verdict { name, fate };
        println!("{verdict}");
        Ok(verdict)
    })?;
    orderings.print_count();
    fate::conclude(&verdicts)
}

/// Checks that no ordering hides, and that what SAFETY.md says of mutants is about mutants that there are.
pub fn check() -> Result<()> {
    let root = workspace::root();
    read_equivalents(&root, &all(&Orderings::find(&root)?)).map(drop)
}

fn all(orderings: &Orderings) -> Vec<Mutant> {
    let weakened = orderings.mutants().into_iter().map(|weakened| Mutant {
        told: ("RDMA_MR_WEAKENED", weakened.told()),
        killers: Killers::ComingBy(weakened.sites()),
        file: weakened.file,
        name: weakened.name,
    });
    let by_hand = hand::all().map(|(number, file, mutant)| Mutant {
        file: file.to_owned(),
        name: format!("{file}: {}", mutant.name),
        told: ("RDMA_MR_BROKEN", number.to_string()),
        killers: Killers::Model(mutant.model()),
    });
    weakened.chain(by_hand).collect()
}

fn read_equivalents(root: &Path, mutants: &[Mutant]) -> Result<Equivalents> {
    let found = mutants
        .iter()
        .filter(|mutant| matches!(mutant.killers, Killers::ComingBy(_)));
    Equivalents::read(root, &found.map(|mutant| &*mutant.name).collect::<Vec<_>>())
}

/// So many at random, in the same order.
fn sample(mutants: Vec<Mutant>, count: usize, seed: Option<u64>) -> Vec<Mutant> {
    let seed = seed.unwrap_or_else(rand::random);
    println!(
        "{count} of {}; the same ones by --seed {seed}",
        mutants.len()
    );
    let mut random = SmallRng::seed_from_u64(seed);
    let chosen = index::sample(&mut random, mutants.len(), count.min(mutants.len())).into_vec();
    let numbered = mutants.into_iter().enumerate();
    let chosen = numbered.filter(|(number, _)| chosen.contains(number));
    chosen.map(|(_, mutant)| mutant).collect()
}

impl Mutant {
    /// By the models that may find it, the fastest first.
    fn fate(&self, models: &[Model], output: &Path) -> Result<Fate> {
        let mut late = None;
        let mut count = 0;
        for model in models.iter().filter(|model| self.may_be_found_by(model)) {
            count += 1;
            match model.run(&self.told, output)? {
                End::Passed => {}
                End::Failed => return Ok(Fate::Killed(model.name.clone())),
                End::Late => late = Some(model.name.clone()),
            }
        }
        match (late, &self.killers) {
            (Some(model), _) => Ok(Fate::Late(model)),
            (None, Killers::Model(name)) if count == 0 => bail!("there is no model `{name}`"),
            (None, _) => Ok(Fate::Survived(count)),
        }
    }

    fn may_be_found_by(&self, model: &Model) -> bool {
        match &self.killers {
            Killers::ComingBy(sites) => sites.iter().any(|site| model.reaches(*site)),
            Killers::Model(name) => model.name == *name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ordering_hides_and_safety_md_names_mutants() {
        check().unwrap();
    }

    #[test]
    fn mutants_have_names_of_their_own() {
        let orderings = Orderings::find(&workspace::root()).unwrap();
        let mutants = all(&orderings);
        let names: std::collections::BTreeSet<_> = mutants.iter().map(|m| &m.name).collect();
        assert_eq!(names.len(), mutants.len());
    }

    #[test]
    fn a_sample_is_the_same_for_the_same_seed() {
        let orderings = Orderings::find(&workspace::root()).unwrap();
        let names = |seed| {
            let chosen = sample(all(&orderings), 20, Some(seed));
            chosen
                .into_iter()
                .map(|mutant| mutant.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(7).len(), 20);
        assert_eq!(names(7), names(7));
        assert_ne!(names(7), names(8));
    }
}
