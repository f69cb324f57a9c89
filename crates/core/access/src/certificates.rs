//! What becomes of a certificate request: who is approved without a human, what signers accept, when requests go.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Signers that this cluster's controllers serve.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Decided requests are kept this long, for those who look; open ones longer.
pub const DECIDED_SECONDS_MAX: i64 = 3600;
pub const PENDING_SECONDS_MAX: i64 = 24 * 3600;
/// No signed certificate lives shorter (clocks differ) or longer than this.
pub const LIFE_SECONDS_MIN: i64 = 600;
pub const LIFE_SECONDS_MAX: i64 = 365 * 24 * 3600;

const NODE_USER: &str = crate::node::USER_PREFIX;
const NODE_GROUP: &str = crate::node::GROUP;

/// Names inside a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
}

/// A request as the controllers see it. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub signer: String,
    pub usages: Vec<String>,
    /// Who asked.
    pub username: String,
    pub subject: Subject,
    pub created: i64,
    pub approved: bool,
    pub denied: bool,
    pub failed: bool,
    pub issued: bool,
    /// When a condition was last set, for the decided.
    pub decided: Option<i64>,
    /// The end of the certificate's life, for the issued.
    pub expires: Option<i64>,
}

/// What the asker must be allowed to do, as a subresource of `certificatesigningrequests` (verb `create`), for an
/// approval without a human, and what the approval then says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    pub subresource: &'static str,
    pub message: &'static str,
}

/// What to do with a request now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Approve if the asker has the right; look again later otherwise.
    ApproveIfPermitted(Approval),
    /// Approve if the addresses are the node's own (see [`addresses_are_the_nodes`]).
    ApproveIfOwnAddresses,
    Sign,
    /// The signer's rules are broken: never to be signed, for this reason.
    Fail(String),
    Delete,
    /// Nothing until this many seconds have passed, when the request is to be deleted.
    Keep(i64),
}

/// Decides about a request at `now`.
pub fn plan(request: &Request, now: i64) -> Plan {
    let decided = request.denied || request.failed || request.issued;
    let gone_at = match (decided, request.decided) {
        (true, Some(at)) => at + DECIDED_SECONDS_MAX,
        _ => request.created + PENDING_SECONDS_MAX,
    };
    let gone_at = request.expires.map_or(gone_at, |expires| gone_at.min(expires));
    if gone_at <= now {
        return Plan::Delete;
    }
    let keep = Plan::Keep(gone_at - now);
    if decided {
        return keep;
    }
    if request.approved {
        return match signer_rules(&request.signer, &request.usages, &request.subject) {
            None => keep,
            Some(Ok(())) => Plan::Sign,
            Some(Err(why)) => Plan::Fail(why),
        };
    }
    if signer_rules(&request.signer, &request.usages, &request.subject) != Some(Ok(())) {
        return keep;
    }
    let own = request.username == request.subject.common_name;
    match request.signer.as_str() {
        KUBELET_CLIENT if own => Plan::ApproveIfPermitted(Approval {
            subresource: "selfnodeclient",
            message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        }),
        KUBELET_CLIENT => Plan::ApproveIfPermitted(Approval {
            subresource: "nodeclient",
            message: "Auto approving kubelet client certificate after SubjectAccessReview.",
        }),
        KUBELET_SERVING if own => Plan::ApproveIfOwnAddresses,
        _ => keep,
    }
}

/// The life of a certificate in seconds: what was asked for, within limits.
pub fn life_seconds(asked: Option<i64>) -> i64 {
    asked.map_or(LIFE_SECONDS_MAX, |seconds| seconds.clamp(LIFE_SECONDS_MIN, LIFE_SECONDS_MAX))
}

/// Whether a request keeps a signer's rules; None for signers of others.
pub fn signer_rules(signer: &str, usages: &[String], subject: &Subject) -> Option<Result<(), String>> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    match signer {
        CLIENT => Some(client_rules(&usages)),
        KUBELET_CLIENT => Some(kubelet_client_rules(&usages, subject)),
        KUBELET_SERVING => Some(kubelet_serving_rules(&usages, subject)),
        _ => None,
    }
}

fn client_rules(usages: &BTreeSet<&str>) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !known.contains(*usage)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.contains("client auth") {
        return Err("missing required usage for client certificate: client auth".to_owned());
    }
    Ok(())
}

/// Keys that are not RSA encipher nothing, so that usage may be left out.
fn exact_usages(usages: &BTreeSet<&str>, purpose: &'static str) -> Result<(), String> {
    let mut required = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let listed = required.iter().copied().collect::<Vec<_>>().join(" ");
    if *usages == required {
        return Ok(());
    }
    required.remove("key encipherment");
    if *usages == required { Ok(()) } else { Err(format!("usages did not match [{listed}]")) }
}

fn refuse_if(broken: bool, why: &str) -> Result<(), String> {
    if broken { Err(why.to_owned()) } else { Ok(()) }
}

