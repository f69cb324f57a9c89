//! What a Job may say, in upstream's words.

use meta::labels::{self, Selector};
use meta::{FieldError, FieldErrors, FieldPath, names};
use serde_json::Value;

use super::{indexes, pod_failure_rules};
use crate::core::validate_template;
use crate::json::{flag, has, int, list, text};
use crate::rules;

const PARALLELISM_INDEXED_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Beyond so many completions, failures per index are limited further, so that the status stays small.
const COMPLETIONS_HIGH: i64 = 100_000;
const PARALLELISM_HIGH_MAX: i64 = 10_000;
const FAILED_INDEXES_HIGH_MAX: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;
const SUCCESS_RULES_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;

pub fn validate(job: &Value) -> FieldErrors {
    let mut errors = Vec::new();
    let (spec, path) = (&job["spec"], FieldPath::new("spec"));
    generated_selector(&mut errors, job);
    validate_spec(&mut errors, spec, &path);
    selector(&mut errors, spec, &path);
    let completions = int(spec, "completions");
    if is_indexed(spec) && completions > 0 {
        // The last pod's hostname has to be one.
        let (name, last) = (text(job, "metadata.name"), completions - 1);
        let hostname = format!("{name}-{last}");
        if !names::dns_label(&hostname).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(FieldError::invalid(&FieldPath::new("metadata").child("name"), name, why));
        }
    }
    errors
}

pub fn is_indexed(spec: &Value) -> bool {
    spec["completionMode"] == "Indexed"
}

/// Names and specs that are allowed and likely to surprise.
pub fn warnings(job: &Value) -> Vec<String> {
    let mut warnings = name_warnings(job);
    warnings.extend(spec_warnings(&job["spec"], "spec"));
    warnings
}

pub fn name_warnings(object: &Value) -> Vec<String> {
    let wrong = names::dns_label(text(object, "metadata.name"));
    if wrong.is_empty() {
        return Vec::new();
    }
    let why =
        "this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended";
    vec![format!("metadata.name: {why}: [{}]", wrong.join(" "))]
}

pub fn spec_warnings(spec: &Value, path: &str) -> Vec<String> {
    let many = int(spec, "completions") > COMPLETIONS_HIGH && int(spec, "parallelism") > PARALLELISM_HIGH_MAX;
    if !is_indexed(spec) || !many {
        return Vec::new();
    }
    let why = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
    vec![format!("{path}: {why}")]
}

/// The server makes the selector; labels of one's own must not contradict it.
fn generated_selector(errors: &mut FieldErrors, job: &Value) {
    let spec = &job["spec"];
    if flag(spec, "manualSelector") || spec["selector"].is_null() {
        return;
    }
    let (name, uid) = (text(job, "metadata.name"), text(job, "metadata.uid"));
    if uid.is_empty() {
        errors.push(FieldError::required(&FieldPath::new("metadata").child("uid"), ""));
    }
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let path = FieldPath::new("spec").child("template").child("metadata").child("labels");
    let labels = &spec["template"]["metadata"]["labels"];
    for (key, value) in expected {
        let why = format!("must be '{value}'");
        match labels[key].as_str() {
            None => errors.push(FieldError::required(&path.key(key), &why)),
            Some(found) if found != value => errors.push(FieldError::invalid(&path.key(key), labels.clone(), why)),
            Some(_) => {}
        }
    }
    let expected: serde_json::Map<_, _> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    let selector = Selector::from_label_selector(&spec["selector"]);
    if selector.is_some_and(|selector| !selector.matches(&Value::Object(expected))) {
        let path = FieldPath::new("spec").child("selector");
        errors.push(FieldError::invalid(&path, spec["selector"].clone(), "`selector` not auto-generated"));
    }
}

/// Whoever made it, the selector selects the pods of the template.
fn selector(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required(&path.child("selector"), ""));
    } else {
        errors.extend(labels::validate_label_selector(selector, &path.child("selector")));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !Selector::from_label_selector(selector).is_some_and(|selector| selector.matches(labels)) {
        let why = "`selector` does not match template `labels`";
        let path = path.child("template").child("metadata").child("labels");
        errors.push(FieldError::invalid(&path, labels.clone(), why));
    }
}

