//! admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration: webhooks that accept or reject objects.

use serde_json::Value;

use super::V1;
use crate::json::items;
use crate::kind::{Kind, texts};

pub fn kind() -> Kind {
    Kind {
        categories: texts(&["api-extensions"]),
        has_generation: true,
        columns: super::webhook::columns().into(),
        default,
        validate: super::webhook_rules::configuration,
        ..Kind::cluster(V1, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
    }
}

fn default(configuration: &mut Value) {
    for webhook in items(configuration, "webhooks") {
        super::webhook::default_webhook(webhook);
    }
}
