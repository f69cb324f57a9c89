//! The kinds of the autoscaling group.

mod horizontalpodautoscaler;
mod horizontalpodautoscaler_v1;
mod hpa_columns;
mod validation;

use serde_json::Value;

use crate::json::{child, remove};
use crate::kind::Kind;

const V1: (&str, &str) = ("autoscaling", "v1");
const V2: (&str, &str) = ("autoscaling", "v2");

pub fn kinds() -> Vec<Kind> {
    vec![horizontalpodautoscaler::kind(), horizontalpodautoscaler_v1::kind()]
}

/// Annotations in which versions with fewer fields carry what they have no field for. They are never stored.
const CARRIED: [&str; 6] = [
    "autoscaling.alpha.kubernetes.io/metrics",
    "autoscaling.alpha.kubernetes.io/behavior",
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
    "autoscaling.alpha.kubernetes.io/current-metrics",
    "autoscaling.alpha.kubernetes.io/conditions",
];

fn drop_carried(scaler: &mut Value) {
    let Some(metadata) = child(scaler, "metadata") else { return };
    let Some(annotations) = child(metadata, "annotations") else { return };
    CARRIED.into_iter().for_each(|key| remove(annotations, key));
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(metadata, "annotations");
    }
}
