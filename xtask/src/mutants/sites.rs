//! Finds every memory ordering in a source text: where it stands, and what it is the ordering of.
//!
//! By token trees and not by syntax trees: the body of a macro is tokens to any parser, and there are orderings
//! in such bodies. So that none can hide, all that would give an ordering another name, or keep it anywhere but
//! in the call that it is for, is a problem to be put right.

use std::fmt;
use std::ops::Range;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::orders::{Order, Role};

/// One ordering as it is written.
#[derive(Clone, Debug)]
pub struct Site {
    pub line: usize,
    /// The function that it stands in.
    pub function: String,
    /// The atomic operation that it is given to.
    pub call: String,
    pub role: Role,
    pub order: Order,
    /// The bytes of the expression in the text.
    pub bytes: Range<usize>,
    /// The bytes of the path before the arguments, if it is a fence: `crate::sync::fence`.
    pub fence: Option<Range<usize>>,
    /// Where the arguments start: the two orderings of one call have it in common.
    pub arguments: usize,
}

/// What a text has.
#[derive(Debug, Default)]
pub struct Found {
    pub sites: Vec<Site>,
    /// By line: orderings that would escape.
    pub problems: Vec<(usize, String)>,
    /// Modules in files of their own that are there for tests alone.
    pub test_modules: Vec<String>,
    /// All functions that have one.
    pub bodies: Vec<Body>,
}

/// The body of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The bytes between its braces.
    pub inside: Range<usize>,
    /// Those of the word `const`, if it has that before it.
    pub constant: Option<Range<usize>>,
}

/// All orderings in `text`, but those of its tests.
pub fn find(text: &str) -> Result<Found> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|error| anyhow!("cannot be parsed: {error}"))?;
    let mut found = Found::default();
    walk(&mut found, tokens, "", None);
    found.sites.sort_by_key(|site| site.bytes.start);
    Ok(found)
}

/// What a group of tokens is the arguments of.
struct Call<'a> {
    name: &'a Ident,
    /// The bytes of the name with the path before it.
    path: Range<usize>,
    start: usize,
}

/// Goes through a group's tokens, which are in `function` and maybe the arguments of a call.
fn walk(found: &mut Found, tokens: TokenStream, function: &str, call: Option<&Call<'_>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut inside: Option<(String, Option<Range<usize>>)> = None;
    let (mut at, mut orderings) = (0, 0);
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(end) = end_of_test(&tokens[at..], found) {
                    at += end;
                    continue;
                }
            }
            TokenTree::Ident(ident) if *ident == "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                    let before = at.checked_sub(1).map(|before| &tokens[before]);
                    let constant = before.filter(|word| word.to_string() == "const");
                    let constant = constant.map(|word| word.span().byte_range());
                    inside = Some((name.to_string(), constant));
                }
            }
            TokenTree::Ident(ident) if *ident == "Ordering" => match ordering(&tokens, at, call) {
                Ok(None) => {}
                Ok(Some((order, start))) => {
                    let call = call.expect("it has been looked at");
                    let end = tokens[at + 3].span().byte_range().end;
                    let start = tokens[start].span().byte_range().start;
                    let name = call.name.to_string();
                    match Role::of(&name, orderings) {
                        // No model has a compiler's view.
                        None if name == "compiler_fence" => {}
                        None => problem(found, ident, format!("`{name}` is given it")),
                        Some(role) => found.sites.push(Site {
                            line: ident.span().start().line,
                            function: function.to_owned(),
                            call: name,
                            role,
                            order,
                            bytes: start..end,
                            fence: (role == Role::Fence).then(|| call.path.clone()),
                            arguments: call.start,
                        }),
                    }
                    orderings += 1;
                }
                Err(what) => problem(found, ident, what.to_string()),
            },
            TokenTree::Punct(punct) if punct.as_char() == ';' => inside = None,
            TokenTree::Group(group) => {
                let body = group.delimiter() == Delimiter::Brace;
                let function = match (&inside, body) {
                    (Some((name, constant)), true) => {
                        let open = group.span_open().byte_range();
                        let close = group.span_close().byte_range();
                        found.bodies.push(Body {
                            inside: open.end..close.start,
                            constant: constant.clone(),
                        });
                        name.as_str()
                    }
                    _ => function,
                };
                walk(
                    found,
                    group.stream(),
                    function,
                    call_of(&tokens, at, group).as_ref(),
                );
                if body {
                    inside = None;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn problem(found: &mut Found, at: &Ident, what: String) {
    found.problems.push((at.span().start().line, what));
}

/// What is wrong with a mention of `Ordering`.
enum Hidden {
    Renamed,
    Variable(Order),
    Imported,
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hidden::Renamed => f.write_str("`Ordering` is given another name"),
            Hidden::Variable(order) => {
                write!(
                    f,
                    "`Ordering::{order:?}` is no argument of an atomic operation"
                )
            }
            Hidden::Imported => f.write_str("what is in `Ordering` is named without it"),
        }
    }
}

