//! Who owns which field: every write is recorded in `metadata.managedFields`.

use objects::Manager;
use serde_json::Value;

use super::metadata;
use crate::call::{Call, WriteOptions};
use crate::codec::Expected;

/// The name that a write is recorded under: what the client asked for, else how it calls itself.
fn name<'a>(call: &'a Call<'_>, options: &'a WriteOptions) -> &'a str {
    if options.field_manager.is_empty() {
        call.info.user_agent.split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown")
    } else {
        &options.field_manager
    }
}

/// Records what an update changed between `old` and `new`.
pub fn record(call: &Call<'_>, options: &WriteOptions, old: Option<&Value>, new: &mut Value) {
    let Some(schema) = Expected::from(call.served).schema() else { return };
    let api_version = call.served.api_version();
    let subresource = call.info.subresource.as_str();
    let manager = Manager { name: name(call, options), api_version: &api_version, subresource };
    objects::track_update(&schema, old, new, &manager, &metadata::now());
}
