//! Why a namespace does not go away, and what in it is in trouble.

use serde_json::Value;

use crate::cause::Cause;
use crate::ending;
use crate::view::{condition_is, condition_line, is_being_deleted, name, short, text, texts};

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
        let of = |(what, causes): &(String, Vec<Cause>)| causes.first().map(|cause| cause.clone().of(what));
        return facts.troubles.iter().filter_map(of).collect();
    }
    let space = name(facts.namespace);
    let of = |type_: &str| condition_is(facts.namespace, type_, "True");
    let mut causes = Vec::new();
    let list_all = "kubectl api-resources --verbs=list --namespaced -o name | xargs -n1 kubectl get --ignore-not-found \
                    --show-kind -n";
    let remaining = of("NamespaceContentRemaining");
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
        causes.push(Cause::new(what, help).seen(condition_line(held)).seen(seen).run(format!("{list_all} {space}")));
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
    if let Some(failure) = of("NamespaceDeletionContentFailure") {
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
        causes.push(Cause::new(what, "wait a moment and ask again").run(format!("{list_all} {space}")));
    }
    causes
}