fn kubelet_client_rules(usages: &BTreeSet<&str>, subject: &Subject) -> Result<(), String> {
    refuse_if(subject.organizations != [NODE_GROUP], "subject organization is not system:nodes")?;
    refuse_if(!subject.dns_names.is_empty(), "DNS subjectAltNames are not allowed")?;
    refuse_if(!subject.email_addresses.is_empty(), "Email subjectAltNames are not allowed")?;
    refuse_if(!subject.ips.is_empty(), "IP subjectAltNames are not allowed")?;
    refuse_if(!subject.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    let is_node = subject.common_name.starts_with(NODE_USER);
    refuse_if(!is_node, "subject common name does not begin with system:node:")?;
    exact_usages(usages, "client auth")
}

fn kubelet_serving_rules(usages: &BTreeSet<&str>, subject: &Subject) -> Result<(), String> {
    refuse_if(subject.organizations != [NODE_GROUP], "subject organization is not system:nodes")?;
    let nameless = subject.dns_names.is_empty() && subject.ips.is_empty();
    refuse_if(nameless, "DNS or IP subjectAltName is required")?;
    refuse_if(!subject.email_addresses.is_empty(), "Email subjectAltNames are not allowed")?;
    refuse_if(!subject.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    exact_usages(usages, "server auth")?;
    let is_node = subject.common_name.starts_with(NODE_USER);
    refuse_if(!is_node, "subject common name does not begin with system:node:")
}

/// Whether a serving certificate names nothing but the node itself; `addresses` are those of its Node's status.
pub fn addresses_are_the_nodes(subject: &Subject, addresses: &[String]) -> bool {
    let Some(node) = subject.common_name.strip_prefix(NODE_USER) else { return false };
    let known_ip = |ip: &IpAddr| addresses.iter().any(|address| address.parse() == Ok(*ip));
    let known_name = |name: &String| name == node || addresses.contains(name);
    subject.ips.iter().all(known_ip) && subject.dns_names.iter().all(known_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubelet(signer: &str, username: &str) -> Request {
        let purpose = if signer == KUBELET_SERVING { "server auth" } else { "client auth" };
        Request {
            signer: signer.to_owned(),
            usages: ["digital signature", purpose].map(str::to_owned).into(),
            username: username.to_owned(),
            subject: Subject {
                common_name: "system:node:a".to_owned(),
                organizations: vec![NODE_GROUP.to_owned()],
                ips: if signer == KUBELET_SERVING { vec![IpAddr::from([10, 0, 0, 1])] } else { Vec::new() },
                ..Subject::default()
            },
            created: 1000,
            ..Request::default()
        }
    }

    #[test]
    fn a_request_goes_from_open_to_signed_to_gone() {
        let mut request = kubelet(KUBELET_CLIENT, "system:bootstrap:abcdef");
        let subresource = |request: &Request| match plan(request, 1001) {
            Plan::ApproveIfPermitted(approval) => approval.subresource,
            other => panic!("{other:?}"),
        };
        assert_eq!(subresource(&request), "nodeclient");
        assert_eq!(subresource(&kubelet(KUBELET_CLIENT, "system:node:a")), "selfnodeclient");
        request.approved = true;
        assert_eq!(plan(&request, 1001), Plan::Sign);
        (request.issued, request.decided) = (true, Some(1002));
        assert_eq!(plan(&request, 1003), Plan::Keep(3599));
        assert_eq!(plan(&request, 1002 + 3600), Plan::Delete);
        assert_eq!(plan(&kubelet(CLIENT, "ann"), 1000 + 24 * 3600), Plan::Delete);
    }

    #[test]
    fn only_kubelets_are_approved_and_only_by_the_rules() {
        assert_eq!(plan(&kubelet(KUBELET_SERVING, "system:node:a"), 1001), Plan::ApproveIfOwnAddresses);
        for open in [kubelet(KUBELET_SERVING, "system:node:b"), kubelet(CLIENT, "ann"), kubelet("example.com/x", "ann")]
        {
            assert!(matches!(plan(&open, 1001), Plan::Keep(_)), "{open:?}");
        }
        let broken = |change: fn(&mut Request)| {
            let mut request = kubelet(KUBELET_CLIENT, "system:node:a");
            change(&mut request);
            assert!(matches!(plan(&request, 1001), Plan::Keep(_)), "never approved by itself: {request:?}");
            request.approved = true;
            plan(&request, 1001)
        };
        let fail = |why: &str| Plan::Fail(why.to_owned());
        assert_eq!(
            broken(|r| r.subject.organizations.push("system:masters".to_owned())),
            fail("subject organization is not system:nodes")
        );
        assert_eq!(
            broken(|r| r.usages.push("server auth".to_owned())),
            fail("usages did not match [client auth digital signature key encipherment]")
        );
        assert_eq!(broken(|r| r.subject.dns_names.push("x".to_owned())), fail("DNS subjectAltNames are not allowed"));
        assert_eq!(
            broken(|r| r.subject.common_name = "root".to_owned()),
            fail("subject common name does not begin with system:node:")
        );
    }

    #[test]
    fn a_node_serves_only_its_own_addresses() {
        let mut subject = kubelet(KUBELET_SERVING, "").subject;
        let addresses = ["10.0.0.1", "host-a"].map(str::to_owned);
        subject.dns_names = vec!["a".to_owned(), "host-a".to_owned()];
        assert!(addresses_are_the_nodes(&subject, &addresses));
        subject.dns_names.push("kubernetes.default".to_owned());
        assert!(!addresses_are_the_nodes(&subject, &addresses));
        subject.dns_names.clear();
        subject.ips.push(IpAddr::from([10, 0, 0, 2]));
        assert!(!addresses_are_the_nodes(&subject, &addresses));
    }

    #[test]
    fn lives_are_within_limits() {
        assert_eq!([None, Some(1), Some(7200), Some(i64::MAX)].map(life_seconds), [31_536_000, 600, 7200, 31_536_000]);
    }
}
