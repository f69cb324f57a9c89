//! Container log files: rotation by size, removal, and the last lines as a termination message.

use crate::node::Node;
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often log sizes are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// The text of the last lines of a CRI log, without timestamps.
pub fn tail(path: &Path, lines_max: usize, bytes_max: u64) -> String {
    // each line carries some 45 bytes of time and stream name
    let window = bytes_max + 64 * lines_max as u64;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
        let mut data = Vec::new();
        file.take(window).read_to_end(&mut data)?;
        Ok(data)
    };
    let data = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&data);
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ');
            let (_, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
            let end = if tag.starts_with('F') { "\n" } else { "" };
            matches!(stream, "stdout" | "stderr").then(|| format!("{}{end}", parts.next().unwrap_or_default()))
        })
        .collect();
    lines.drain(..lines.len().saturating_sub(lines_max));
    let joined = lines.concat();
    let start = joined.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    let start = (start..=joined.len()).find(|at| joined.is_char_boundary(*at)).unwrap_or(0);
    joined[start..].to_string()
}

/// Rotated files of a log, oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&prefix)))
        .collect();
    found.sort();
    found
}

/// Removes a log and its rotated files.
pub fn remove(log: &Path) {
    for path in rotated(log) {
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_file(log);
}

fn compress(path: &Path) -> io::Result<()> {
    let target = PathBuf::from(format!("{}.gz", path.display()));
    let mut encoder = GzEncoder::new(fs::File::create(&target)?, Compression::default());
    io::copy(&mut fs::File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

/// Moves the log aside, drops the oldest files, compresses what nobody writes to.
fn move_aside(log: &Path, files_max: u32) -> io::Result<()> {
    let mut old = rotated(log);
    // the live file and the one about to be made count too
    let keep = usize::try_from(files_max).unwrap_or(usize::MAX).saturating_sub(2);
    while old.len() > keep {
        fs::remove_file(old.remove(0))?;
    }
    for path in old.iter().filter(|p| p.extension().is_none_or(|e| e != "gz")) {
        compress(path)?;
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    fs::rename(log, format!("{}.{stamp}", log.display()))
}

/// Rotates logs that have grown past the limit until `stop`.
pub async fn rotate(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
        for handle in node.registry.all() {
            let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for container in view.containers.values().filter(|c| c.running) {
                let grown = fs::metadata(&container.log_path).is_ok_and(|m| m.len() > node.config.log_bytes_max);
                if !grown {
                    continue;
                }
                let (path, files_max) = (container.log_path.clone(), node.config.log_files_max);
                let moved = tokio::task::spawn_blocking(move || move_aside(&path, files_max)).await;
                if let Ok(Err(error)) = moved {
                    tracing::warn!("cannot rotate {}: {error}", container.log_path.display());
                }
                if let Err(status) = node.runtime.reopen_log(&container.id).await {
                    tracing::warn!("cannot reopen {}: {status}", container.log_path.display());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_joins_partial_lines_and_drops_stamps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(
            &path,
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n",
        )
        .unwrap();
        assert_eq!(tail(&path, 80, 2048), "one\ntwo\n");
        assert_eq!(tail(&path, 80, 3), "wo\n");
        assert_eq!(tail(&dir.path().join("none"), 80, 2048), "");
    }

    #[test]
    fn rotation_keeps_a_bounded_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for stamp in ["20260101-000001", "20260101-000002", "20260101-000003"] {
            fs::write(dir.path().join(format!("0.log.{stamp}")), "x").unwrap();
        }
        fs::write(&path, "live").unwrap();
        move_aside(&path, 3).unwrap();
        let left = rotated(&path);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].extension().is_some_and(|e| e == "gz"));
        remove(&path);
        assert!(rotated(&path).is_empty());
    }
}
