//! Why an image does not come.

use crate::cause::Cause;
use crate::container::Part;
use crate::view::{changed_through, event_line, event_where, name, namespace, short, text};

pub(crate) fn cause(part: &Part<'_>, reason: &str, message: &str) -> Cause {
    let pod = part.facts.pod;
    let image = text(part.spec, "/image");
    let failed = event_where(part.facts.events, "Failed", |text| text.starts_with("Failed to pull image"));
    let said = failed.map(|event| text(event, "/message")).unwrap_or_default();
    let answer = format!("{message} {said}").to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| answer.contains(word));
    let title = part.title();
    let space = namespace(pod);
    let change = match changed_through(pod) {
        Some(owner) => format!("kubectl set image {owner} {}=IMAGE -n {space}", part.name()),
        None => format!("kubectl set image pod/{} {}=IMAGE -n {space}", name(pod), part.name()),
    };
    let missing = part.facts.missing_pull_secrets;
    let found = if reason == "InvalidImageName" {
        Cause::new(format!("{title}: {image:?} is not the name of an image"), "correct the name").run(change)
    } else if reason == "ErrImageNeverPull" {
        Cause::new(
            format!("{title}: the image {image} is not on the node, and imagePullPolicy Never forbids pulling it"),
            "bring the image to the node, or use imagePullPolicy IfNotPresent",
        )
        .run("tug image import ARCHIVE")
    } else if let (Some(secret), true) = (missing.first(), has(DENIED) || has(NOT_FOUND)) {
        Cause::new(
            format!("{title}: {} may not be pulled, and the pull secret {secret:?} does not exist in {space}", image),
            "create the secret with the registry's user and password",
        )
        .run(format!(
            "kubectl create secret docker-registry {secret} -n {space} --docker-server={} --docker-username=USER \
             --docker-password=PASSWORD",
            registry(image)
        ))
    } else if has(DENIED) {
        Cause::new(
            format!(
                "{title}: the registry {} does not let {image} be pulled: it is private, or not there",
                registry(image)
            ),
            "correct the name, or give the pod an imagePullSecret of a user who may pull it",
        )
        .run(change)
    } else if has(UNREACHABLE) {
        Cause::new(
            format!("{title}: the registry {} of the image {image} is not reached from the node", registry(image)),
            "correct the registry's name, open the way to it, or bring the image to the node as an archive",
        )
        .run("tug image import ARCHIVE")
    } else if has(NOT_FOUND) {
        Cause::new(
            format!("{title}: the registry {} has no image {image}", registry(image)),
            "correct the image's name and tag",
        )
        .run(change)
    } else {
        let what = format!("{title}: the image {image} cannot be pulled");
        Cause::new(what, "correct the image's name, or what the registry's answer names").run(change)
    };
    let lines = missing.iter().map(|secret| format!("imagePullSecrets names {secret:?}, which does not exist"));
    found.seen(format!("{reason}: {}", short(message))).seen(failed.map(event_line).unwrap_or_default()).seen_all(lines)
}

const DENIED: &[&str] = &["unauthorized", "authentication required", "denied", "forbidden", "authorization failed"];
const UNREACHABLE: &[&str] = &[
    "no such host",
    "dial tcp",
    "i/o timeout",
    "connection refused",
    "network is unreachable",
    "server misbehaving",
    "x509",
    "tls:",
    "http response to https",
    "deadline exceeded",
];
const NOT_FOUND: &[&str] = &["not found", "manifest unknown", "name unknown", "404"];

/// The registry of an image: the part before the first slash when it is a host, else the usual one.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::registry;

    #[test]
    fn registries_are_found_in_names() {
        let of = ["a", "library/a", "r.example/a/b:1", "localhost/a", "host:5000/a"].map(registry);
        assert_eq!(of, ["docker.io", "docker.io", "r.example", "localhost", "host:5000"]);
    }
}