/// The rules that hold in a Job and in a CronJob's template alike.
pub fn validate_spec(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for key in numbers {
        rules::not_negative(errors, spec, path, key);
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        let why = "when maxFailedIndexes is specified";
        errors.push(FieldError::required(&path.child("backoffLimitPerIndex"), why));
    }
    managed_by(errors, spec, &path.child("managedBy"));
    rules::one_of(errors, spec, path, "completionMode", &["NonIndexed", "Indexed"]);
    if is_indexed(spec) {
        indexed(errors, spec, path);
    } else if spec["completionMode"].is_null() || spec["completionMode"] == "NonIndexed" {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if has(spec, key) {
                let (shown, why) = (spec[key].clone(), "requires indexed completion mode");
                errors.push(FieldError::invalid(&path.child(key), shown, why));
            }
        }
    }
    pod_failure_rules::validate(errors, spec, &path.child("podFailurePolicy"));
    if has(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if is_indexed(spec) {
            success_policy(errors, spec, &path.child("rules"));
        } else {
            let shown = spec["successPolicy"].clone();
            errors.push(FieldError::invalid(&path, shown, "requires indexed completion mode"));
        }
    }
    let fails = has(spec, "podFailurePolicy");
    let replacements: &[&str] = if fails { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    rules::one_of(errors, spec, path, "podReplacementPolicy", replacements);
    errors.extend(validate_template(&spec["template"], &path.child("template")));
    restart_policy(errors, spec, &path.child("template").child("spec").child("restartPolicy"));
}

fn restart_policy(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let policy = text(&spec["template"], "spec.restartPolicy");
    match policy {
        "Always" | "" => errors.push(FieldError::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(path, policy, why));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(FieldError::not_supported(path, policy, &["OnFailure", "Never"])),
    }
}

fn managed_by(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    const PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let Some(name) = spec["managedBy"].as_str() else { return };
    match name.split_once('/') {
        _ if name.is_empty() => errors.push(FieldError::required(path, "")),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            rules::name(errors, path, host, names::dns_subdomain);
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
            if !rest.bytes().all(allowed) {
                errors.push(FieldError::invalid(path, rest, names::regex_error("Invalid path", PATH, &[])));
            }
        }
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, name, why));
        }
    }
    if name.len() > MANAGED_BY_BYTES_MAX {
        errors.push(FieldError::too_long(path, MANAGED_BY_BYTES_MAX));
    }
}

fn indexed(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    if spec["completions"].is_null() {
        errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let mut at_most = |key: &str, max: i64, why: String| {
        if let Some(number) = spec[key].as_i64().filter(|number| *number > max) {
            errors.push(FieldError::invalid(&path.child(key), number, why));
        }
    };
    let limit = PARALLELISM_INDEXED_MAX;
    let why = format!("must be less than or equal to {limit} when completion mode is Indexed");
    at_most("parallelism", limit, why);
    if let Some(completions) = spec["completions"].as_i64() {
        at_most("maxFailedIndexes", completions, "must be less than or equal to completions".to_owned());
    }
    at_most("maxFailedIndexes", FAILED_INDEXES_MAX, format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
    if int(spec, "completions") > COMPLETIONS_HIGH && has(spec, "backoffLimitPerIndex") {
        let why = |limit: i64| {
            format!(
                "must be less than or equal to {limit} when completions are above {COMPLETIONS_HIGH} and used with backoff limit per index"
            )
        };
        at_most("parallelism", PARALLELISM_HIGH_MAX, why(PARALLELISM_HIGH_MAX));
        at_most("maxFailedIndexes", FAILED_INDEXES_HIGH_MAX, why(FAILED_INDEXES_HIGH_MAX));
        if !has(spec, "maxFailedIndexes") {
            let why = format!("must be specified when completions is above {COMPLETIONS_HIGH}");
            errors.push(FieldError::required(&path.child("maxFailedIndexes"), &why));
        }
    }
}

fn success_policy(errors: &mut FieldErrors, spec: &Value, path: &FieldPath) {
    let rules = list(spec, "successPolicy.rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(path, why));
    }
    if rules.len() > SUCCESS_RULES_MAX {
        errors.push(FieldError::too_many(path, rules.len(), SUCCESS_RULES_MAX));
    }
    for (number, rule) in rules.iter().enumerate() {
        success_rule(errors, rule, int(spec, "completions"), &path.index(number));
    }
}

fn success_rule(errors: &mut FieldErrors, rule: &Value, completions: i64, path: &FieldPath) {
    let (wanted, count) = (rule["succeededIndexes"].as_str(), rule["succeededCount"].as_i64());
    if wanted.is_none() && count.is_none() {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, why));
    }
    let mut total = 0;
    if let Some(wanted) = wanted {
        let path = path.child("succeededIndexes");
        if wanted.len() > SUCCEEDED_INDEXES_BYTES_MAX {
            errors.push(FieldError::too_long(&path, SUCCEEDED_INDEXES_BYTES_MAX));
        }
        match indexes::count(wanted, completions) {
            Ok(count) => total = count,
            Err(why) => {
                errors.push(FieldError::invalid(&path, wanted, format!("error parsing succeededIndexes: {why}")));
            }
        }
    }
    let Some(count) = count else { return };
    rules::not_negative(errors, rule, path, "succeededCount");
    let path = path.child("succeededCount");
    if count > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&path, count, why));
    }
    if wanted.is_some() && count > total {
        let of = "the number of indexes in the specified succeededIndexes field";
        errors.push(FieldError::invalid(&path, count, format!("must be less than or equal to {total} ({of})")));
    }
}
