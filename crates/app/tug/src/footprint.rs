//! What a process gives back once its start is over: the pages of the program that only the start needed.

use std::ffi::c_void;
use std::path::Path;
use std::time::Duration;

/// By then nodes are ready and what is watched has been read.
const START_OVER_AFTER: Duration = Duration::from_secs(20);

/// Waits until the start is over and gives back the program's pages. They are clean pages of a file: those that are
/// needed again are mapped again from the page cache, and the rest, about half, was for the start alone.
pub fn trim_after_start() {
    tokio::spawn(async {
        tokio::time::sleep(START_OVER_AFTER).await;
        if let Err(error) = trim() {
            tracing::debug!(%error, "cannot give back pages of the program");
        }
    });
}

fn trim() -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    for (start, length) in unwritten(&std::fs::read_to_string("/proc/self/maps")?, &program) {
        // SAFETY: the range is a mapping of a file that this process has never written to, so that its pages read the
        // same when they are mapped again.
        if unsafe { libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of the program's mappings that hold what its file holds: code, and constants at the file's start.
/// Later read-only parts were written to by the dynamic linker.
fn unwritten(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let range = |line: &str| {
        let mut words = line.split_whitespace();
        let (addresses, rights, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2)?;
        let is_unwritten = rights == "r-xp" || rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
        let (start, end) = addresses.split_once('-')?;
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16));
        let (start, end) = (start.ok()?, end.ok()?);
        (is_unwritten && Path::new(path) == program).then(|| (start, end.saturating_sub(start)))
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_wrote_to_is_given_back() {
        let maps = "\
1000-3000 r--p 00000000 fe:00 12 /bin/tug
3000-8000 r-xp 00002000 fe:00 12 /bin/tug
8000-9000 r--p 00007000 fe:00 12 /bin/tug
9000-a000 rw-p 00008000 fe:00 12 /bin/tug
b000-c000 rw-p 00000000 00:00 0
d000-e000 r-xp 00001000 fe:00 13 /lib/libc.so.6
f000-f800 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(unwritten(maps, Path::new("/bin/tug")), [(0x1000, 0x2000), (0x3000, 0x5000)]);
    }

    #[test]
    fn the_program_runs_on() -> std::io::Result<()> {
        trim()?;
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
        Ok(())
    }
}
