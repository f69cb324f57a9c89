//! Reading container log files: the lines as the runtime wrote them, cut to what a client asked for, and followed.

use std::io::SeekFrom;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use streams::AnyBody;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::NodeView;

const READ_BYTES: usize = 64 << 10;
/// A line longer than this is passed on in pieces; runtimes cut at 16 KiB.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Chunks that wait for a slow client before reading pauses.
const CHUNKS_MAX: usize = 16;
/// Without a file event, a followed log looks this often whether its container has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What of a log is wanted (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub since: Option<Timestamp>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<String>,
}

impl LogQuery {
    /// # Errors
    /// A value is no number, time or boolean; the message names it.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in query {
            let bad = || format!("invalid value {value:?} for {name}");
            let number = || value.parse::<u64>().map_err(|_| bad());
            let yes = matches!(value.as_str(), "true" | "1");
            match name.as_str() {
                "follow" => wanted.follow = yes,
                "previous" => wanted.previous = yes,
                "timestamps" => wanted.timestamps = yes,
                "tailLines" => wanted.tail_lines = Some(number()?),
                "limitBytes" => wanted.limit_bytes = Some(number()?),
                "sinceSeconds" => {
                    let ago = jiff::SignedDuration::from_secs(i64::try_from(number()?).map_err(|_| bad())?);
                    wanted.since = Some(Timestamp::now().checked_sub(ago).map_err(|_| bad())?);
                }
                "sinceTime" => wanted.since = Some(value.parse().map_err(|_| bad())?),
                "stream" if value == "Stdout" || value == "Stderr" => wanted.stream = Some(value.to_lowercase()),
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// The part of a stored line that the client gets; None where it is not wanted.
    fn render<'a>(&self, line: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let text = Line::parse(line)?;
        if self.stream.as_deref().is_some_and(|stream| stream.as_bytes() != text.stream) {
            return None;
        }
        if let Some(since) = self.since {
            let time: Option<Timestamp> = std::str::from_utf8(text.time).ok().and_then(|time| time.parse().ok());
            if time.is_some_and(|time| time < since) {
                return None;
            }
        }
        if self.timestamps {
            out.extend_from_slice(text.time);
            out.push(b' ');
        }
        out.extend_from_slice(text.message);
        if !text.partial {
            out.push(b'\n');
        }
        Some(text.message)
    }
}

/// A line in the runtime's format: `TIME stdout|stderr F|P MESSAGE`.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    message: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let message = parts.next().unwrap_or_default();
        Some(Line { time, stream, partial: tag.starts_with(b"P"), message })
    }
}

/// Where the last `lines` stored lines begin, reading backwards in blocks; parts of a long line count each, as upstream
/// counts them.
async fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.metadata().await?.len();
    let mut seen = 0;
    let mut block = vec![0; READ_BYTES];
    while end > 0 {
        let start = end.saturating_sub(READ_BYTES as u64);
        let length = (end - start) as usize;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block[..length]).await?;
        for at in (0..length).rev().filter(|at| block[*at] == b'\n') {
            if seen == lines {
                return Ok(start + at as u64 + 1);
            }
            seen += 1;
        }
        end = start;
    }
    Ok(0)
}

/// Opens a log and streams what is wanted of it. With `follow`, goes on until that container has ended.
///
/// # Errors
/// The file cannot be read.
pub async fn stream(
    path: PathBuf,
    wanted: LogQuery,
    follow: Option<String>,
    node: Arc<dyn NodeView>,
) -> std::io::Result<AnyBody> {
    let mut file = File::open(&path).await?;
    let start = match wanted.tail_lines {
        Some(lines) => tail_offset(&mut file, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::spawn(async move {
        let mut reader = Reader { file, path, pending: Vec::new(), left: wanted.limit_bytes, wanted, sender };
        if let Err(error) = reader.run(follow, &*node).await {
            tracing::debug!(%error, log = %reader.path.display(), "a log stream ended early");
        }
    });
    Ok(StreamBody::new(frames(receiver)).boxed_unsync())
}

type Chunk = Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>;

fn frames(receiver: mpsc::Receiver<Bytes>) -> impl Stream<Item = Chunk> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    })
}

struct Reader {
    file: File,
    path: PathBuf,
    /// The beginning of a line whose end is not written yet.
    pending: Vec<u8>,
    left: Option<u64>,
    wanted: LogQuery,
    sender: mpsc::Sender<Bytes>,
}

