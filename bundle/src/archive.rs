//! Archives that depend on nothing but their contents: one order, no times, no owners.

use flate2::{Compression, GzBuilder};
use std::io::{self, Write};
use tacit_ir::diag::{Diagnostic, Result};
use tar::{Builder, EntryType, Header};

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where, relative to the root, parts separated by `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The bytes; `None` for a folder.
    pub content: Option<Vec<u8>>,
}

impl Entry {
    /// A file that everyone may read.
    pub fn file(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Entry { path: path.into(), mode: 0o644, content: Some(content.into()) }
    }
    /// A file that everyone may run.
    pub fn program(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Entry { mode: 0o755, ..Entry::file(path, content) }
    }
    /// An empty folder.
    pub fn folder(path: impl Into<String>, mode: u32) -> Self {
        Entry { path: path.into(), mode, content: None }
    }
    /// The same below another folder.
    #[must_use]
    pub fn below(mut self, folder: &str) -> Self {
        self.path = format!("{folder}/{}", self.path);
        self
    }
}

fn in_memory<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|why| Diagnostic::internal(format!("an archive in memory: {why}")))
}

/// A tar archive of entries, sorted by path, with the folders that hold them.
///
/// # Errors
/// [`Code::Internal`](tacit_ir::diag::Code::Internal) for a path that tar cannot hold.
pub fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut sorted: Vec<Entry> = entries.to_vec();
    for entry in entries {
        for (at, _) in entry.path.match_indices('/') {
            let folder = &entry.path[..at];
            if !sorted.iter().any(|other| other.path == folder) {
                sorted.push(Entry::folder(folder, 0o755));
            }
        }
    }
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = Builder::new(Vec::new());
    for entry in &sorted {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let content = entry.content.as_deref().unwrap_or_default();
        header.set_size(content.len() as u64);
        let path = if entry.content.is_some() {
            header.set_entry_type(EntryType::Regular);
            entry.path.clone()
        } else {
            header.set_entry_type(EntryType::Directory);
            format!("{}/", entry.path)
        };
        in_memory(builder.append_data(&mut header, path, content))?;
    }
    in_memory(builder.into_inner())
}

/// The bytes compressed, without a time or a name.
///
/// # Errors
/// [`Code::Internal`](tacit_ir::diag::Code::Internal), never in practice.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    in_memory(encoder.write_all(bytes))?;
    in_memory(encoder.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_contents_alone_count() {
        let a = Entry::file("b/c/x", *b"12");
        let b = Entry::folder("tmp", 0o1777);
        let one = tar(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(one, tar(&[b, a]).unwrap());
        let mut archive = tar::Archive::new(one.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
                (entry.path().unwrap().display().to_string(), header.mode().unwrap())
            })
            .collect();
        let expected = [("b/", 0o755), ("b/c/", 0o755), ("b/c/x", 0o644), ("tmp/", 0o1777)];
        assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