/// The ordering at `at`, where `Ordering` stands, and the index at which its path starts. `None` if it is
/// the type that is named, or another one of that name.
fn ordering(
    tokens: &[TokenTree],
    at: usize,
    call: Option<&Call<'_>>,
) -> Result<Option<(Order, usize)>, Hidden> {
    let start = start_of_path(tokens, at);
    if !is_path(tokens, at + 1) {
        let is = |at: usize, what: &str| tokens.get(at).is_some_and(|t| t.to_string() == what);
        let renamed = is(at + 1, "as") || start > 0 && is(start - 1, "=");
        let quoted = is(at + 1, ">") && is_path(tokens, at + 2);
        return match renamed || quoted {
            true => Err(Hidden::Renamed),
            false => Ok(None),
        };
    }
    let Some(TokenTree::Ident(name)) = tokens.get(at + 3) else {
        return Err(Hidden::Imported); // `Ordering::*`, `Ordering::{..}`, `Ordering::$order`
    };
    let Some(order) = Order::named(&name.to_string()) else {
        return Ok(None); // one that compares
    };
    let ends = |token: Option<&TokenTree>| match token {
        None => true,
        Some(token) => matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','),
    };
    let first = start.checked_sub(1).and_then(|before| tokens.get(before));
    match call.is_some() && ends(first) && ends(tokens.get(at + 4)) {
        true => Ok(Some((order, start))),
        false => Err(Hidden::Variable(order)),
    }
}

/// The call that `group`, at `at`, has the arguments of, if a name stands before it.
fn call_of<'a>(tokens: &'a [TokenTree], at: usize, group: &Group) -> Option<Call<'a>> {
    let before = at.checked_sub(1)?;
    match (&tokens[before], group.delimiter()) {
        (TokenTree::Ident(name), Delimiter::Parenthesis) => {
            let start = start_of_path(tokens, before);
            Some(Call {
                name,
                path: tokens[start].span().byte_range().start..name.span().byte_range().end,
                start: group.span_open().byte_range().start,
            })
        }
        _ => None,
    }
}

/// Whether `::` stands at `at`.
fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    let colon =
        |at| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// The index of the first token of the path whose last name is at `at`.
fn start_of_path(tokens: &[TokenTree], mut at: usize) -> usize {
    while at >= 2 && is_path(tokens, at - 2) {
        at -= 2;
        match at.checked_sub(1).map(|before| &tokens[before]) {
            Some(TokenTree::Ident(_)) => at -= 1,
            _ => break,
        }
    }
    at
}

/// If an item starts here that is there for tests alone, by the attribute before it: how many tokens it
/// has with that. Anything else that has such an attribute is looked through like the rest.
fn end_of_test(tokens: &[TokenTree], found: &mut Found) -> Option<usize> {
    let Some(TokenTree::Group(attribute)) = tokens.get(1) else {
        return None;
    };
    if !is_for_tests(attribute.stream()) {
        return None;
    }
    let words = tokens[2..].iter().map_while(|token| match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    });
    let words: Vec<String> = words.collect();
    let item = words
        .iter()
        .position(|word| word == "mod" || word == "fn")?;
    let length = tokens.iter().position(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    })?;
    if words[item] == "mod" && matches!(tokens[length], TokenTree::Punct(_)) {
        found.test_modules.push(words.get(item + 1)?.clone());
    }
    Some(length + 1)
}

/// Whether this is the inside of `#[cfg(test)]`, or one that asks for more.
fn is_for_tests(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