impl Reader {
    async fn run(&mut self, follow: Option<String>, node: &dyn NodeView) -> std::io::Result<()> {
        let Some(container) = follow else {
            self.drain().await?;
            return Ok(());
        };
        let changes = Changes::of(&self.path)?;
        loop {
            // Asked before reading: what a container wrote before it ended is in the file by then.
            let running = node.is_running(&container).await;
            if !self.drain().await? || (!running && !self.reopened().await?) {
                return Ok(());
            }
            if running {
                tokio::select! {
                    () = self.sender.closed() => return Ok(()),
                    changed = changes.wait() => changed?,
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                self.reopened().await?;
            }
        }
    }

    /// Reads to the end of the file; false when the client has had enough or left.
    async fn drain(&mut self) -> std::io::Result<bool> {
        let mut block = vec![0; READ_BYTES];
        loop {
            let length = self.file.read(&mut block).await?;
            if length == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&block[..length]);
            let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
                if self.pending.len() > LINE_BYTES_MAX {
                    self.pending.clear();
                }
                continue;
            };
            let mut out = Vec::with_capacity(length);
            for line in self.pending[..end].split(|byte| *byte == b'\n') {
                self.wanted.render(line, &mut out);
            }
            self.pending.drain(..=end);
            if !self.send(out).await {
                return Ok(false);
            }
        }
    }

    async fn send(&mut self, mut out: Vec<u8>) -> bool {
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        (out.is_empty() || self.sender.send(out.into()).await.is_ok()) && self.left != Some(0)
    }

    /// After rotation the path names another file: reads that from its beginning.
    async fn reopened(&mut self) -> std::io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Ok(fresh) = File::open(&self.path).await else { return Ok(false) };
        let (old, new) = (self.file.metadata().await?, fresh.metadata().await?);
        if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
            return Ok(false);
        }
        self.drain().await?;
        self.file = fresh;
        Ok(true)
    }
}

/// Wakes when a file grows or is replaced.
struct Changes {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Changes {
    fn of(path: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        inotify.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        // SAFETY: the descriptor is owned by the registration and stays open as long as it.
        let ready =
            unsafe { AsyncFd::register(inotify.as_fd().try_clone_to_owned()?) }.map_err(std::io::Error::from)?;
        Ok(Self { inotify, ready })
    }

    async fn wait(&self) -> std::io::Result<()> {
        let mut guard = self.ready.readable().await?;
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02.5Z stderr F two\n\
                       2026-01-01T00:00:03Z stdout P thr\n\
                       2026-01-01T00:00:03Z stdout F ee\n\
                       2026-01-01T00:00:04Z stdout F \n";

    fn render(query: &str) -> String {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let wanted = LogQuery::parse(&pairs).unwrap();
        let mut out = Vec::new();
        for line in LOG.trim_end_matches('\n').as_bytes().split(|b| *b == b'\n') {
            wanted.render(line, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_filtered_and_stamped() {
        assert_eq!(render(""), "one\ntwo\nthree\n\n");
        assert_eq!(render("stream=Stderr"), "two\n");
        assert_eq!(render("sinceTime=2026-01-01T00:00:03Z"), "three\n\n");
        assert_eq!(render("timestamps=true&stream=Stderr"), "2026-01-01T00:00:02.5Z two\n");
    }

    #[test]
    fn bad_values_are_named() {
        let query = [("tailLines".to_owned(), "-1".to_owned())];
        assert_eq!(LogQuery::parse(&query), Err("invalid value \"-1\" for tailLines".to_owned()));
    }

    #[tokio::test]
    async fn the_tail_begins_where_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let many: String = (0..20_000).map(|n| format!("2026-01-01T00:00:01Z stdout F line {n}\n")).collect();
        std::fs::write(&path, &many).unwrap();
        let mut file = File::open(&path).await.unwrap();
        for (lines, first) in [(0, None), (1, Some("line 19999")), (5000, Some("line 15000")), (30_000, Some("line 0"))]
        {
            let start = tail_offset(&mut file, lines).await.unwrap() as usize;
            assert_eq!(many[start..].lines().next().map(|l| l.rsplit(" F ").next().unwrap()), first);
        }
    }
}
