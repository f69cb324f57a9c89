//! Storage: binding of claims and volumes, protection of what is in use, ephemeral claims, and the built-in disks.

mod binder;
mod disks;
mod ephemeral;
mod nodes;
mod protection;

use std::sync::Arc;

use client::{Cached, Index, Source};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

pub(crate) use binder::start as start_binder;
pub(crate) use disks::start as start_disks;
pub(crate) use ephemeral::start as start_ephemeral;
pub(crate) use protection::{start_claims as start_claim_protection, start_volumes as start_volume_protection};

/// Volumes by the `namespace/name` of the claim that they are reserved for.
const BY_CLAIM: &str = "claim";
/// Claims by the volume that they name.
const BY_VOLUME: &str = "volume";

macro_rules! whole {
    ($name:ident, $object:ty, [$($index:expr),*]) => {
        pub(crate) struct $name;
        impl Source for $name {
            type Object = $object;
            type View = Arc<$object>;
            fn project(mut object: $object) -> Arc<$object> {
                object.metadata.managed_fields = None;
                Arc::new(object)
            }
            fn indexes() -> &'static [Index<Arc<$object>>] {
                &[$($index),*]
            }
        }
    };
}

whole!(Volumes, PersistentVolume, [Index { name: BY_CLAIM, values: claim_of }]);
whole!(WholeClaims, PersistentVolumeClaim, [Index { name: BY_VOLUME, values: volume_of }]);
whole!(Classes, StorageClass, []);

fn claim_of(volume: &Cached<Arc<PersistentVolume>>) -> Vec<String> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let key = reference.and_then(|claim| Some(format!("{}/{}", claim.namespace.as_deref()?, claim.name.as_deref()?)));
    key.into_iter().collect()
}

fn volume_of(claim: &Cached<Arc<PersistentVolumeClaim>>) -> Vec<String> {
    let name = reconcile::volume::volume_of_claim(claim);
    if name.is_empty() { Vec::new() } else { vec![name.to_owned()] }
}
