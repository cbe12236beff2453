//! A writer of cpio archives in the `newc` format, the one that the kernel unpacks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

/// What a path of the archive is.
enum Entry {
    Directory,
    Symlink(String),
    Bytes { mode: u32, bytes: Vec<u8> },
    Copy { mode: u32, host: PathBuf },
}

/// An archive in the making. Everything in it belongs to root, whoever writes it.
#[derive(Default)]
pub struct Archive {
    /// By path, without the leading slash: a directory sorts before what is in it.
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(key(path))
    }

    pub fn directory(&mut self, path: &str) {
        self.insert(path, Entry::Directory);
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Symlink(target.to_owned()));
    }

    pub fn bytes(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.insert(path, Entry::Bytes { mode, bytes });
    }

    /// A copy of the host's file; it is read when the archive is written.
    pub fn copy(&mut self, path: &str, mode: u32, host: PathBuf) {
        self.insert(path, Entry::Copy { mode, host });
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = key(path);
        for (at, _) in path.match_indices('/') {
            self.entries
                .entry(path[..at].to_owned())
                .or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let inode = index + 1;
            match entry {
                Entry::Directory => member(out, inode, 0o040_755, path, 0, &mut io::empty())?,
                Entry::Symlink(target) => {
                    let mut data = target.as_bytes();
                    member(out, inode, 0o120_777, path, data.len() as u64, &mut data)?;
                }
                Entry::Bytes { mode, bytes } => {
                    let mut data = bytes.as_slice();
                    let size = data.len() as u64;
                    member(out, inode, 0o100_000 | mode, path, size, &mut data)?;
                }
                Entry::Copy { mode, host } => {
                    let size = fs::metadata(host)?.len();
                    let mut data = File::open(host)?;
                    member(out, inode, 0o100_000 | mode, path, size, &mut data)?;
                }
            }
        }
        member(out, 0, 0, "TRAILER!!!", 0, &mut io::empty())
    }
}

fn key(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn member(
    out: &mut impl Write,
    inode: usize,
    mode: u32,
    path: &str,
    size: u64,
    data: &mut impl io::Read,
) -> io::Result<()> {
    let size = u32::try_from(size).map_err(|_| io::Error::other(format!("{path}: over 4 GiB")))?;
    let name_size = path.len() + 1;
    // Magic, then: inode, mode, uid, gid, links, mtime, size, four device numbers, length of the
    // name with its NUL, checksum (unused).
    write!(
        out,
        "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{1:08X}{0:08X}{size:08X}\
         {0:08X}{0:08X}{0:08X}{0:08X}{name_size:08X}{0:08X}{path}\0",
        0, 1
    )?;
    pad(out, 110 + name_size as u64)?;
    let copied = io::copy(data, out)?;
    if copied != u64::from(size) {
        return Err(io::Error::other(format!("{path}: changed while read")));
    }
    pad(out, copied)
}

/// Header with name, and data, are each padded to a multiple of four bytes.
fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    let missing = length.next_multiple_of(4) - length;
    out.write_all(&[0; 3][..missing as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_padded_and_parents_come_first() {
        let mut archive = Archive::default();
        archive.bytes("/a/b", 0o644, "abcde");
        archive.symlink("/link", "a/b");
        let mut out = Vec::new();
        archive.write(&mut out).unwrap();

        assert_eq!(out.len() % 4, 0);
        let text = String::from_utf8(out).unwrap();
        let members: Vec<&str> = text.split("070701").skip(1).collect();
        assert_eq!(members.len(), 4);
        // A member is 104 digits, the name with its NUL, and the data.
        assert_eq!(&members[0][8..16], "000041ED");
        assert_eq!(&members[0][104..], "a\0");
        assert_eq!(&members[1][8..16], "000081A4");
        assert_eq!(&members[1][48..56], "00000005");
        assert_eq!(&members[1][104..], "a/b\0\0\0abcde\0\0\0");
        assert_eq!(&members[2][104..], "link\0\0a/b\0");
        assert!(members[3].contains("TRAILER!!!"));
    }
}
