//! What an administrator sets for all nodes, and what one Ingress may change for itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// IngressClasses and GatewayClasses with this controller are Tug's.
pub const CONTROLLER: &str = "tug.local/ingress";

/// The cluster's settings, read from the ConfigMap `kube-system/tug-ingress`, key `settings.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    pub http_port: u16,
    pub https_port: u16,
    /// Labels that a node must carry to listen; empty chooses every node.
    pub node_selector: std::collections::BTreeMap<String, String>,
    /// Hosts with a certificate are redirected from HTTP to HTTPS.
    pub ssl_redirect: bool,
    /// Addresses (`10.0.0.0/8`) whose PROXY protocol header and X-Forwarded headers are believed.
    pub trusted_proxies: Vec<String>,
    /// Connections from trusted addresses begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// One log line for each request.
    pub access_log: bool,
    /// Largest request body, in bytes; 0 takes any.
    pub body_bytes_max: u64,
    /// How long a backend may take to begin its answer, in seconds.
    pub answer_seconds_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http_port: 80,
            https_port: 443,
            node_selector: Default::default(),
            ssl_redirect: true,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            access_log: false,
            body_bytes_max: 1 << 30,
            answer_seconds_max: 60,
        }
    }
}

/// The limits of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// 0 takes any body.
    pub body_bytes_max: u64,
    /// Until the backend begins its answer.
    pub answer: Duration,
    /// Until the whole answer is sent, tries included; `None` does not limit it.
    pub whole: Option<Duration>,
}

impl Limits {
    pub fn of(settings: &Settings) -> Self {
        let answer = Duration::from_secs(settings.answer_seconds_max.max(1));
        Self { body_bytes_max: settings.body_bytes_max, answer, whole: None }
    }
}

/// What annotations of an Ingress say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub ssl_redirect: bool,
    pub limits: Limits,
}

impl Options {
    /// Reads annotations; what is unknown or unreadable is told and changes nothing.
    pub fn read(annotations: &[(String, String)], settings: &Settings) -> (Self, Vec<String>) {
        let mut options = Self { ssl_redirect: settings.ssl_redirect, limits: Limits::of(settings) };
        let mut problems = Vec::new();
        for (name, value) in annotations {
            let read = match name.as_str() {
                "ssl-redirect" => value.parse().map(|on| options.ssl_redirect = on).is_ok(),
                "body-bytes-max" => value.parse().map(|bytes| options.limits.body_bytes_max = bytes).is_ok(),
                "answer-seconds-max" => match value.parse::<u64>() {
                    Ok(seconds) if seconds > 0 => {
                        options.limits.answer = Duration::from_secs(seconds);
                        true
                    }
                    _ => false,
                },
                _ => false,
            };
            if !read {
                problems.push(format!("annotation {}{name}: {value:?} is not understood", crate::view::OPTION_PREFIX));
            }
        }
        (options, problems)
    }
}
