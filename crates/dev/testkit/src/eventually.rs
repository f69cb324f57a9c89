//! Waiting for what will be: asked again until it is, with a deadline.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, WatchEvent, WatchParams};

const WAIT_MAX: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Asks until there is an answer. For what no watch tells; `what` names it should it never come.
///
/// # Panics
/// No answer in half a minute.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Follows a pod by a watch until `wanted` has an answer.
///
/// # Panics
/// No answer in half a minute, or the watch ends.
pub async fn until_pod<T>(pods: &Api<Pod>, name: &str, wanted: impl Fn(&Pod) -> Option<T>) -> T {
    let wait = async {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut watch = pods.watch(&params, "0").await.unwrap().boxed();
        while let Some(event) = watch.try_next().await.unwrap() {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && let Some(answer) = wanted(&pod)
            {
                return answer;
            }
        }
        panic!("the watch of {name} ended");
    };
    tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or_else(|_| panic!("{name} did not get there in time"))
}
