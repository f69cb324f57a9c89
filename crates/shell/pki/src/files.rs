//! Files that are either whole or absent: write beside, flush to disk, rename.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::{PkiError, PkiResult};

/// Private keys and kubeconfigs: the owner alone.
pub const SECRET_MODE: u32 = 0o600;
/// Certificates and public keys: everybody may read.
pub const PUBLIC_MODE: u32 = 0o644;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    move |source| PkiError::File { action, path: path.to_owned(), source }
}

/// Makes a directory (and its parents) that only the owner may enter; an existing one is left as it is.
pub fn make_private_dir(path: &Path) -> PkiResult<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create the directory", path))
}

/// The content of a file, or None where there is none.
pub fn read_optional(path: &Path) -> PkiResult<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Replaces a file in one step: a reader, or a restart after a crash, finds the old content or the new, never a part.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> PkiResult<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let beside = folder.join(format!(".{name}.{:08x}.tmp", rand::random::<u32>()));
    let written = write_and_flush(&beside, content, mode).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // Leaving the half-written file would only be litter; the error that matters is the first one.
        let _ = fs::remove_file(&beside);
        return Err(failed("write", path)(error));
    }
    // The rename is durable only once the directory itself is.
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed("flush the directory of", path))
}

fn write_and_flush(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The mode given at creation is cut by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        make_private_dir(&inner).unwrap();
        let path = inner.join("key");
        write_atomic(&path, b"one", SECRET_MODE).unwrap();
        write_atomic(&path, b"two", SECRET_MODE).unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no litter");
        assert_eq!(read_optional(&inner.join("none")).unwrap(), None);
    }
}
