//! Logs of the long-running verbs: one line per event on standard error, filtered by `$TUG_LOG`.

use tracing_subscriber::EnvFilter;

/// Everything at `info`; the libraries below only when they warn.
const DEFAULT: &str = "info,hyper=warn,h2=warn,rustls=warn,tower=warn,kube=warn,hickory=warn,hickory_server=error,tonic=warn,fjall=warn,lsm_tree=warn";

pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env("TUG_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second call, as tests may make, changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
