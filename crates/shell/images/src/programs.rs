//! Programs of this machine as files of an image: with the libraries that the dynamic linker would load for them.

use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;

use crate::File;

/// The programs, the first of which the image runs by default, then their libraries, each where it lies on this machine.
/// Static programs need none.
///
/// # Errors
/// A program or one of its libraries cannot be read.
pub fn with_libraries(programs: &[&Path]) -> Result<Vec<File<'static>>> {
    let text =
        |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| Error::other("a program's path is not text"));
    let mut wanted = programs.iter().map(|path| text(path)).collect::<Result<Vec<String>>>()?;
    for program in programs {
        // `ldd` fails for a static program, which needs nothing.
        let listing = Command::new("ldd").arg(program).output().map(|output| output.stdout).unwrap_or_default();
        for library in paths(&String::from_utf8_lossy(&listing)) {
            if !wanted.iter().any(|known| known == library) {
                wanted.push(library.to_owned());
            }
        }
    }
    wanted.iter().map(|path| read(path)).collect()
}

/// The files in what `ldd` prints: `NAME => /PATH (ADDRESS)` or `/PATH (ADDRESS)`.
fn paths(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn read(path: &str) -> Result<File<'static>> {
    let data = std::fs::read(path).map_err(|error| Error::other(format!("cannot read {path}: {error}")))?;
    Ok(File { path: path.trim_start_matches('/').to_owned().into(), data: data.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_the_linker_lists() {
        let listing =
            "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\t/lib64/ld.so (0x7)\n";
        assert_eq!(paths(listing).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so"]);
        assert_eq!(paths("\tstatically linked\n").count(), 0);
    }
}
