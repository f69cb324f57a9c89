//! Every pod runs as a service account and finds that account's token where client libraries look for it.

use serde_json::{Value, json};

use super::json::{array, list, set, text};

/// Where the token, the cluster's root certificate and the namespace are mounted.
pub const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and a little: the odd seconds tell an automatic request from one that asks for an hour.
const TOKEN_SECONDS: i64 = 3607;
const ROOT_CA: &str = "kube-root-ca.crt";

/// Names the account of a pod, `default` unless it names one, and answers the name. `None`: a mirror of a pod that a
/// node runs by itself has no account.
pub fn settle_name(pod: &mut Value) -> Option<String> {
    if pod["metadata"]["annotations"].get(MIRROR_ANNOTATION).is_some() {
        return None;
    }
    let spec = pod.get_mut("spec")?;
    let name = match text(spec, "serviceAccountName") {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    set(spec, "serviceAccountName", name.as_str());
    set(spec, "serviceAccount", name.as_str());
    Some(name)
}

/// Whether the pod wants the token: its own word, else the account's, else yes.
fn wants_token(spec: &Value, account: &Value) -> bool {
    let own = spec["automountServiceAccountToken"].as_bool();
    own.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true)
}

/// Gives the pod its account's pull secrets and token. `suffix` ends the name of the volume.
pub fn apply(pod: &mut Value, account: &Value, suffix: &str) {
    let Some(spec) = pod.get_mut("spec") else { return };
    if list(spec, "imagePullSecrets").is_empty() && !list(account, "imagePullSecrets").is_empty() {
        set(spec, "imagePullSecrets", account["imagePullSecrets"].clone());
    }
    if !wants_token(spec, account) {
        return;
    }
    let known = list(spec, "volumes").iter().map(|volume| text(volume, "name"));
    let known = known.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let volume = known.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    if mount(spec, &volume) && known.is_none() {
        let source = token_volume(&volume);
        array(spec, "volumes").into_iter().for_each(|volumes| volumes.push(source.clone()));
    }
}

/// Mounts the volume in every container that has nothing at its place; whether any needed it.
fn mount(spec: &mut Value, volume: &str) -> bool {
    let mut needed = false;
    for containers in ["initContainers", "containers"] {
        for container in spec.get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            if list(container, "volumeMounts").iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            if let Some(mounts) = array(container, "volumeMounts") {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    needed
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_its_token_once_and_only_if_it_wants_it() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"mountPath": MOUNT_PATH}]}]}});
        assert_eq!(settle_name(&mut pod).as_deref(), Some("default"));
        let account = json!({"imagePullSecrets": [{"name": "s"}]});
        apply(&mut pod, &account, "abcde");
        let once = pod.clone();
        apply(&mut pod, &account, "fghij");
        assert_eq!(pod, once);
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        assert_eq!(list(&pod["spec"]["containers"][1], "volumeMounts").len(), 1);
        assert_eq!(pod["spec"]["imagePullSecrets"], account["imagePullSecrets"]);
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        apply(&mut pod, &json!({"automountServiceAccountToken": false}), "abcde");
        assert!(pod["spec"]["volumes"].is_null());
    }
}
