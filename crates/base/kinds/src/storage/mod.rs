//! The kinds of the storage.k8s.io group.

mod csidriver;
mod csinode;
mod csistoragecapacity;
mod storageclass;
mod volumeattachment;
mod volumeattributesclass;

use crate::kind::Kind;

const V1: (&str, &str) = ("storage.k8s.io", "v1");

pub fn kinds() -> Vec<Kind> {
    vec![
        csidriver::kind(),
        csinode::kind(),
        csistoragecapacity::kind(),
        storageclass::kind(),
        volumeattachment::kind(),
        volumeattributesclass::kind(),
    ]
}
