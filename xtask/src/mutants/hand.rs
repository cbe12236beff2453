//! The mutants that were made by hand: what the crate does is changed, and the one model that each names
//! must fail.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use super::copy::{Copy, place};
use super::sites::{self, Body};

mod gate;
mod list;
mod op;
mod pool;
mod shared;

use list::MUTANTS;

pub struct Mutant {
    pub name: &'static str,
    /// Stands exactly once in the file, in one function.
    from: &'static str,
    to: &'static str,
    /// A model that must fail: its file and its name.
    model: (&'static str, &'static str),
}

impl Mutant {
    /// The name of the model, as models are called.
    pub fn model(&self) -> String {
        format!("{}: {}", self.model.0, self.model.1)
    }
}

/// All of them, each with its file and its number.
pub fn all() -> impl Iterator<Item = (usize, &'static str, &'static Mutant)> {
    let of_file = |(file, mutants): &(&'static str, &'static [Mutant])| {
        let file = *file;
        mutants.iter().map(move |mutant| (file, mutant))
    };
    let all = MUTANTS.iter().flat_map(of_file).enumerate();
    all.map(|(number, (file, mutant))| (number, file, mutant))
}

/// A function that is broken.
struct Function {
    file: &'static str,
    body: Body,
    /// What its body becomes, by the numbers of the mutants, as arms of a `match`.
    arms: String,
}

/// Puts each broken body beside the whole one, to be chosen at run time.
pub fn switch(copy: &mut Copy) -> Result<()> {
    let mut constants = BTreeSet::new();
    for Function { file, body, arms } in functions(copy)? {
        let (start, end) = (body.inside.start, body.inside.end);
        let choice = format!(" match crate::sync::weakened::broken() {{ {arms} _ => {{");
        copy.replace(file, start..start, choice);
        copy.replace(file, end..end, "} } ".into());
        constants.extend(body.constant.map(|_| file));
    }
    // What asks is not constant, nor is what calls it, which stands in the same file.
    for file in constants {
        let bodies = sites::find(copy.text(file)?)?.bodies;
        let words = bodies.into_iter().filter_map(|body| body.constant);
        words.for_each(|word| copy.replace(file, word, String::new()));
    }
    Ok(())
}

fn functions(copy: &mut Copy) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = Vec::new();
    for (number, file, mutant) in all() {
        let (body, broken) = mutant.apply(copy.text(file)?).context(mutant.name)?;
        let arm = format!("{number} => {{ {broken} }}\n");
        let in_file = functions
            .iter_mut()
            .filter(|function| function.file == file);
        let mut overlapping = in_file.filter(|function| overlap(&function.body, &body));
        match overlapping.next() {
            Some(function) if function.body == body => function.arms.push_str(&arm),
            Some(_) => bail!("{}: it changes a function inside of another", mutant.name),
            None => functions.push(Function {
                file,
                body,
                arms: arm,
            }),
        }
    }
    Ok(functions)
}

fn overlap(a: &Body, b: &Body) -> bool {
    a.inside.start < b.inside.end && b.inside.start < a.inside.end
}

impl Mutant {
    /// The body that it changes in `text`, and what becomes of it.
    fn apply(&self, text: &str) -> Result<(Body, String)> {
        let from = place(text, self.from)?;
        let holds = |body: &Body| body.inside.start <= from.start && from.end <= body.inside.end;
        let around = sites::find(text)?.bodies.into_iter().filter(holds);
        let body = around.min_by_key(|body| body.inside.len());
        let body = body.context("what is changed stands in no function")?;
        let before = &text[body.inside.start..from.start];
        let after = &text[from.end..body.inside.end];
        let broken = [before, self.to, after].concat();
        Ok((body, broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_mutant_changes_one_function() {
        for (_, file, mutant) in all() {
            let text = std::fs::read_to_string(workspace::root().join(file)).unwrap();
            let (body, broken) = mutant.apply(&text).expect(mutant.name);
            assert_ne!(text[body.inside], broken, "{}", mutant.name);
        }
    }
}
