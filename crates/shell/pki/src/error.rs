//! What can go wrong with keys, certificates and the files they live in.

use std::path::PathBuf;

pub type PkiResult<T> = Result<T, PkiError>;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Reading or writing a file failed.
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A file is there but does not hold what it should.
    #[error("{path} {problem}; {next_step}")]
    BadFile { path: PathBuf, problem: String, next_step: String },
    /// A certificate, key or request could not be made or read.
    #[error("{0}")]
    Crypto(String),
    /// What a peer or user handed over is malformed or breaks a rule.
    #[error("{0}")]
    Rejected(String),
    /// A peer could not be reached or did not answer in time.
    #[error("{0}")]
    Unreachable(String),
}

impl PkiError {
    /// Whether the same call may succeed later without anybody changing something.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    pub(crate) fn crypto(action: &str, cause: impl std::fmt::Display) -> Self {
        Self::Crypto(format!("cannot {action}: {cause}"))
    }
}
