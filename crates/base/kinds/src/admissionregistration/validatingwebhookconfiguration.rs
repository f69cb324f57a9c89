//! admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration: webhooks that accept or reject objects.

use super::V1;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_generation: true,
        ..Kind::cluster(V1, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
    }
}
