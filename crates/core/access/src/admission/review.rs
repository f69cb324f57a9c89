//! AdmissionReview: the question that a webhook is asked, and what its answer means.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meta::{Cause, GroupVersion, Gvk, Reason, Status, StatusDetails};
use serde_json::{Map, Value, json};

use crate::User;

/// What a webhook is told about a write. `kind` and `resource` are of the version that its rules match; those of the
/// request itself may be of another version.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub uid: &'a str,
    pub kind: &'a Gvk,
    pub resource: (&'a GroupVersion, &'a str),
    pub request_kind: &'a Gvk,
    pub request_resource: (&'a GroupVersion, &'a str),
    pub subresource: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    pub operation: &'a str,
    pub user: &'a User,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    pub options: &'a Value,
}

fn kind_value(kind: &Gvk) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn resource_value((of, resource): (&GroupVersion, &str)) -> Value {
    json!({"group": of.group, "version": of.version, "resource": resource})
}

/// The user as reviews and policies show one.
pub fn user_value(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

impl Question<'_> {
    /// The `request` of an AdmissionReview; policies read the same.
    pub fn request(&self) -> Value {
        let mut request = Map::new();
        let mut set = |key: &str, value: Value| drop(request.insert(key.to_owned(), value));
        set("uid", self.uid.into());
        set("kind", kind_value(self.kind));
        set("resource", resource_value(self.resource));
        set("requestKind", kind_value(self.request_kind));
        set("requestResource", resource_value(self.request_resource));
        for (key, text) in [
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
            ("name", self.name),
            ("namespace", self.namespace),
        ] {
            if !text.is_empty() {
                set(key, text.into());
            }
        }
        set("operation", self.operation.into());
        set("userInfo", user_value(self.user));
        set("dryRun", self.dry_run.into());
        set("options", self.options.clone());
        Value::Object(request)
    }

    /// The whole body for a webhook that understands `version` of `admission.k8s.io`.
    pub fn review(&self, version: &str) -> Value {
        let mut request = self.request();
        request["object"] = self.object.cloned().unwrap_or_default();
        request["oldObject"] = self.old.cloned().unwrap_or_default();
        json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
    }
}

/// What a webhook decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub allowed: bool,
    /// A JSON patch for the object.
    pub patch: Option<Vec<u8>>,
    pub patch_type: String,
    pub result: Value,
    pub warnings: Vec<String>,
}

/// Reads the answer to the question with this uid.
///
/// # Errors
/// What is wrong with the answer, in upstream's words.
pub fn verdict(answer: &Value, version: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = match &response["patch"] {
        Value::String(patch) if !patch.is_empty() => {
            Some(STANDARD.decode(patch).map_err(|error| format!("response.patch is not base64: {error}"))?)
        }
        _ => None,
    };
    let given_type = response["patchType"].as_str();
    if version == "v1" {
        check_v1(answer, uid, mutating, patch.is_some(), given_type)?;
    }
    let patch_type = match (version, &patch) {
        ("v1", _) => given_type.unwrap_or_default().to_owned(),
        (_, Some(_)) => "JSONPatch".to_owned(),
        _ => String::new(),
    };
    Ok(Verdict {
        allowed: response["allowed"] == true,
        patch: patch.filter(|_| mutating),
        patch_type,
        result: response["status"].clone(),
        warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
    })
}

fn check_v1(answer: &Value, uid: &str, mutating: bool, patch: bool, patch_type: Option<&str>) -> Result<(), String> {
    let found = answer["response"]["uid"].as_str().unwrap_or_default();
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let (api_version, kind) =
        (answer["apiVersion"].as_str().unwrap_or_default(), answer["kind"].as_str().unwrap_or_default());
    if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let found = format!("{api_version}, Kind={kind}");
        return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {found}"));
    }
    let why = match (mutating, patch, patch_type) {
        (true, true, None) => "webhook returned response.patch but not response.patchType",
        (true, false, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, _, Some("")) => "webhook returned invalid response.patchType of \"\"",
        (false, true, _) => "validating webhook may not return response.patch",
        (false, _, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

/// The refusal that a client reads: the webhook's own Status, with its name before the message.
pub fn denied(webhook: &str, result: &Value) -> Box<Status> {
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let mut status = Status::failure(Reason::BadRequest, message);
    status.reason = text("reason").to_owned();
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    status.code = code.max(400);
    status.details = details(&result["details"]);
    status
}

fn details(value: &Value) -> Option<StatusDetails> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    value.as_object()?;
    let causes = value["causes"].as_array().into_iter().flatten();
    Some(StatusDetails {
        name: text(value, "name"),
        group: text(value, "group"),
        kind: text(value, "kind"),
        uid: text(value, "uid"),
        causes: causes
            .map(|one| Cause { reason: text(one, "reason"), message: text(one, "message"), field: text(one, "field") })
            .collect(),
        retry_after_seconds: value["retryAfterSeconds"].as_u64().and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
    })
}

/// A webhook that could not be asked, or whose answer makes no sense.
pub fn failed(webhook: &str, why: &str) -> Box<Status> {
    Status::internal(format!("failed calling webhook {webhook:?}: {why}"))
}

/// A dry run must not have effects, and this webhook does not promise that.
pub fn no_dry_run(webhook: &str) -> Box<Status> {
    Status::bad_request(format!("admission webhook {webhook:?} does not support dry run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_upstreams() {
        for (result, message, code) in [
            (json!({}), "admission webhook \"a.b.c\" denied the request without explanation", 400),
            (json!({"reason": "bad", "code": 403}), "admission webhook \"a.b.c\" denied the request: bad", 403),
            (json!({"message": "no", "code": 200}), "admission webhook \"a.b.c\" denied the request: no", 400),
        ] {
            let status = denied("a.b.c", &result);
            assert_eq!((status.message.as_str(), status.code), (message, code));
        }
    }

    #[test]
    fn answers_are_checked() {
        let answer = |response: Value| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let check = |response: Value, mutating| verdict(&answer(response), "v1", "u", mutating).map(|v| v.allowed);
        assert_eq!(check(json!({"uid": "u", "allowed": true}), false), Ok(true));
        assert_eq!(check(json!({"uid": "x"}), false), Err("expected response.uid=\"u\", got \"x\"".to_owned()));
        assert_eq!(check(Value::Null, false), Err("webhook response was absent".to_owned()));
        let patch = json!({"uid": "u", "allowed": true, "patch": "W10="});
        assert!(check(patch.clone(), true).unwrap_err().contains("but not response.patchType"));
        assert!(check(patch, false).unwrap_err().contains("may not return response.patch"));
    }
}
