//! Reading and writing files: whole or not at all.

use std::io::Write;
use std::path::Path;
use tacit_bundle::archive::Entry;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// The bytes of a file.
///
/// # Errors
/// [`Code::FileUnreadable`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|why| unreadable(path, &why))
}

/// The text of a file.
///
/// # Errors
/// [`Code::FileUnreadable`].
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Diagnostic::new(Code::FileUnreadable, "is not UTF-8 text").at(path.display().to_string()))
}

/// Puts the file before a place inside it.
#[must_use]
pub fn within(mut why: Diagnostic, path: &Path) -> Diagnostic {
    why.place = Some(match why.place {
        Some(place) => format!("{}: {place}", path.display()),
        None => path.display().to_string(),
    });
    why
}

/// A file to read parts of.
///
/// # Errors
/// [`Code::FileUnreadable`].
pub fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).map_err(|why| unreadable(path, &why))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::FileUnreadable, format!("cannot be read: {why}")).at(path.display().to_string())
}

fn unwritable(path: &Path, why: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::OutputUnwritable, format!("cannot be written: {why}"))
        .at(path.display().to_string())
        .help("check that the folder exists, is writable, and has room")
}

/// Writes a file beside its place, then renames it there: readers never see a part of it.
///
/// # Errors
/// [`Code::OutputUnwritable`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|why| unwritable(path, &why))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|why| unwritable(path, &why))?;
    // Temporary files are private; what is no secret gets the usual mode.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(|why| unwritable(path, &why))?;
    }
    file.persist(path).map_err(|why| unwritable(path, &why.error))?;
    Ok(())
}

/// Writes a secret: mode 0600, and never over an existing file unless `force`.
///
/// # Errors
/// [`Code::WouldOverwrite`], [`Code::OutputUnwritable`].
pub fn write_secret(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|why| unwritable(path, &why))?;
    // Temporary files are created with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|why| unwritable(path, &why))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|why| unwritable(path, &why))?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|why| {
        if why.error.kind() == std::io::ErrorKind::AlreadyExists {
            Diagnostic::new(Code::WouldOverwrite, "a key exists already; without it nothing it encrypted can be read")
                .at(path.display().to_string())
                .help("choose another folder, or give --force to replace it")
        } else {
            unwritable(path, &why.error)
        }
    })
}

/// Writes a folder beside its place, then renames it there. A folder that is there is replaced only by `force`, and only when it
/// has the file `mark`, which says that it was written so.
///
/// # Errors
/// [`Code::WouldReplace`], [`Code::OutputUnwritable`].
pub fn write_folder(path: &Path, entries: &[Entry], mark: &str, force: bool) -> Result<()> {
    let failed = |why: std::io::Error| unwritable(path, &why);
    let occupied = match std::fs::read_dir(path) {
        Ok(mut found) => found.next().is_some(),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => false,
        Err(why) => return Err(failed(why)),
    };
    if occupied && !(force && path.join(mark).is_file()) {
        let (what, help) = match force {
            true => ("was not written by this command", "choose another folder, or remove this one yourself"),
            false => ("exists and is not empty", "choose another folder, or give --force to replace it"),
        };
        let message = format!("the folder {what}");
        return Err(Diagnostic::new(Code::WouldReplace, message).at(path.display().to_string()).help(help));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let beside = tempfile::Builder::new().prefix(".tacit-").tempdir_in(parent).map_err(failed)?;
    let new = beside.path().join("new");
    std::fs::create_dir(&new).map_err(failed)?;
    for entry in entries {
        write_entry(&new, entry).map_err(failed)?;
    }
    // A rename replaces an empty folder, not a full one; the old one goes when `beside` is dropped.
    let old = beside.path().join("old");
    if occupied {
        std::fs::rename(path, &old).map_err(failed)?;
    }
    if let Err(why) = std::fs::rename(&new, path) {
        if occupied {
            std::fs::rename(&old, path).map_err(failed)?;
        }
        return Err(failed(why));
    }
    Ok(())
}

fn write_entry(folder: &Path, entry: &Entry) -> std::io::Result<()> {
    let place = folder.join(&entry.path);
    match &entry.content {
        None => std::fs::create_dir_all(&place)?,
        Some(bytes) => {
            std::fs::create_dir_all(place.parent().unwrap_or(folder))?;
            let mut file = std::fs::File::create_new(&place)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(entry.mode))?;
    }
    Ok(())
}

/// The first line of a passphrase file.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::OptionInvalid`] for an empty line.
pub fn passphrase(path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let text = read_text(path)?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Some(line.to_owned())),
        None => Err(Diagnostic::new(Code::OptionInvalid, "the passphrase is empty").at(path.display().to_string())),
    }
}
