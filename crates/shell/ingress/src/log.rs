//! The access log: one line for each request, in a file of bounded size, never in the way of requests.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines that wait to be written; when the disk is too slow for more, they are dropped and counted.
const LINES_WAITING_MAX: usize = 4096;
/// A file of this size becomes `access.log.1`, and the one before it goes.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Lines reach the file no later than this.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

/// A handle; the writer's thread starts with the first line. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    path: Arc<PathBuf>,
    writer: Arc<Mutex<Option<SyncSender<String>>>>,
}

impl AccessLog {
    pub fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), writer: Arc::default() }
    }

    pub fn line(&self, line: String) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = writer.get_or_insert_with(|| {
            let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
            let path = self.path.clone();
            let _ = std::thread::Builder::new().name("ingress-log".to_owned()).spawn(move || write(&path, &receiver));
            sender
        });
        if let Err(TrySendError::Disconnected(_)) = sender.try_send(line) {
            *writer = None;
        }
    }
}

fn write(path: &PathBuf, lines: &Receiver<String>) {
    let result = (|| -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let open = || File::options().create(true).append(true).open(path);
        let mut file = BufWriter::new(open()?);
        let mut size = file.get_ref().metadata()?.len();
        loop {
            match lines.recv_timeout(FLUSH_AFTER) {
                Ok(line) => {
                    size += line.len() as u64 + 1;
                    writeln!(file, "{line}")?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    file.flush()?;
                    // Nothing to do until there is a line again.
                    match lines.recv() {
                        Ok(line) => {
                            size += line.len() as u64 + 1;
                            writeln!(file, "{line}")?;
                        }
                        Err(_) => return Ok(()),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return file.flush(),
            }
            if size > FILE_BYTES_MAX {
                file.flush()?;
                std::fs::rename(path, path.with_extension("log.1"))?;
                file = BufWriter::new(open()?);
                size = 0;
            }
        }
    })();
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "the access log ended; it begins again with the next request");
    }
}
