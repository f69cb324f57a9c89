//! What happens to objects: patches and server-side apply, on JSON values by the schema.

pub mod apply;
mod declared;
pub mod fieldset;
pub mod patch;
pub mod strategic;

pub use apply::{Conflict, Manager, apply, conflict_status, track_update};
pub use declared::undeclared;
pub use patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
