//! The container runtime: a typed client for CRI v1 over a unix socket.

pub mod cri {
    //! Generated CRI v1 messages and clients.
    #![allow(missing_docs, clippy::all, rust_2018_idioms)]
    tonic::include_proto!("runtime.v1");
}
pub mod events {
    //! Generated containerd event messages and client.
    #![allow(missing_docs, clippy::all, rust_2018_idioms)]
    tonic::include_proto!("containerd.services.events.v1");
}
pub mod tasks {
    //! Generated containerd task messages and client.
    #![allow(missing_docs, clippy::all, rust_2018_idioms)]
    tonic::include_proto!("containerd.services.tasks.v1");
}
pub mod health {
    //! Generated gRPC health check messages and client.
    #![allow(missing_docs, clippy::all, rust_2018_idioms)]
    tonic::include_proto!("grpc.health.v1");
}

mod client;
pub use client::{NAMESPACE, Runtime, label, observe, sandbox_created};
