//! metrics.k8s.io/v1beta1 NodeMetrics: what a node uses now.

use super::V1BETA1;
use crate::kind::{Kind, Verbs};

pub fn kind() -> Kind {
    Kind {
        verbs: Verbs::ReadOnly,
        singular: "".into(),
        schema: Some(|| super::schema("What a node uses now.", "usage", super::usage())),
        columns: super::columns(|o, _| o["usage"]["cpu"].clone(), |o, _| o["usage"]["memory"].clone()).into(),
        ..Kind::cluster(V1BETA1, "NodeMetrics", "nodes")
    }
}
