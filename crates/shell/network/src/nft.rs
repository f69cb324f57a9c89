//! One call of `nft` per transaction.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest time that one `nft` or `conntrack` call may take before it is killed.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// Most bytes of a program's complaint that are kept in an error.
const COMPLAINT_BYTES_MAX: usize = 2_000;

/// A failed call of a network tool. All are retryable: the table may have been changed by someone else.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("cannot run {program}; is its package (nftables, conntrack) installed?")]
    Run { program: &'static str, source: std::io::Error },
    #[error("{program} took longer than {CALL_TIME_MAX:?}")]
    Slow { program: &'static str },
    #[error("{program} failed with {status}: {complaint}")]
    Failed { program: &'static str, status: std::process::ExitStatus, complaint: String },
}

/// Runs a program with `input` on its standard input and returns its output.
pub async fn call(program: &'static str, arguments: &[&str], input: &str) -> Result<Vec<u8>, CallError> {
    let run = |source| CallError::Run { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends early says why on its standard error; the broken pipe adds nothing.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let finish = async { tokio::join!(write, child.wait_with_output()).1 };
    let output =
        tokio::time::timeout(CALL_TIME_MAX, finish).await.map_err(|_| CallError::Slow { program })?.map_err(run)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim().chars().take(COMPLAINT_BYTES_MAX).collect();
    Err(CallError::Failed { program, status: output.status, complaint })
}

/// Applies one transaction, all or nothing.
pub async fn apply(script: &str) -> Result<(), CallError> {
    call("nft", &["-f", "-"], script).await.map(drop)
}
