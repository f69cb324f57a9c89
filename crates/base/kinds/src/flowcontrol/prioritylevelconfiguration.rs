//! flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration: how many requests of a level run and wait.

use serde_json::{Value, json};

use super::V1;
use crate::columns;
use crate::json::{at, child, fill, fill_empty, set, text};
use crate::kind::{Column, Kind};

pub fn kind() -> Kind {
    Kind {
        has_status: true,
        has_generation: true,
        columns: vec![
            columns::name(),
            Column::new("Type", "string", "Whether it is limited.", |o, _| text(o, "spec.type").into()),
            Column::new("NominalConcurrencyShares", "string", "Its share.", |o, _| {
                limited(o, "nominalConcurrencyShares")
            }),
            Column::new("Queues", "string", "How many queues.", |o, _| limited(o, "limitResponse.queuing.queues")),
            Column::new("HandSize", "string", "Queues a flow may use.", |o, _| {
                limited(o, "limitResponse.queuing.handSize")
            }),
            Column::new("QueueLengthLimit", "string", "How many wait in a queue.", |o, _| {
                limited(o, "limitResponse.queuing.queueLengthLimit")
            }),
            columns::age(),
        ]
        .into(),
        prepare_create: |o| set(o, "status", json!({})),
        default,
        ..Kind::cluster(V1, "PriorityLevelConfiguration", "prioritylevelconfigurations")
    }
}

fn limited(level: &Value, path: &str) -> Value {
    match at(&level["spec"]["limited"], path) {
        Value::Null => "<none>".into(),
        number => number.clone(),
    }
}

fn default(level: &mut Value) {
    let Some(spec) = child(level, "spec") else { return };
    if let Some(limited) = child(spec, "limited") {
        fill(limited, "nominalConcurrencyShares", 30);
        fill(limited, "lendablePercent", 0);
        if let Some(queuing) = child(limited, "limitResponse").and_then(|response| child(response, "queuing")) {
            fill_empty(queuing, "handSize", 8);
            fill_empty(queuing, "queues", 64);
            fill_empty(queuing, "queueLengthLimit", 50);
        }
    }
    if let Some(exempt) = child(spec, "exempt") {
        fill(exempt, "nominalConcurrencyShares", 0);
        fill(exempt, "lendablePercent", 0);
    }
}
