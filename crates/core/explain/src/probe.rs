//! Which probe keeps a container from being ready, or ends it.

use serde_json::Value;

use crate::cause::Cause;
use crate::container::Part;
use crate::view::{event_line, flag, name, namespace, number, since, text};

/// What a probe asks, in words.
fn asks(probe: &Value) -> String {
    let port = |path: &str| match probe.pointer(path) {
        Some(Value::String(name)) => name.clone(),
        Some(number) => number.to_string(),
        None => String::new(),
    };
    if probe.get("httpGet").is_some() {
        let path = Some(text(probe, "/httpGet/path")).filter(|path| !path.is_empty()).unwrap_or("/");
        return format!("GET {path} on port {}", port("/httpGet/port"));
    }
    if probe.get("tcpSocket").is_some() {
        return format!("a connection to port {}", port("/tcpSocket/port"));
    }
    if probe.get("grpc").is_some() {
        return format!("gRPC health on port {}", port("/grpc/port"));
    }
    format!("the command {}", crate::view::texts(probe, "/exec/command").join(" "))
}

fn last_failure<'a>(part: &Part<'a>, kind: &str) -> Option<&'a Value> {
    let start = format!("{kind} probe ");
    let failed = part.facts.events.iter().filter(|event| {
        text(event, "/reason") == "Unhealthy" && text(event, "/message").starts_with(&start) && part.is_mine(event)
    });
    failed.max_by_key(|event| text(event, "/lastTimestamp").to_owned() + text(event, "/eventTime"))
}

fn help(said: &str) -> &'static str {
    if said.contains("connection refused") {
        "let the program listen on that port on all addresses, or correct the probe's port"
    } else if said.contains("statuscode: 404") {
        "correct the probe's path, or serve it"
    } else if said.contains("statuscode") {
        "see why the program answers so: it says itself that it is not well"
    } else if said.contains("timeout") || said.contains("deadline") || said.contains("timed out") {
        "raise the probe's timeoutSeconds, or make the answer faster"
    } else {
        "see why the probe fails: what it asks for, and what the container writes"
    }
}

fn logs(part: &Part<'_>) -> String {
    format!("kubectl logs {} -c {} -n {}", name(part.facts.pod), part.name(), namespace(part.facts.pod))
}

/// Why a running container is not ready.
pub(crate) fn cause(part: &Part<'_>) -> Option<Cause> {
    let (kind, probe) = match (part.spec.get("startupProbe"), part.spec.get("readinessProbe")) {
        (Some(probe), _) if !flag(part.status, "/started") => ("Startup", probe),
        (_, Some(probe)) => ("Readiness", probe),
        _ => return None,
    };
    let word = kind.to_lowercase();
    let Some(event) = last_failure(part, kind) else {
        let seconds = since(part.status, "/state/running/startedAt", part.facts.now).unwrap_or(0);
        let delay = number(probe, "/initialDelaySeconds").unwrap_or(0);
        let what = format!(
            "{} runs for {} and its {word} probe ({}) did not succeed yet",
            part.title(),
            crate::view::duration(seconds),
            asks(probe)
        );
        return Some(Cause::new(what, format!("wait: the probe starts {delay} s after the container")).run(logs(part)));
    };
    let what = format!("{} runs and is not ready: its {word} probe ({}) fails", part.title(), asks(probe));
    Some(Cause::new(what, help(text(event, "/message"))).seen(event_line(event)).run(logs(part)))
}

/// Whether a probe ended the container.
pub(crate) fn killed(part: &Part<'_>) -> Option<Cause> {
    let told = |kind: &str| format!("Container {} failed {kind} probe", part.name());
    let (kind, field, event) =
        [("Liveness", "livenessProbe"), ("Startup", "startupProbe")].into_iter().find_map(|(kind, field)| {
            let start = told(&kind.to_lowercase());
            let event = crate::view::event_where(part.facts.events, "Killing", |text| text.starts_with(&start))?;
            Some((kind, field, event))
        })?;
    let probe = part.spec.get(field)?;
    let failure = last_failure(part, kind);
    let what = format!(
        "{} is ended again and again by its {} probe ({}), which fails",
        part.title(),
        kind.to_lowercase(),
        asks(probe)
    );
    let said = failure.map(|event| text(event, "/message")).unwrap_or_default();
    Some(
        Cause::new(what, help(said))
            .seen(failure.map(event_line).unwrap_or_default())
            .seen(event_line(event))
            .run(logs(part) + " --previous"),
    )
}
