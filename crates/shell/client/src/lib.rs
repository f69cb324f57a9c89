//! How components speak to the API: shared informers, a keyed work queue, events, leases and the remote client.

pub mod backoff;
pub mod error;
pub mod events;
pub mod hub;
pub mod informer;
pub mod lease;
pub mod queue;
mod reflector;
pub mod remote;

pub use backoff::Backoff;
pub use error::{ApiErrorExt, StatusError};
pub use events::{EventKind, Recorder};
pub use hub::{Hub, Source, Whole};
pub use informer::{Cached, Change, Index, Informer, ObjectKey, OwnerKey};
pub use lease::{LeaseConfig, run_while_leading};
pub use queue::{Queue, QueueConfig};
pub use reflector::InformerConfig;
pub use remote::{remote_client, remote_client_from_yaml};
