//! Which volume suits a claim: the one reserved for it, else the smallest that is large enough and free.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use meta::labels::Selector;

use super::{class_of_claim, class_of_volume, is_bound_to, mode, name, requested_bytes, storage_bytes};
use crate::plan::to_value;

/// The best volume for the claim. With `reserved_only` free ones are left to the scheduler, which chooses them together
/// with the pod's node.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
    reserved_only: bool,
) -> Option<&'a PersistentVolume> {
    let mut smallest: Option<(i64, &PersistentVolume)> = None;
    let spec = claim.spec.as_ref()?;
    let selector = spec.selector.as_ref().map(to_value);
    let selector = selector.map(|selector| Selector::from_label_selector(&selector));
    for volume in volumes {
        let Some(of_volume) = volume.spec.as_ref() else { continue };
        let size = storage_bytes(of_volume.capacity.as_ref());
        let fits = size >= requested_bytes(claim)
            && mode(spec.volume_mode.as_ref()) == mode(of_volume.volume_mode.as_ref())
            && attributes_class(spec.volume_attributes_class_name.as_ref())
                == attributes_class(of_volume.volume_attributes_class_name.as_ref())
            && volume.metadata.deletion_timestamp.is_none();
        if of_volume.claim_ref.is_some() {
            if fits && is_bound_to(volume, claim) {
                return Some(volume);
            }
            continue;
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if reserved_only || !fits || phase != Some("Available") {
            continue;
        }
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        let selected = match &selector {
            None => true,
            Some(selector) => selector.as_ref().is_some_and(|selector| selector.matches(&labels)),
        };
        if !selected || class_of_volume(volume) != class_of_claim(claim) || !modes_fit(claim, volume) {
            continue;
        }
        let rank = (size, name(&volume.metadata));
        if smallest.is_none_or(|(size, best)| rank < (size, name(&best.metadata))) {
            smallest = Some((size, volume));
        }
    }
    smallest.map(|(_, volume)| volume)
}

fn attributes_class(name: Option<&String>) -> &str {
    name.map_or("", String::as_str)
}

/// Whether the volume can be mounted in every way that the claim asks for.
pub fn modes_fit(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let asked = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let has = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    asked.into_iter().flatten().all(|mode| has.is_some_and(|has| has.contains(mode)))
}

/// Why a volume that the claim names cannot be its volume, in the words of the event.
pub fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    let (of_claim, of_volume) = (claim.spec.as_ref()?, volume.spec.as_ref()?);
    if storage_bytes(of_volume.capacity.as_ref()) < requested_bytes(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return Some("storageClassName does not match");
    }
    if attributes_class(of_claim.volume_attributes_class_name.as_ref())
        != attributes_class(of_volume.volume_attributes_class_name.as_ref())
    {
        return Some("volumeAttributesClassName does not match");
    }
    if mode(of_claim.volume_mode.as_ref()) != mode(of_volume.volume_mode.as_ref()) {
        return Some("incompatible volumeMode");
    }
    (!modes_fit(claim, volume)).then_some("incompatible accessMode")
}
