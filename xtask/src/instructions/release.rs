//! What a release does after its RMW while nobody waits: a test and a branch. Read in the disassembly of
//! the functions of `benches/locked.rs` that do nothing but release.

use anyhow::{Result, bail};

const RELEASES: &[&str] = &[
    "locked::release_read_guard",
    "locked::release_write_guard",
    "locked::release_hold",
];

/// What is wrong with them.
pub fn check(disassembly: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for name in RELEASES {
        let Some(code) = function(disassembly, name) else {
            bail!("the disassembly has no `{name}`");
        };
        let Some(longest) = longest_way_out(&code) else {
            wrong.push(format!("{name}: no RMW with a short way out"));
            continue;
        };
        println!("{name}: {} after the RMW", longest.join(", "));
        if longest.len() > 2 {
            wrong.push(format!("{name}: more than a test and a branch"));
        }
    }
    Ok(wrong)
}

struct Instruction<'d> {
    address: u64,
    /// The mnemonic, and its operands without a comment.
    text: &'d str,
}

impl Instruction<'_> {
    fn is(&self, mnemonic: &str) -> bool {
        self.mnemonic() == mnemonic
    }

    fn mnemonic(&self) -> &str {
        self.text.split(' ').next().unwrap_or(self.text)
    }

    fn is_conditional(&self) -> bool {
        self.text.starts_with('j') && !self.is("jmp")
    }

    /// A fence is an RMW on the stack.
    fn is_rmw(&self) -> bool {
        self.is("lock") && !self.text.ends_with("(%rsp)")
    }

    /// Where a branch goes, within the function or not.
    fn target(&self) -> Option<u64> {
        let target = self.text.split_whitespace().nth(1)?;
        u64::from_str_radix(target, 16).ok()
    }

    /// The end of a function, which it has whatever it does.
    fn is_epilogue(&self) -> bool {
        self.is("pop")
            || self.is("ret")
            || self.text.starts_with("add") && self.text.ends_with("%rsp")
    }
}

fn function<'d>(disassembly: &'d str, name: &str) -> Option<Vec<Instruction<'d>>> {
    let (_, code) = disassembly.split_once(&format!(" <{name}>:\n"))?;
    let lines = code.lines().take_while(|line| !line.is_empty());
    let instructions = lines.filter_map(|line| {
        let (address, text) = line.split_once(":\t")?;
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        let text = text.trim();
        Some(Instruction { address, text })
    });
    Some(instructions.collect())
}

/// Of the RMWs in a function, the one from which the shortest way to its end is the longest: that way.
fn longest_way_out<'d>(code: &[Instruction<'d>]) -> Option<Vec<&'d str>> {
    let rmws = (0..code.len()).filter(|at| code[*at].is_rmw());
    let ways: Option<Vec<_>> = rmws.map(|at| way_out(code, at + 1, at, 8)).collect();
    ways?.into_iter().max_by_key(Vec::len)
}

/// The mnemonics from there to the end of the function, without its epilogue and without the branch by which
/// an exchange is tried again; the shortest, of at most `most`.
fn way_out<'d>(
    code: &[Instruction<'d>],
    at: usize,
    rmw: usize,
    most: usize,
) -> Option<Vec<&'d str>> {
    let here = code.get(at)?;
    let text: &'d str = here.text;
    if here.is("ret") {
        return Some(Vec::new());
    }
    if here.is_epilogue() {
        return way_out(code, at + 1, rmw, most);
    }
    let target = || code.iter().position(|i| Some(i.address) == here.target());
    let is_retry = here.is_conditional() && target().is_some_and(|target| target <= rmw);
    if is_retry {
        return way_out(code, at + 1, rmw, most);
    }
    let most = most.checked_sub(1)?;
    let next = |at| way_out(code, at, rmw, most);
    let mut rest = if here.is("jmp") {
        target().and_then(next)?
    } else if here.is_conditional() {
        let either = [next(at + 1), target().and_then(next)];
        either.into_iter().flatten().min_by_key(Vec::len)?
    } else if here.is("call") {
        return None;
    } else {
        next(at + 1)?
    };
    rest.insert(0, text.split(' ').next().unwrap_or(text));
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "\
0000000000001000 <f>:
    1000:\tlock xadd %rsi,(%rdi)
    1004:\ttest   $0x48,%sil
    1008:\tjne    100b <f+0xb>
    100a:\tret
    100b:\tlock orl $0x0,-0x40(%rsp)
    1010:\tmov    0x8(%rsi),%rax
    1014:\tcall   2000 <g>
    1019:\tret

0000000000001100 <h>:
    1100:\tmov    %rax,%rcx
    1103:\tlock cmpxchg %rcx,0x10(%rbx)
    1109:\tjne    1100 <h>
    110b:\tmov    $0x24c,%ecx
    1110:\ttest   %eax,%ecx
    1112:\tje     1119 <h+0x19>
    1114:\tcall   2000 <g>
    1119:\tpop    %rbx
    111a:\tret

0000000000001200 <k>:
    1200:\tlock orl $0x0,-0x40(%rsp)
    1205:\tlock decq (%rdi)
    1208:\tcall   2000 <g>
    120d:\tret
";

    #[test]
    fn the_way_from_an_rmw_to_the_end_is_found() {
        let way = |name| longest_way_out(&function(CODE, name).unwrap());
        assert_eq!(way("f"), Some(vec!["test", "jne"]));
        assert_eq!(way("h"), Some(vec!["mov", "test", "je"]));
        assert_eq!(way("k"), None);
        assert!(function(CODE, "g").is_none());
    }
}
