//! The pods that a Job makes.

use serde_json::{Value, json};

use super::State;
use super::facts::{COMPLETION_INDEX, FAILURE_COUNT, IGNORED_FAILURE_COUNT};
use crate::ownership::Owner;
use crate::plan::{JOBS, to_value};

/// Bytes of a generated name that the server keeps of the prefix; it adds five of its own.
const PREFIX_BYTES_MAX: usize = 58;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

impl State<'_> {
    /// The pod of the template, of an index where the Job has them.
    pub(super) fn new_pod(&self, index: Option<i64>) -> Value {
        let template = &self.spec.template;
        let meta = template.metadata.clone().unwrap_or_default();
        let mut finalizers = meta.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == super::TRACKING) {
            finalizers.push(super::TRACKING.to_owned());
        }
        let name = self.name();
        let mut metadata = json!({
            "generateName": format!("{name}-"),
            "labels": to_value(&meta.labels.unwrap_or_default()),
            "annotations": to_value(&meta.annotations.unwrap_or_default()),
            "finalizers": finalizers,
            "ownerReferences": [Owner::new(JOBS, &self.job.metadata, None).reference()],
        });
        let mut spec = to_value(&template.spec);
        if let Some(index) = index {
            metadata["generateName"] = prefix(name, index).into();
            metadata["labels"][COMPLETION_INDEX] = index.to_string().into();
            metadata["annotations"][COMPLETION_INDEX] = index.to_string().into();
            self.count_failures(&mut metadata["annotations"], index);
            spec["hostname"] = format!("{name}-{index}").into();
            tell_index(&mut spec);
        }
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
    }

    /// With a backoff limit per index, each pod knows how often its index failed before.
    fn count_failures(&self, annotations: &mut Value, index: i64) {
        if self.spec.backoff_limit_per_index.is_none() {
            return;
        }
        let (mut failures, mut ignored) = (0, 0);
        if let Some(pod) = self.replaced.get(&index) {
            (failures, ignored) = (super::facts(pod).failures, super::facts(pod).ignored_failures);
            let count = if self.judge(pod).ignored { &mut ignored } else { &mut failures };
            *count = count.saturating_add(1);
        }
        annotations[FAILURE_COUNT] = failures.to_string().into();
        if ignored > 0 {
            annotations[IGNORED_FAILURE_COUNT] = ignored.to_string().into();
        }
    }
}

fn prefix(name: &str, index: i64) -> String {
    let suffix = format!("-{index}-");
    let kept = PREFIX_BYTES_MAX.saturating_sub(suffix.len());
    format!("{}{suffix}", name.get(..kept).unwrap_or(name))
}

/// Every container finds its index in its environment, unless the template says otherwise.
fn tell_index(spec: &mut Value) {
    let variable = json!({ "name": INDEX_VARIABLE,
        "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{COMPLETION_INDEX}']") } } });
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(env) if env.iter().any(|known| known["name"] == INDEX_VARIABLE) => {}
                Some(env) => env.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_names_leave_room_for_the_index() {
        assert_eq!(super::prefix("job", 3), "job-3-");
        let long = "x".repeat(63);
        assert_eq!(super::prefix(&long, 12).len(), 58);
        assert!(super::prefix(&long, 12).ends_with("x-12-"));
    }
}
