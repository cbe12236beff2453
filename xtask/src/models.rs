//! The models, by their source: what each is called, what it is about, which clauses it shows or breaks.

use std::path::Path;

use anyhow::Result;

use crate::workspace::sources;

/// One test of the models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Its file below `loom_tests/`, or its room in `src/`.
    pub file: String,
    pub name: String,
    /// The first paragraph of its comment, without what is said of clauses.
    pub about: String,
    pub shows: Vec<String>,
    /// A clause, or something that is none.
    pub breaks: Option<Vec<String>>,
    pub must_fail: bool,
}

impl Model {
    /// Its name for people.
    pub fn path(&self) -> String {
        format!("{}::{}", self.file, self.name)
    }
}

/// All models: those of `loom_tests/`, and those beside what is private in `src/`.
pub fn all(root: &Path) -> Result<Vec<Model>> {
    let mut found = Vec::new();
    let folder = root.join("loom_tests");
    for (path, text) in sources(&folder)? {
        let name = path.strip_prefix(&folder)?.with_extension("");
        found.extend(models_in(&name.to_string_lossy(), &text));
    }
    for (path, text) in sources(&root.join("src"))? {
        if path.file_name().is_some_and(|name| name == "models.rs") {
            let room = path.parent().and_then(Path::file_name).unwrap_or_default();
            found.extend(models_in(&room.to_string_lossy(), &text));
        }
    }
    Ok(found)
}

/// The tests in a file, with what their comments say.
pub fn models_in(file: &str, text: &str) -> Vec<Model> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut attributes = String::new();
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("///") {
            comment += text;
            comment.push('\n');
        } else if line.starts_with("#[") {
            attributes += line;
        } else {
            let name = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split('(').next());
            if let Some(name) = name
                && attributes.contains("#[test]")
            {
                found.push(Model {
                    file: file.to_owned(),
                    name: name.to_owned(),
                    about: about(&comment),
                    shows: said(&comment, "Shows:").unwrap_or_default(),
                    breaks: said(&comment, "Breaks:"),
                    must_fail: attributes.contains("should_panic"),
                });
            }
            comment.clear();
            attributes.clear();
        }
    }
    found
}

/// The first paragraph, up to what is said of clauses.
fn about(comment: &str) -> String {
    let end = ["Shows:", "Breaks:", "\n\n"]
        .iter()
        .filter_map(|end| comment.find(end))
        .min();
    let words = comment[..end.unwrap_or(comment.len())].split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

/// The clauses after that word, up to the end of the sentence.
fn said(comment: &str, word: &str) -> Option<Vec<String>> {
    let (_, rest) = comment.split_once(word)?;
    rest.split('.').next().map(clauses)
}

/// Words like `SLICE-1`.
pub fn clauses(line: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    line.split(|c: char| !word(c))
        .filter(|id| {
            id.split_once('-').is_some_and(|(letters, digits)| {
                letters.len() >= 2
                    && letters.chars().all(|c| c.is_ascii_uppercase())
                    && !digits.is_empty()
                    && digits.chars().all(|c| c.is_ascii_digit())
            })
        })
        // Names of licences, digests and standards look the same.
        .filter(|id| !id.starts_with("SHA-") && !id.starts_with("UTF-"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_told_from_other_words() {
        assert_eq!(
            clauses("// SAFETY: SLICE-1 by `REG-4`; UTF-8, a-1, R14"),
            ["SLICE-1", "REG-4"]
        );
    }

    #[test]
    fn models_are_found_with_what_they_say() {
        let text = r#"
/// It shows
/// much. Shows: SLICE-1,
/// SLICE-2.
#[test]
fn one() {
}

/// Breaks: SLICE-2.
#[test]
#[should_panic(expected = "race")]
fn two() {
}

/// Not one.
fn no_test() {}
"#;
        let models = models_in("file", text);
        let [one, two] = &models[..] else {
            panic!("{models:?}");
        };
        assert_eq!(
            (one.path(), &*one.about),
            ("file::one".into(), "It shows much.")
        );
        assert_eq!(one.shows, ["SLICE-1", "SLICE-2"]);
        assert_eq!(two.breaks, Some(vec!["SLICE-2".into()]));
        assert!(two.must_fail && !one.must_fail);
    }
}
