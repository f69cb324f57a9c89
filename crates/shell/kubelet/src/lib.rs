//! The node agent: CRI, volumes, probes, status and the kubelet's own server.

pub mod server;
