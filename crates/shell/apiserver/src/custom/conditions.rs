//! What a definition's status says: which names it got, and whether it is served.

use serde_json::{Value, json};

use super::rows::{list, text};

/// The names that the other definitions of a group hold.
#[derive(Default)]
pub struct Taken {
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Taken {
    pub fn by<'a>(others: impl Iterator<Item = &'a Value>) -> Self {
        let mut taken = Self::default();
        for other in others {
            let names = &other["status"]["acceptedNames"];
            let owned = |path: &str| text(names, path).to_owned();
            taken.resources.extend([owned("/plural"), owned("/singular")]);
            taken.resources.extend(list(names, "/shortNames").iter().filter_map(Value::as_str).map(str::to_owned));
            taken.kinds.extend([owned("/kind"), owned("/listKind")]);
        }
        taken
    }
}

/// The status that a definition should have; the same where nothing is to be done.
pub fn plan(definition: &Value, taken: &Taken, now: &str) -> Value {
    let mut status = definition["status"].clone();
    approval(definition, &mut status, now);
    let wanted = &definition["spec"]["names"];
    if status["acceptedNames"] == *wanted && is_true(&status, "Established") {
        return status;
    }
    let accepted = status["acceptedNames"].clone();
    let mut names = accepted.clone();
    let mut conflict: Option<(&str, String)> = None;
    let fields = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, taken) in fields {
        let in_use = in_use(&wanted[field], &accepted[field], taken);
        match in_use.as_slice() {
            [] => set(&mut names, field, &wanted[field]),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    set(&mut names, "categories", &wanted["categories"]);
    status["acceptedNames"] = names;
    if let Some((reason, message)) = conflict {
        put(&mut status, "NamesAccepted", "False", reason, &message, now);
        if condition(&status, "Established").is_none() {
            put(&mut status, "Established", "False", "NotAccepted", "not all names are accepted", now);
        }
        return status;
    }
    put(&mut status, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
    if !is_true(&status, "Established") {
        let message = "the initial names have been accepted";
        put(&mut status, "Established", "True", "InitialNamesAccepted", message, now);
    }
    status
}

/// What the annotation says about the approval that groups of the Kubernetes community need.
fn approval(definition: &Value, status: &mut Value, now: &str) {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = text(definition, "/spec/group");
    if !["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}"))) {
        return;
    }
    let given = text(definition, "/metadata/annotations/api-approved.kubernetes.io");
    let (value, reason, message) = if given.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {given:?}"))
    } else {
        ("True", "ApprovedAnnotation", format!("approved in {given}"))
    };
    let same = condition(status, KIND).is_some_and(|known| known["message"] == message.as_str());
    if !same {
        put(status, KIND, value, reason, &message, now);
    }
}

/// Names that somebody else holds, each as a complaint; names that are already ours are fine.
fn in_use(wanted: &Value, accepted: &Value, taken: &[String]) -> Vec<String> {
    if wanted == accepted {
        return Vec::new();
    }
    let one = std::slice::from_ref(wanted);
    let ours = accepted.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = wanted.as_array().map_or(one, Vec::as_slice).iter().filter(|name| !ours.contains(name));
    let names = names.filter_map(Value::as_str).filter(|name| taken.iter().any(|held| held == name));
    names.map(|name| format!("{name:?} is already in use")).collect()
}

fn set(names: &mut Value, field: &str, value: &Value) {
    let Some(names) = names.as_object_mut() else { return };
    match value {
        Value::Null => drop(names.remove(field)),
        value => drop(names.insert(field.to_owned(), value.clone())),
    }
}

pub fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    list(status, "/conditions").iter().find(|condition| condition["type"] == kind)
}

pub fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition; its time moves only when its status does.
pub fn put(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str, now: &str) {
    let before = condition(status, kind).filter(|condition| condition["status"] == value);
    let since = before.map_or_else(|| now.into(), |condition| condition["lastTransitionTime"].clone());
    let new = json!({"lastTransitionTime": since, "message": message, "reason": reason, "status": value, "type": kind});
    let mut conditions = list(status, "/conditions").to_vec();
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) => *condition = new,
        None => conditions.push(new),
    }
    status["conditions"] = Value::Array(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(kind: &str, short: &str) -> Value {
        let names = json!({"plural": format!("{kind}s"), "singular": kind, "shortNames": [short], "kind": kind,
            "listKind": format!("{kind}List")});
        json!({"spec": {"names": names}, "status": {"acceptedNames": {"kind": "", "plural": ""}, "conditions": null}})
    }

    #[test]
    fn names_are_accepted_until_somebody_holds_them() {
        let mut first = definition("foo", "f");
        first["status"] = plan(&first, &Taken::default(), "now");
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert!(is_true(&first["status"], "Established"));
        assert_eq!(plan(&first, &Taken::default(), "later"), first["status"], "a second look changes nothing");

        let second = definition("bar", "f");
        let status = plan(&second, &Taken::by(std::iter::once(&first)), "now");
        let names = condition(&status, "NamesAccepted").unwrap();
        assert_eq!(
            (&names["reason"], &names["message"]),
            (&json!("ShortNamesConflict"), &json!("\"f\" is already in use"))
        );
        assert_eq!(condition(&status, "Established").unwrap()["reason"], "NotAccepted");
        assert_eq!(status["acceptedNames"]["plural"], "bars");
        assert!(status["acceptedNames"].get("shortNames").is_none());
    }
}
