//! Where requests and results lie for an asynchronous endpoint.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Uploads in parts that are under way, by the names of their objects: what a later run needs to go on with them.
pub trait Uploads {
    /// The id of the upload of an object.
    fn id(&self, location: &str) -> Option<String>;

    /// Keeps the id of an upload that began, before its first part is sent; `None` forgets it.
    ///
    /// # Errors
    /// `OutputUnwritable`.
    fn keep(&self, location: &str, id: Option<&str>) -> Result<()>;
}

/// Objects in buckets, named as in S3: `s3://bucket/name`.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Bytes that an object must have to be the first part of a composed one.
    fn least_first_part(&self) -> u64;

    /// Whether an object is there. `false` also where that cannot be told.
    ///
    /// # Errors
    /// `ServerUnreachable`, `RequestFailed`.
    fn has(&self, location: &str) -> Result<bool>;

    /// Writes an object of these parts, whole or not at all.
    ///
    /// # Errors
    /// `ServerUnreachable`, `AccessDenied`, `RequestFailed`.
    fn put(&self, location: &str, parts: &[&[u8]]) -> Result<()>;

    /// Bytes above which an object is uploaded in parts, so that an upload that was interrupted can go on.
    fn part_bytes(&self) -> u64 {
        u64::MAX
    }

    /// As [`Store::put`], going on with an upload that was interrupted. Returns the bytes that travelled.
    ///
    /// # Errors
    /// As [`Store::put`], and those of `uploads`.
    fn upload(&self, location: &str, parts: &[&[u8]], _uploads: &dyn Uploads) -> Result<u64> {
        self.put(location, parts).map(|()| length(parts))
    }

    /// Writes an object that begins with another one, which does not travel; `false` when that one is not there.
    ///
    /// # Errors
    /// As [`Store::upload`].
    fn compose(&self, location: &str, first: &str, last: &[&[u8]], uploads: &dyn Uploads) -> Result<bool>;

    /// Gives up an upload that nobody will go on with.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn abandon(&self, _location: &str, _upload: &str) -> Result<()> {
        Ok(())
    }

    /// An object; `None` when it is not there, or not yet.
    ///
    /// # Errors
    /// `ServerUnreachable`, `RequestFailed`.
    fn get(&self, location: &str) -> Result<Option<Vec<u8>>>;

    /// Removes an object.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn delete(&self, location: &str) -> Result<()>;

    /// What speaks against reading objects that seem not to be there.
    fn suspicion(&self) -> Option<String> {
        None
    }
}

/// Bytes of all parts.
pub(crate) fn length(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Buckets as folders of a local folder: the store of tests and demonstrations.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store in a folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Folder { root: root.into() }
    }

    /// The file of an object.
    ///
    /// # Errors
    /// [`Code::OptionInvalid`] for a name that is none, or that would leave the folder.
    pub fn path(&self, location: &str) -> Result<PathBuf> {
        let name = location.strip_prefix("s3://").unwrap_or_default();
        let path = Path::new(name);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(Diagnostic::new(Code::OptionInvalid, format!("`{location}` is no name of an object")));
        }
        Ok(self.root.join(path))
    }
}

fn failed(code: Code, path: &Path, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new(code, format!("{why}")).at(path.display().to_string())
}

/// Writes a file of these parts beside its place, then renames it there.
pub(crate) fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|why| why.error)
    };
    write().map(drop).map_err(|why: std::io::Error| failed(Code::OutputUnwritable, path, &why))
}

impl Store for Folder {
    fn least_first_part(&self) -> u64 {
        0
    }

    fn has(&self, location: &str) -> Result<bool> {
        Ok(self.path(location)?.is_file())
    }

    fn put(&self, location: &str, parts: &[&[u8]]) -> Result<()> {
        write_whole(&self.path(location)?, parts)
    }

    fn compose(&self, location: &str, first: &str, last: &[&[u8]], _uploads: &dyn Uploads) -> Result<bool> {
        let Some(first) = self.get(first)? else { return Ok(false) };
        self.put(location, &[&[&first[..]], last].concat()).map(|()| true)
    }

    fn get(&self, location: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(location)?;
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(failed(Code::FileUnreadable, &path, &why)),
        }
    }

    fn delete(&self, location: &str) -> Result<()> {
        let path = self.path(location)?;
        fs::remove_file(&path).map_err(|why| failed(Code::OutputUnwritable, &path, &why))
    }
}
