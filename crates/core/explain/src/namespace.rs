//! Why a namespace does not go away, and what in it is in trouble.

use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{condition_is, condition_line, is_being_deleted, name, short, text, texts};

/// What is shown of each object in trouble; who wants more asks about the object.
const EVIDENCE_MAX: usize = 2;

/// What is known of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceFacts<'a> {
    pub namespace: &'a Value,
    /// What in it is in trouble, each with its causes: `deployment web`, `pod worker-1`.
    pub troubles: &'a [(String, Vec<Cause>)],
}

/// What stands in a namespace's way, the true cause first.
pub fn namespace(facts: &NamespaceFacts<'_>) -> Vec<Cause> {
    if !is_being_deleted(facts.namespace) {
        let of = |(what, causes): &(String, Vec<Cause>)| {
            let mut cause = causes.first()?.clone().of(what);
            cause.evidence.truncate(EVIDENCE_MAX);
            Some(cause)
        };
        return facts.troubles.iter().filter_map(of).collect();
    }
    let space = name(facts.namespace);
    let of = |type_: &str| condition_is(facts.namespace, type_, "True");
    let mut causes = Vec::new();
    let remaining = of("NamespaceContentRemaining");
    let list_all = list_command(remaining.map(|condition| text(condition, "/message")).unwrap_or_default(), space);
    if let Some(held) = of("NamespaceFinalizersRemaining") {
        let message = text(held, "/message");
        let listed = message.split("remaining: ").nth(1).unwrap_or(message);
        let first = listed.split([' ', ',']).next().unwrap_or(listed);
        let seen = remaining.map(condition_line).unwrap_or_default();
        let what = format!(
            "it was deleted, and what is left in it is kept by the finalizer {first}, which {} removes",
            ending::owner(first)
        );
        let help =
            "see why that controller does not act; when it is gone for good, remove the finalizer from what is left";
        causes.push(Cause::new(what, help).seen(condition_line(held)).seen(seen).run(list_all.clone()));
    }
    if let Some(failure) = of("NamespaceDeletionDiscoveryFailure") {
        causes.push(
            Cause::new(
                "it was deleted, and the kinds of an API that does not answer cannot be looked through",
                "mend the aggregated API server behind it, or delete its APIService",
            )
            .seen(condition_line(failure))
            .run("kubectl get apiservices"),
        );
    }
    // That something remains is no failure of its own.
    let failure = of("NamespaceDeletionContentFailure");
    let failure =
        failure.filter(|it| causes.is_empty() || !text(it, "/message").contains("unexpected items still remain"));
    if let Some(failure) = failure {
        let what = "it was deleted, and something in it cannot be deleted";
        causes.push(Cause::new(what, "mend what the message names, often a webhook").seen(condition_line(failure)));
    }
    if let (Some(left), true) = (remaining, causes.is_empty()) {
        let what = format!("it was deleted and waits for what is left: {}", short(text(left, "/message")));
        let help = "wait: pods have their grace period to end";
        causes.push(Cause::new(what, help).seen(condition_line(left)).run(format!("kubectl get pods -n {space}")));
    }
    let held = texts(facts.namespace, "/spec/finalizers");
    let foreign = held.iter().find(|finalizer| *finalizer != "kubernetes");
    if let Some(finalizer) = foreign {
        let what = format!(
            "it was deleted and is kept by its finalizer {finalizer}, which {} removes",
            ending::owner(finalizer)
        );
        causes.push(
            Cause::new(what, "see why that controller does not act")
                .seen(format!("spec.finalizers {}", held.join(", "))),
        );
    }
    causes.extend(ending::finalizers(facts.namespace, "namespace"));
    if causes.is_empty() {
        let what = "it was deleted, and its content is about to be removed";
        causes.push(Cause::new(what, "wait a moment and ask again").run(list_all));
    }
    causes
}

/// A command that shows what is left, by the message of the condition: `Some resources are remaining: configmaps. has 1
/// resource instances, widgets.example.com has 2 resource instances`.
fn list_command(message: &str, space: &str) -> String {
    let listed = message.split_once("remaining: ").map(|(_, listed)| listed).unwrap_or_default();
    let kinds: Vec<&str> = listed
        .split(", ")
        .filter_map(|one| one.split_once(" has ").map(|(kind, _)| kind.trim_end_matches('.')))
        .collect();
    if kinds.is_empty() {
        return format!(
            "kubectl api-resources --verbs=list --namespaced -o name | xargs -n1 kubectl get --ignore-not-found \
             --show-kind -n {space}"
        );
    }
    format!("kubectl get {} -n {space} -o yaml", kinds.join(","))
}
