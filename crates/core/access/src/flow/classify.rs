//! FlowSchemas and PriorityLevelConfigurations as they judge a request, read once from their objects.

use std::hash::{Hash, Hasher};

use serde_json::Value;

use crate::User;
use crate::attributes::SERVICE_ACCOUNT_PREFIX;

/// A request as flow control sees it.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a User,
    pub is_resource: bool,
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub path: &'a str,
}

#[derive(Clone, Debug)]
enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

#[derive(Clone, Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Clone, Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

/// What tells the flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// Which requests go to a priority level.
#[derive(Clone, Debug)]
pub struct FlowSchema {
    pub name: String,
    pub uid: String,
    /// The name of its priority level.
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn each<T>(list: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array().into_iter().flatten().map(read).collect()
}

fn subject(value: &Value) -> Option<Subject> {
    match value["kind"].as_str()? {
        "User" => Some(Subject::User(text(&value["user"]["name"]))),
        "Group" => Some(Subject::Group(text(&value["group"]["name"]))),
        "ServiceAccount" => {
            let account = &value["serviceAccount"];
            Some(Subject::ServiceAccount { namespace: text(&account["namespace"]), name: text(&account["name"]) })
        }
        _ => None,
    }
}

impl FlowSchema {
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let rule = |rule: &Value| Rule {
            subjects: rule["subjects"].as_array().into_iter().flatten().filter_map(subject).collect(),
            resources: each(&rule["resourceRules"], |rule| ResourceRule {
                verbs: texts(&rule["verbs"]),
                groups: texts(&rule["apiGroups"]),
                resources: texts(&rule["resources"]),
                namespaces: texts(&rule["namespaces"]),
                cluster_scope: rule["clusterScope"] == true,
            }),
            paths: each(&rule["nonResourceRules"], |rule| PathRule {
                verbs: texts(&rule["verbs"]),
                paths: texts(&rule["nonResourceURLs"]),
            }),
        };
        Self {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or_default(),
            distinguisher: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: each(&spec["rules"], rule),
        }
    }

    /// Schemas are asked in this order: the lowest precedence first, then by name.
    pub fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub fn matches(&self, request: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(request))
    }

    /// A number that is the same for all requests of one flow.
    pub fn flow(&self, request: &Digest<'_>) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.distinguisher {
            Distinguisher::Nothing => {}
            Distinguisher::User => request.user.name.hash(&mut hasher),
            Distinguisher::Namespace => request.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Whether a list holds a text, or nothing but the word for all.
fn holds(list: &[String], wanted: &str) -> bool {
    matches!(list, [only] if only == "*") || list.iter().any(|one| one == wanted)
}

impl Rule {
    fn matches(&self, request: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(request.user)) {
            return false;
        }
        match request.is_resource {
            true => self.resources.iter().any(|rule| rule.matches(request)),
            false => self.paths.iter().any(|rule| holds(&rule.verbs, request.verb) && rule.has_path(request.path)),
        }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::ServiceAccount { namespace, name } => {
                let account = user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(of, own)| of == namespace && (name == "*" || own == name))
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, request: &Digest<'_>) -> bool {
        let has_resource = match request.subresource {
            "" => holds(&self.resources, request.resource),
            subresource => holds(&self.resources, &format!("{}/{subresource}", request.resource)),
        };
        let has_place = match request.namespace {
            "" => self.cluster_scope,
            namespace => holds(&self.namespaces, namespace),
        };
        has_resource && has_place && holds(&self.verbs, request.verb) && holds(&self.groups, request.group)
    }
}

