//! flowcontrol.apiserver.k8s.io/v1 FlowSchema: which requests go to which priority level.

use super::V1;
use crate::kind::Kind;

pub fn kind() -> Kind {
    Kind { has_status: true, has_generation: true, ..Kind::cluster(V1, "FlowSchema", "flowschemas") }
}
