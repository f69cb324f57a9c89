//! Conditions and statuses of Gateway API objects, and their JSON beside what was written before.

use serde_json::{Map, Value, json};

use super::objects::{GROUP, ParentRef};
use crate::Key;
use crate::settings::CONTROLLER;

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub type_: &'static str,
    pub is_true: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn new(type_: &'static str, is_true: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, is_true, reason, message: message.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    pub name: String,
    pub attached_routes: usize,
    /// Whether HTTPRoutes may be attached at all.
    pub takes_routes: bool,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    pub key: Key,
    pub generation: i64,
    pub conditions: Vec<Condition>,
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    pub key: Key,
    pub generation: i64,
    pub parents: Vec<(ParentRef, Vec<Condition>)>,
}

/// Conditions as they are written. A condition whose status stays keeps its time; `now` is RFC 3339.
pub fn conditions(wanted: &[Condition], generation: i64, before: &Value, now: &str) -> Value {
    let written = wanted.iter().map(|condition| {
        let status = if condition.is_true { "True" } else { "False" };
        let mut known = before.as_array().into_iter().flatten();
        let known = known.find(|known| known["type"] == condition.type_ && known["status"] == status);
        let since = known.and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({"type": condition.type_, "status": status, "reason": condition.reason, "message": condition.message,
               "observedGeneration": generation, "lastTransitionTime": since})
    });
    Value::Array(written.collect())
}

/// The status of a GatewayClass of ours.
pub fn class(generation: i64, before: &Value, now: &str) -> Value {
    let wanted = [Condition::new("Accepted", true, "Accepted", "served by Tug's nodes")];
    json!({"conditions": conditions(&wanted, generation, &before["conditions"], now)})
}

impl GatewayStatus {
    /// The whole status; `addresses` are where the nodes listen.
    pub fn json(&self, addresses: &[String], before: &Value, now: &str) -> Value {
        let listeners = self.listeners.iter().map(|listener| {
            let mut known = before["listeners"].as_array().into_iter().flatten();
            let known = known.find(|known| known["name"] == listener.name.as_str());
            let known = known.map_or(&Value::Null, |known| &known["conditions"]);
            let kinds = if listener.takes_routes { json!([{"group": GROUP, "kind": "HTTPRoute"}]) } else { json!([]) };
            json!({"name": listener.name, "attachedRoutes": listener.attached_routes, "supportedKinds": kinds,
                   "conditions": conditions(&listener.conditions, self.generation, known, now)})
        });
        let points: Vec<Value> = addresses.iter().map(|ip| json!({"type": "IPAddress", "value": ip})).collect();
        let mut own = self.conditions.clone();
        for condition in own.iter_mut().filter(|condition| condition.type_ == "Programmed" && condition.is_true) {
            if addresses.is_empty() {
                let message = "no node listens yet";
                *condition = Condition::new("Programmed", false, "AddressNotAssigned", message);
            }
        }
        json!({"addresses": points, "listeners": listeners.collect::<Vec<_>>(),
               "conditions": conditions(&own, self.generation, &before["conditions"], now)})
    }
}

fn parent_json(parent: &ParentRef) -> Value {
    let mut reference = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            reference.insert(name.to_owned(), value);
        }
    };
    put("group", parent.group.clone().map(Value::from));
    put("kind", parent.kind.clone().map(Value::from));
    put("namespace", parent.namespace.clone().map(Value::from));
    put("name", Some(parent.name.clone().into()));
    put("sectionName", parent.section_name.clone().map(Value::from));
    put("port", parent.port.map(Value::from));
    Value::Object(reference)
}

impl RouteStatus {
    /// The list `status.parents`: ours anew, what other controllers wrote as it was.
    pub fn json(&self, before: &Value, now: &str) -> Value {
        let known = || before["parents"].as_array().into_iter().flatten();
        let mut parents: Vec<Value> =
            known().filter(|parent| parent["controllerName"] != CONTROLLER).cloned().collect();
        for (parent, wanted) in &self.parents {
            let reference = parent_json(parent);
            let ours = known().find(|known| known["controllerName"] == CONTROLLER && known["parentRef"] == reference);
            let before = ours.map_or(&Value::Null, |ours| &ours["conditions"]);
            let conditions = conditions(wanted, self.generation, before, now);
            parents.push(json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions}));
        }
        json!({"parents": parents})
    }
}

/// Whether a status differs from what is written. Times do not count: they follow from the rest.
pub fn differs(wanted: &Value, written: &Value) -> bool {
    match (wanted, written) {
        (Value::Object(wanted), written) => wanted
            .iter()
            .filter(|(name, _)| *name != "lastTransitionTime")
            .any(|(name, value)| differs(value, &written[name.as_str()])),
        (Value::Array(wanted), Value::Array(written)) => {
            wanted.len() != written.len()
                || wanted.iter().zip(written).any(|(wanted, written)| differs(wanted, written))
        }
        (Value::Array(wanted), Value::Null) => !wanted.is_empty(),
        (wanted, written) => wanted != written,
    }
}
