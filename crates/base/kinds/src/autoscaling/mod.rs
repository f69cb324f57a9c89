//! The kinds of the autoscaling group.

mod horizontalpodautoscaler;
mod horizontalpodautoscaler_v1;
mod hpa_columns;
mod validation;

use crate::kind::Kind;

const V1: (&str, &str) = ("autoscaling", "v1");
const V2: (&str, &str) = ("autoscaling", "v2");

pub fn kinds() -> Vec<Kind> {
    vec![horizontalpodautoscaler::kind(), horizontalpodautoscaler_v1::kind()]
}
