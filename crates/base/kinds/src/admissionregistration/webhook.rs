//! What both kinds of webhook configuration share.

use serde_json::{Value, json};

use crate::columns;
use crate::json::{child, fill, items, list, text};
use crate::kind::Column;

pub fn columns() -> Vec<Column> {
    vec![
        columns::name(),
        Column::new("Webhooks", "integer", "How many webhooks it has.", |o, _| list(o, "webhooks").len().into()),
        columns::age(),
    ]
}

pub fn default_webhook(webhook: &mut Value) {
    fill(webhook, "failurePolicy", "Fail");
    fill(webhook, "matchPolicy", "Equivalent");
    fill(webhook, "namespaceSelector", json!({}));
    fill(webhook, "objectSelector", json!({}));
    fill(webhook, "timeoutSeconds", 10);
    items(webhook, "rules").for_each(|rule| fill(rule, "scope", "*"));
    if let Some(service) = child(webhook, "clientConfig").and_then(|client| child(client, "service")) {
        fill(service, "port", 443);
    }
}

/// Defaults of the rules that say which requests a policy is about.
pub fn default_match_resources(constraints: &mut Value) {
    fill(constraints, "matchPolicy", "Equivalent");
    fill(constraints, "namespaceSelector", json!({}));
    fill(constraints, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        items(constraints, list).for_each(|rule| fill(rule, "scope", "*"));
    }
}

/// The parameter object that a binding names, for its column.
pub fn parameter(binding: &Value) -> Value {
    let parameter = &binding["spec"]["paramRef"];
    match (text(parameter, "namespace"), text(parameter, "name")) {
        (_, "") if parameter["selector"].is_object() => columns::selector(&parameter["selector"]),
        (_, "") => "<unset>".into(),
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}