impl PathRule {
    fn has_path(&self, path: &str) -> bool {
        self.paths.iter().any(|own| {
            let directory = own.trim_end_matches('*').trim_end_matches('/');
            own == "*" || own == path || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// How many requests of a level run and wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityLevel {
    pub name: String,
    pub uid: String,
    /// Neither limited nor queued.
    pub exempt: bool,
    shares: u32,
    lendable_percent: u32,
    borrowing_percent: Option<u32>,
    pub queues: usize,
    pub hand: usize,
    pub queue_max: usize,
}

/// What a level gets of the requests that the server runs at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its own seats.
    pub nominal: usize,
    /// Those of them that others may have while it does not need them.
    pub lendable: usize,
    /// Seats of others that it may have.
    pub borrowable: usize,
}

impl PriorityLevel {
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let exempt = spec["type"] == "Exempt";
        let part = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let number = |value: &Value, otherwise: u32| {
            value.as_u64().map_or(otherwise, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let queuing = &part["limitResponse"]["queuing"];
        let is_queued = part["limitResponse"]["type"] == "Queue";
        let queued = |field: &str, otherwise: u32| {
            if is_queued { number(&queuing[field], otherwise) as usize } else { 0 }
        };
        Self {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            exempt,
            shares: number(&part["nominalConcurrencyShares"], if exempt { 0 } else { 30 }),
            lendable_percent: number(&part["lendablePercent"], 0).min(100),
            borrowing_percent: part["borrowingLimitPercent"].as_u64().map(|percent| percent as u32),
            queues: queued("queues", 64).min(QUEUES_MAX),
            hand: queued("handSize", 8),
            queue_max: queued("queueLengthLimit", 50).min(QUEUE_LENGTH_MAX),
        }
    }
}

/// Queues of one level, whatever its object says.
const QUEUES_MAX: usize = 10_000;
/// Requests that wait in one queue, whatever the object of its level says.
const QUEUE_LENGTH_MAX: usize = 10_000;

/// Divides the server's seats among levels by their shares.
pub fn shares<'a>(levels: impl IntoIterator<Item = &'a PriorityLevel> + Clone, seats: usize) -> Vec<Share> {
    let sum: u64 = levels.clone().into_iter().map(|level| u64::from(level.shares)).sum();
    let percent = |of: usize, percent: u32| of * percent as usize / 100;
    let share = |level: &PriorityLevel| {
        let nominal = (seats as u64 * u64::from(level.shares)).div_ceil(sum.max(1)) as usize;
        Share {
            nominal,
            lendable: percent(nominal, level.lendable_percent),
            borrowable: level.borrowing_percent.map_or(seats, |limit| percent(nominal, limit)),
        }
    };
    levels.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::defaults;

    fn schemas() -> Vec<FlowSchema> {
        let objects = defaults::objects();
        let schemas = objects.iter().filter(|object| object["kind"] == "FlowSchema");
        let mut schemas: Vec<FlowSchema> = schemas.map(FlowSchema::read).collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        schemas
    }

    fn check(user: &str, groups: &[&str], request: &str) -> String {
        let groups = groups.iter().map(|group| format!("system:{group}")).collect();
        let user = User { name: user.into(), groups, ..User::default() };
        let [verb, group, resource, subresource, namespace] = request.split(' ').collect::<Vec<_>>()[..] else {
            let (verb, path) = request.split_once(' ').unwrap();
            let digest = Digest {
                user: &user,
                is_resource: false,
                verb,
                path,
                group: "",
                resource: "",
                subresource: "",
                namespace: "",
            };
            return schemas().into_iter().find(|schema| schema.matches(&digest)).unwrap().name;
        };
        let digest =
            Digest { user: &user, is_resource: true, verb, group, resource, subresource, namespace, path: "/api" };
        schemas().into_iter().find(|schema| schema.matches(&digest)).unwrap().name
    }

    #[test]
    fn requests_find_the_schema_that_upstream_finds() {
        let node: &[&str] = &["nodes", "authenticated"];
        let account: &[&str] = &["serviceaccounts", "authenticated"];
        assert_eq!(check("a", &["masters", "authenticated"], "get  pods  x"), "exempt");
        assert_eq!(check("a", &["authenticated"], "get  pods  x"), "global-default");
        assert_eq!(check("system:anonymous", &["unauthenticated"], "get /healthz"), "probes");
        assert_eq!(check("system:anonymous", &["unauthenticated"], "get /healthz/etcd"), "probes");
        assert_eq!(check("system:anonymous", &["unauthenticated"], "get /healthzz"), "global-default");
        assert_eq!(check("system:node:a", node, "update coordination.k8s.io leases  x"), "system-node-high");
        assert_eq!(check("system:node:a", node, "patch  nodes status "), "system-node-high");
        assert_eq!(check("system:node:a", node, "patch  pods status x"), "system-nodes");
        let controller = "system:serviceaccount:kube-system:job-controller";
        assert_eq!(check(controller, account, "list batch jobs  "), "kube-system-service-accounts");
        assert_eq!(check(controller, account, "update coordination.k8s.io leases  x"), "system-leader-election");
        assert_eq!(check("system:serviceaccount:x:kube-system", account, "list batch jobs  "), "service-accounts");
        assert_eq!(check("system:kube-scheduler", &["authenticated"], "create  pods binding x"), "kube-scheduler");
    }

    #[test]
    fn seats_are_divided_by_shares() {
        let objects = defaults::objects();
        let levels = objects.iter().filter(|object| object["kind"] != "FlowSchema").map(PriorityLevel::read);
        let levels: Vec<PriorityLevel> = levels.collect();
        let shares = shares(&levels, 600);
        let of = |name: &str| shares[levels.iter().position(|level| level.name == name).unwrap()];
        assert_eq!(of("exempt").nominal, 0);
        assert_eq!((of("workload-low").nominal, of("workload-low").lendable), (245, 220));
        assert_eq!((of("system").nominal, of("catch-all").nominal), (74, 13));
    }
}
