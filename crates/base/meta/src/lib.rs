//! Names, quantities, selectors, Status errors and versions: the vocabulary every other crate shares.

pub mod address_range;
pub mod cron;
pub mod field;
pub mod fields;
pub mod gvk;
pub mod intstr;
pub mod labels;
pub mod names;
pub mod quantity;
pub mod status;
pub mod time;
pub mod version;
pub mod zones;

pub use field::{FieldError, FieldErrors, FieldPath};
pub use gvk::{GroupResource, GroupVersion, Gvk, Gvr};
pub use status::{Cause, Reason, Status, StatusDetails};

/// What every fallible step of the API answers: a value or the Status that the client will read.
pub type ApiResult<T> = Result<T, Box<Status>>;
