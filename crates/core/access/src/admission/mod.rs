//! What admission decides about a write: pure functions over the object and what it refers to.

pub mod json;
pub mod limit_range;
pub mod matching;
pub mod nodes;
pub mod pod_resize;
pub mod pod_security;
pub mod priority;
pub mod review;
pub mod runtime_class;
pub mod service;
pub mod service_account;
pub mod storage;
pub mod tolerations;
