//! Telling whoever started us how far we are, in the words of systemd's notify protocol, and listening to it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const SOCKET: &str = "NOTIFY_SOCKET";
const MESSAGE_BYTES_MAX: usize = 4096;
/// How often a silent child is checked for having ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Sends `READY=1`, or nothing where nobody listens.
pub fn ready() {
    send("READY=1");
}

/// Sends a line for humans.
pub fn status(text: &str) {
    send(&format!("STATUS={text}"));
}

fn send(message: &str) {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    // Nobody listening any more is no reason to fail: the message is a courtesy.
    let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
}

/// The other end: made before a child is started with `NOTIFY_SOCKET` set to `path()`.
pub struct Listener {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Listener {
    /// # Errors
    /// The socket cannot be made at this path.
    pub fn new(path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).with_context(|| format!("cannot make {}", path.display()))?;
        socket.set_read_timeout(Some(LOOK_AGAIN)).context("cannot set a socket's timeout")?;
        Ok(Self { socket, path: path.to_path_buf() })
    }

    pub fn variable() -> &'static str {
        SOCKET
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`; `tell` hears the status lines before it.
    ///
    /// # Errors
    /// The child ended, or said nothing in time.
    pub fn wait(&self, child: &mut Child, at_most: Duration, mut tell: impl FnMut(&str)) -> Result<()> {
        let until = Instant::now() + at_most;
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    for line in text.lines() {
                        match line.split_once('=') {
                            Some(("READY", "1")) => return Ok(()),
                            Some(("STATUS", status)) => tell(status),
                            _ => {}
                        }
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("cannot listen to the process"),
            }
            if let Some(status) = child.try_wait().context("cannot look at the process")? {
                bail!("it ended ({status})");
            }
            if Instant::now() > until {
                bail!("it was not ready after {} s", at_most.as_secs());
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
