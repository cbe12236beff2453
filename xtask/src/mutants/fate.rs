//! What becomes of mutants.

use std::fmt;

use anyhow::{Result, ensure};

/// What became of a mutant.
pub enum Fate {
    Killed(String),
    /// None of so many models failed.
    Survived(usize),
    /// No model failed, and this one was not done in time.
    Late(String),
    /// It survived, as SAFETY.md says.
    Equivalent,
    /// SAFETY.md says that it survives, and this model failed.
    NotEquivalent(String),
}

pub struct Verdict {
    pub name: String,
    pub fate: Fate,
}

impl Fate {
    /// If SAFETY.md says that it survives.
    pub fn expecting(self, survival: bool) -> Self {
        match self {
            Fate::Survived(_) | Fate::Late(_) if survival => Fate::Equivalent,
            Fate::Killed(model) if survival => Fate::NotEquivalent(model),
            fate => fate,
        }
    }

    fn is_as_it_should_be(&self) -> bool {
        matches!(self, Fate::Killed(_) | Fate::Equivalent)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.fate {
            Fate::Killed(model) => write!(f, "killed      {name} [{model}]"),
            Fate::Survived(models) => write!(f, "SURVIVED    {name} [{models} models]"),
            Fate::Late(model) => write!(f, "TOO LATE    {name} [{model}]"),
            Fate::Equivalent => write!(f, "equivalent  {name}"),
            Fate::NotEquivalent(model) => {
                write!(
                    f,
                    "KILLED, and SAFETY.md says that it can't be: {name} [{model}]"
                )
            }
        }
    }
}

/// Counts them; an error if one is not as it should be.
pub fn conclude(verdicts: &[Verdict]) -> Result<()> {
    let count = |is: fn(&Fate) -> bool| verdicts.iter().filter(|v| is(&v.fate)).count();
    println!(
        "{} mutants: {} killed, {} equivalent",
        verdicts.len(),
        count(|fate| matches!(fate, Fate::Killed(_))),
        count(|fate| matches!(fate, Fate::Equivalent)),
    );
    let wrong = count(|fate| !fate.is_as_it_should_be());
    let wrongs = verdicts
        .iter()
        .filter(|verdict| !verdict.fate.is_as_it_should_be());
    wrongs.for_each(|verdict| println!("{verdict}"));
    ensure!(wrong == 0, "{wrong} mutants are not as they should be");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_killed_or_known_to_survive_is_right() {
        let is_right = |fate: Fate, survival| fate.expecting(survival).is_as_it_should_be();
        assert!(is_right(Fate::Killed("m".into()), false));
        assert!(!is_right(Fate::Survived(3), false));
        assert!(!is_right(Fate::Late("m".into()), false));
        assert!(is_right(Fate::Survived(3), true));
        assert!(!is_right(Fate::Killed("m".into()), true));
    }
}
