//! What happens to objects: patches, applied on JSON values by the schema.

pub mod patch;
pub mod strategic;

pub use patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
