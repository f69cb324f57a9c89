//! `tug why`: what stands in the way of an object, and the nearest change that would help.

mod caller;
mod certificate;
mod claims;
mod gather;
mod reader;
mod room;
mod traffic;

use anyhow::{Result, bail};
use explain::Report;

use crate::connect::Target;
use reader::Reader;

/// Ends with code 0 when it could answer, also when nothing stands in the way; `-o json` has an empty list of causes then.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// `NAME`, `KIND NAME` or `KIND/NAME`; a name alone is a pod's, else that of another kind.
    #[arg(required = true, num_args = 1..=2, value_name = "KIND NAME")]
    object: Vec<String>,
    /// Namespace of the object; the kubeconfig's where not given.
    #[arg(short, long)]
    namespace: Option<String>,
    /// For a Service: also whether network policies let this pod reach it.
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    from: Option<String>,
    /// `json` for programs.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// A kind that can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub plural: &'static str,
    short: &'static str,
    /// The path of its group and version.
    pub api: &'static str,
    pub namespaced: bool,
}

impl Kind {
    /// Whether it makes pods from a template.
    pub fn is_workload(&self) -> bool {
        self.api.starts_with("/apis/apps/") || self.api.starts_with("/apis/batch/") || *self == REPLICATION_CONTROLLER
    }
}

const fn kind(
    name: &'static str,
    plural: &'static str,
    short: &'static str,
    api: &'static str,
    namespaced: bool,
) -> Kind {
    Kind { name, plural, short, api, namespaced }
}

pub const POD: Kind = kind("Pod", "pods", "po", "/api/v1", true);
pub const NODE: Kind = kind("Node", "nodes", "no", "/api/v1", false);
pub const NAMESPACE: Kind = kind("Namespace", "namespaces", "ns", "/api/v1", false);
pub const REPLICA_SET: Kind = kind("ReplicaSet", "replicasets", "rs", "/apis/apps/v1", true);
const REPLICATION_CONTROLLER: Kind = kind("ReplicationController", "replicationcontrollers", "rc", "/api/v1", true);
pub const CLAIM: Kind = kind("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "/api/v1", true);
pub const SERVICE: Kind = kind("Service", "services", "svc", "/api/v1", true);
pub const INGRESS: Kind = kind("Ingress", "ingresses", "ing", "/apis/networking.k8s.io/v1", true);

/// In the order in which a name without a kind is looked for.
pub const KINDS: &[Kind] = &[
    POD,
    kind("Deployment", "deployments", "deploy", "/apis/apps/v1", true),
    kind("StatefulSet", "statefulsets", "sts", "/apis/apps/v1", true),
    kind("DaemonSet", "daemonsets", "ds", "/apis/apps/v1", true),
    kind("Job", "jobs", "job", "/apis/batch/v1", true),
    REPLICA_SET,
    REPLICATION_CONTROLLER,
    SERVICE,
    INGRESS,
    CLAIM,
    NODE,
    NAMESPACE,
];

pub fn run(options: &Options) -> Result<()> {
    let (kind, name) = wanted(&options.object)?;
    if options.from.is_some() && kind != Some(SERVICE) {
        return wrong("--from tells of the way to a Service: tug why service NAME --from POD".to_owned());
    }
    let report = super::block_on(async {
        let client = options.target.client().await?;
        let namespace = options.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        answer(&Reader::new(client), kind, name, &namespace, options.from.as_deref()).await
    })?;
    if options.output == "json" {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Kind and name by the words of the command line.
fn wanted(words: &[String]) -> Result<(Option<Kind>, &str)> {
    let (kind, name) = match words {
        [one] => match one.split_once('/') {
            Some((kind, name)) => (kind, name),
            None => return Ok((None, one)),
        },
        [kind, name] => (kind.as_str(), name.as_str()),
        _ => return wrong("name one object: tug why KIND NAME".to_owned()),
    };
    let word = kind.to_lowercase();
    // `deployments.apps` and `deployments.v1.apps` as kubectl takes them.
    let word = word.split('.').next().unwrap_or(&word);
    let is = |kind: &&Kind| word == kind.plural || word == kind.short || word == kind.name.to_lowercase();
    match KINDS.iter().find(is) {
        Some(kind) if !name.is_empty() => Ok((Some(*kind), name)),
        Some(_) => wrong(format!("which {kind}? name it: tug why {kind} NAME")),
        None => {
            let known: Vec<String> = KINDS.iter().map(|kind| kind.name.to_lowercase()).collect();
            wrong(format!("tug why knows nothing of {kind:?}; it can tell of {}", known.join(", ")))
        }
    }
}

fn wrong<T>(what: String) -> Result<T> {
    Err(super::WrongUsage(what).into())
}

async fn answer(
    reader: &Reader,
    kind: Option<Kind>,
    name: &str,
    namespace: &str,
    from: Option<&str>,
) -> Result<Report> {
    let kinds = kind.as_ref().map_or(KINDS, std::slice::from_ref);
    for kind in kinds {
        if let Some(object) = reader.object(*kind, namespace, name).await? {
            return gather::report(reader, *kind, &object, from).await;
        }
    }
    let word = kind.map_or("pod or anything else".to_owned(), |kind| kind.name.to_lowercase());
    let place = match kind {
        Some(kind) if !kind.namespaced => String::new(),
        _ => format!(" in namespace {namespace:?}; another one is named with -n"),
    };
    bail!("there is no {word} called {name:?}{place}")
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn kinds_are_named_as_kubectl_takes_them() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            match wanted(&words) {
                Ok((kind, name)) => format!("{} {name}", kind.map_or("?", |kind| kind.name)),
                Err(error) => error.to_string().split(';').next().unwrap_or_default().to_owned(),
            }
        };
        assert_eq!(of(&["web"]), "? web");
        assert_eq!(of(&["pod/web"]), "Pod web");
        assert_eq!(of(&["po", "web"]), "Pod web");
        assert_eq!(of(&["deployments.apps", "web"]), "Deployment web");
        assert_eq!(of(&["Job/a"]), "Job a");
        assert_eq!(of(&["ns", "a"]), "Namespace a");
        assert_eq!(of(&["secret", "a"]), "tug why knows nothing of \"secret\"");
        assert_eq!(of(&["pod/"]), "which pod? name it: tug why pod NAME");
    }
}
