//! Table columns that many kinds share, and the texts of their cells.

use meta::{labels::Selector, time};
use serde_json::Value;

use crate::json::{int, list, text};
use crate::kind::Column;

const NAME: &str = "The object's name, unique within its namespace and resource.";
const AGE: &str = "Time since the object was created.";

/// The columns of a kind that names none: its name and when it was made.
pub fn generic() -> Vec<Column> {
    vec![name(), Column::new("Created At", "date", AGE, |object, _| object["metadata"]["creationTimestamp"].clone())]
}

pub fn name() -> Column {
    Column::new("Name", "string", NAME, |object, _| object["metadata"]["name"].clone()).format("name")
}

pub fn age() -> Column {
    Column::new("Age", "string", AGE, |object, now| since(&object["metadata"]["creationTimestamp"], now))
}

/// How long ago an RFC 3339 time was, as kubectl writes it (`3d4h`), or `<unknown>`.
pub fn since(timestamp: &Value, now: i64) -> Value {
    match timestamp.as_str().and_then(time::parse_seconds) {
        Some(then) => Value::String(time::human_duration(now.saturating_sub(then))),
        None => Value::String("<unknown>".to_owned()),
    }
}

/// A text cell, `<none>` where the text is empty.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// Labels as `a=b,c=d`, `<none>` where there are none.
pub fn labels(labels: &Value) -> Value {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or_none(&pairs.join(","))
}

/// A LabelSelector in its text form, `<none>` where it is empty or absent.
pub fn selector(selector: &Value) -> Value {
    or_none(&Selector::from_label_selector(selector).unwrap_or_default().to_string())
}

/// The names or images of a PodSpec's containers, by comma.
pub fn containers(spec: &Value, field: &str) -> Value {
    let texts: Vec<&str> = list(spec, "containers").iter().map(|container| text(container, field)).collect();
    texts.join(",").into()
}

/// A list of texts by comma, at most `max` of them and how many more there are; `<unset>` where there are none.
pub fn with_more(texts: &[String], max: usize) -> String {
    match texts.len() {
        0 => "<unset>".to_owned(),
        count if count > max => format!("{} + {} more...", texts[..max].join(","), count - max),
        _ => texts.join(","),
    }
}

/// The wide columns of a workload whose template stands at `spec.template`: containers, images.
pub fn template() -> [Column; 2] {
    const NAMES: &str = "Names of the template's containers.";
    const IMAGES: &str = "Images of the template's containers.";
    [
        Column::new("Containers", "string", NAMES, |o, _| containers(&o["spec"]["template"]["spec"], "name")).wide(),
        Column::new("Images", "string", IMAGES, |o, _| containers(&o["spec"]["template"]["spec"], "image")).wide(),
    ]
}

/// The wide column of `spec.selector`, a LabelSelector.
pub fn selector_column() -> Column {
    Column::new("Selector", "string", "Selects the pods that belong to it.", |o, _| selector(&o["spec"]["selector"]))
        .wide()
}

/// A number from a dotted path, 0 where it is missing.
pub fn number(object: &Value, path: &str) -> Value {
    int(object, path).into()
}

/// Access modes of a volume or claim in their short forms: `RWO,ROX`.
pub fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |name: &str| modes.iter().any(|mode| mode == name);
    SHORT.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The storage class of a volume or claim; the old annotation wins over the field.
pub fn storage_class(object: &Value) -> String {
    let annotation = &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    annotation.as_str().unwrap_or_else(|| text(object, "spec.storageClassName")).to_owned()
}

/// `Terminating` once deletion has begun, else the phase.
pub fn phase(object: &Value) -> Value {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text(object, "status.phase").into()
    } else {
        "Terminating".into()
    }
}

/// A text, `<unset>` where it is missing.
pub fn or_unset(value: &Value) -> Value {
    value.as_str().map_or_else(|| "<unset>".into(), Value::from)
}

/// The Name column of a kind of which one object may be the default: `standard (default)`.
pub fn default_marked_name() -> Column {
    Column::new("Name", "string", NAME, |object, _| {
        const MARKS: [&str; 3] = [
            "ingressclass.kubernetes.io/is-default-class",
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let marked = MARKS.iter().any(|mark| object["metadata"]["annotations"][mark] == "true");
        let name = text(object, "metadata.name");
        if marked { format!("{name} (default)").into() } else { name.into() }
    })
    .format("name")
}

/// Name and creation time, the columns of roles.
pub fn created_at() -> Vec<Column> {
    vec![name(), Column::new("Created At", "date", AGE, |object, _| object["metadata"]["creationTimestamp"].clone())]
}
