//! EndpointSlices of a Service: which pods answer on which ports, spread over slices with as few writes as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::plan::{ENDPOINT_SLICES, Op, Plan, difference, to_value};
use crate::pod::PodView;
use crate::topology;
use crate::traffic_distribution::{hints, is_ready, preference};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints of one slice (upstream: --max-endpoints-per-slice).
pub const ENDPOINTS_PER_SLICE_MAX: usize = 100;

/// Endpoints that share their ports and address family: they may share slices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub endpoints: Vec<Endpoint>,
}

/// Address type and ports (as their JSON text) of a group.
pub(crate) type GroupKey = (String, String);

/// What all slices of one owner have in common.
pub(crate) struct SliceTemplate {
    pub namespace: String,
    /// The slices' generateName, without the dash.
    pub prefix: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner: OwnerReference,
    /// The address type of the empty slice kept when there are no endpoints at all.
    pub placeholder: Option<String>,
}

/// The slices due for a Service with a selector; `pods` are those the selector matches, `zone` tells a node's zone, and
/// `shares` what zones there are, for a Service that wants its endpoints spread over them.
pub fn plan(
    service: &Service,
    pods: &[Arc<PodView>],
    slices: &[Arc<EndpointSlice>],
    zone: &dyn Fn(&str) -> Option<String>,
    shares: Option<&topology::Zones>,
) -> Plan {
    let spec = service.spec.clone().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    if service.metadata.deletion_timestamp.is_some() || external || spec.selector.is_none() {
        return Plan::default();
    }
    let near = preference(service).filter(|_| !topology::is_wanted(service));
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    let families = families(&spec.ip_families, &spec.cluster_ip);
    for family in &families {
        for pod in pods.iter().filter(|pod| !pod.is_finished()) {
            let Some(ip) = pod.ips.iter().find(|ip| family_of(ip) == *family) else { continue };
            let ports = endpoint_ports(spec.ports.as_deref().unwrap_or_default(), pod);
            let key = ((*family).to_owned(), to_value(&ports).to_string());
            let mut endpoint = endpoint(service, pod, ip, zone);
            endpoint.hints = hints(near, &endpoint);
            groups.entry(key).or_default().endpoints.push(endpoint);
        }
        if let Some(shares) = shares.filter(|_| topology::is_wanted(service)) {
            let groups = groups.iter_mut().filter(|(key, _)| key.0 == *family);
            let endpoints = groups.flat_map(|(_, group)| &mut group.endpoints);
            topology::hint(&mut endpoints.filter(|endpoint| is_ready(endpoint)).collect::<Vec<_>>(), shares);
        }
    }
    let template = SliceTemplate {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        prefix: service.metadata.name.clone().unwrap_or_default(),
        labels: labels(service),
        annotations: BTreeMap::new(),
        owner: owner(&service.metadata, "v1", "Service"),
        placeholder: Some(families.first().copied().unwrap_or("IPv4").to_owned()),
    };
    spread(&template, groups, slices)
}

pub(crate) fn owner(meta: &ObjectMeta, api_version: &str, kind: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

fn families(stated: &Option<Vec<String>>, cluster_ip: &Option<String>) -> Vec<&'static str> {
    let stated: Vec<&'static str> =
        stated.iter().flatten().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if !stated.is_empty() {
        return stated;
    }
    vec![cluster_ip.as_deref().map_or("IPv4", family_of)]
}

pub(crate) fn family_of(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

/// The port a pod serves a Service port on; a name that the pod does not have gives none.
pub(crate) fn target_port(port: &ServicePort, pod: &PodView) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(wanted)) if wanted.is_empty() => Some(port.port),
        Some(IntOrString::String(wanted)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let named = pod.named_ports.iter().find(|(name, p, _)| name == wanted && p == protocol);
            named.map(|(_, _, number)| *number)
        }
    }
}

fn endpoint_ports(ports: &[ServicePort], pod: &PodView) -> Vec<EndpointPort> {
    let resolved = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    resolved.collect()
}

pub(crate) fn target_ref(pod: &PodView) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

/// The DNS name a pod asks for below a headless Service of its subdomain.
pub(crate) fn hostname(service: &Service, pod: &PodView) -> Option<String> {
    let mine = service.metadata.name.as_deref() == Some(&pod.subdomain) && !pod.hostname.is_empty();
    mine.then(|| pod.hostname.clone())
}

fn endpoint(service: &Service, pod: &PodView, ip: &str, zone: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let terminating = pod.deletion.is_some();
    let node = (!pod.node.is_empty()).then(|| pod.node.clone());
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (pod.ready && !terminating)),
            serving: Some(pod.ready),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone: node.as_deref().and_then(zone),
        node_name: node,
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

/// Who an endpoint is, whatever its conditions.
fn identity(endpoint: &Endpoint) -> (String, Option<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (endpoint.addresses.first().cloned().unwrap_or_default(), uid)
}

/// A slice to be: the existing one that becomes it, if any.
struct Draft {
    known: Option<Arc<EndpointSlice>>,
    key: GroupKey,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Assigns endpoints to slices: those that have a place keep it, others fill slices that change anyway, then new ones.
pub(crate) fn spread(
    template: &SliceTemplate,
    mut groups: BTreeMap<GroupKey, Group>,
    slices: &[Arc<EndpointSlice>],
) -> Plan {
    if groups.is_empty()
        && let Some(family) = &template.placeholder
    {
        groups.insert((family.clone(), "[]".into()), Group::default());
    }
    let mut slices = slices.to_vec();
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut drafts: Vec<Draft> = Vec::new();
    for (key, group) in groups {
        let mut wanted: HashMap<_, Endpoint> = group.endpoints.into_iter().map(|e| (identity(&e), e)).collect();
        let first = drafts.len();
        for slice in slices.iter().filter(|slice| key_of(slice) == key) {
            let known = slice.endpoints.as_deref().unwrap_or_default();
            let kept: Vec<Endpoint> = known.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
            let changed = kept != known;
            drafts.push(Draft { known: Some(slice.clone()), key: key.clone(), endpoints: kept, changed });
        }
        let mut rest: Vec<Endpoint> = wanted.into_values().collect();
        rest.sort_by_cached_key(identity);
        // Slices that are written anyway take first, then the fullest of the others.
        let mut order: Vec<usize> = (first..drafts.len()).collect();
        order.sort_by_key(|index| (!drafts[*index].changed, std::cmp::Reverse(drafts[*index].endpoints.len())));
        for index in order {
            let room = ENDPOINTS_PER_SLICE_MAX.saturating_sub(drafts[index].endpoints.len()).min(rest.len());
            if room > 0 {
                drafts[index].endpoints.extend(rest.drain(..room));
                drafts[index].changed = true;
            }
        }
        while !rest.is_empty() || (drafts.len() == first && template.placeholder.is_some()) {
            let room = ENDPOINTS_PER_SLICE_MAX.min(rest.len());
            let endpoints = rest.drain(..room).collect();
            drafts.push(Draft { known: None, key: key.clone(), endpoints, changed: true });
        }
    }
    write(template, drafts, &slices)
}

fn key_of(slice: &EndpointSlice) -> GroupKey {
    (slice.address_type.clone(), to_value(slice.ports.as_deref().unwrap_or_default()).to_string())
}

/// Turns drafts into writes; existing slices that nobody needs give their object to a draft that has none, or go.
fn write(template: &SliceTemplate, mut drafts: Vec<Draft>, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let full = drafts.iter().filter(|draft| !draft.endpoints.is_empty()).count();
    if full > 0 {
        drafts.retain(|draft| !draft.endpoints.is_empty());
    } else {
        drafts.truncate(usize::from(template.placeholder.is_some()));
    }
    let used = |drafts: &[Draft], slice: &Arc<EndpointSlice>| {
        drafts.iter().any(|draft| draft.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, slice)))
    };
    for slice in slices {
        if used(&drafts, slice) {
            continue;
        }
        // The address type of a slice cannot change.
        let heir = drafts.iter_mut().find(|draft| draft.known.is_none() && draft.key.0 == slice.address_type);
        match heir {
            Some(heir) => heir.known = Some(slice.clone()),
            None => plan.push(Op::Delete {
                resource: ENDPOINT_SLICES,
                namespace: template.namespace.clone(),
                name: slice.metadata.name.clone().unwrap_or_default(),
                uid: slice.metadata.uid.clone(),
                grace: None,
            }),
        }
    }
    for draft in drafts {
        match &draft.known {
            Some(known) => patch(template, &draft, known, &mut plan),
            None => create(template, &draft, &mut plan),
        }
    }
    plan
}

fn ports_of(draft: &Draft) -> Vec<EndpointPort> {
    serde_json::from_str(&draft.key.1).unwrap_or_default()
}

fn create(template: &SliceTemplate, draft: &Draft, plan: &mut Plan) {
    let object = json!({
        "apiVersion": ENDPOINT_SLICES.api_version, "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "generateName": format!("{}-", template.prefix), "namespace": template.namespace,
            "labels": template.labels, "annotations": template.annotations, "ownerReferences": [template.owner],
        },
        "addressType": draft.key.0, "endpoints": draft.endpoints, "ports": ports_of(draft),
    });
    plan.push(Op::Create { resource: ENDPOINT_SLICES, namespace: template.namespace.clone(), object });
}

fn patch(template: &SliceTemplate, draft: &Draft, known: &EndpointSlice, plan: &mut Plan) {
    let mut body = json!({});
    if draft.changed {
        body["endpoints"] = to_value(&draft.endpoints);
    }
    if key_of(known) != draft.key {
        body["ports"] = to_value(&ports_of(draft));
    }
    let meta = &known.metadata;
    let known_labels = meta.labels.clone().unwrap_or_default();
    if let Some(labels) = difference(&known_labels, &template.labels) {
        body["metadata"]["labels"] = labels;
    }
    let known_annotations = meta.annotations.clone().unwrap_or_default();
    if let Some(annotations) = difference(&known_annotations, &template.annotations) {
        body["metadata"]["annotations"] = annotations;
    }
    if body == json!({}) {
        return;
    }
    body["metadata"]["resourceVersion"] = json!(meta.resource_version);
    let name = meta.name.as_deref().unwrap_or_default();
    plan.push(Op::update(ENDPOINT_SLICES, &template.namespace, name, body));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "a", "uid": "s" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] },
        }))
        .unwrap()
    }

    #[test]
    fn near_endpoints_are_hinted_where_the_service_asks_for_them() {
        let hints_of = |wanted: Option<&str>, ready: bool| {
            let mut service = service();
            service.spec.as_mut().unwrap().traffic_distribution = wanted.map(str::to_owned);
            let plan = plan(&service, &[pod(1, 80, ready)], &[], &|node| Some(format!("zone-of-{node}")), None);
            let Op::Create { object, .. } = &plan.steps[0].op else { panic!("{plan:?}") };
            object["endpoints"][0]["hints"].clone()
        };
        let zone = json!({ "forZones": [{ "name": "zone-of-n1" }] });
        assert_eq!(hints_of(None, true), json!(null));
        assert_eq!(hints_of(Some("PreferClose"), true), zone);
        assert_eq!(hints_of(Some("PreferSameZone"), true), zone);
        assert_eq!(hints_of(Some("PreferSameZone"), false), json!(null));
        let node = json!({ "forZones": [{ "name": "zone-of-n1" }], "forNodes": [{ "name": "n1" }] });
        assert_eq!(hints_of(Some("PreferSameNode"), true), node);
    }

    fn pod(number: usize, port: i32, ready: bool) -> Arc<PodView> {
        Arc::new(PodView {
            namespace: "a".into(),
            name: format!("p{number}"),
            uid: format!("u{number}"),
            ips: vec![format!("10.0.{}.{}", number / 250, number % 250)],
            ready,
            phase: "Running",
            node: "n1".into(),
            named_ports: vec![("web".into(), "TCP".into(), port)],
            ..PodView::default()
        })
    }

    /// Applies creates, patches and deletes to a set of slices.
    fn apply(plan: &Plan, slices: &mut Vec<Arc<EndpointSlice>>, next: &mut usize) {
        for step in &plan.steps {
            match &step.op {
                Op::Create { object, .. } => {
                    let mut object = object.clone();
                    *next += 1;
                    object["metadata"]["name"] = json!(format!("web-{next}"));
                    object["metadata"]["uid"] = json!(format!("slice-{next}"));
                    slices.push(Arc::new(serde_json::from_value(object).unwrap()));
                }
                Op::Delete { name, .. } => slices.retain(|slice| slice.metadata.name.as_ref() != Some(name)),
                Op::Patch { name, body, .. } => {
                    let slice = slices.iter_mut().find(|slice| slice.metadata.name.as_ref() == Some(name)).unwrap();
                    let mut object = to_value(&**slice);
                    for field in ["endpoints", "ports"] {
                        if !body[field].is_null() {
                            object[field] = body[field].clone();
                        }
                    }
                    *slice = Arc::new(serde_json::from_value(object).unwrap());
                }
            }
        }
    }

    #[test]
    fn slices_follow_pods_with_few_writes_and_settle() {
        let (mut slices, mut next, service) = (Vec::new(), 0, service());
        let zone = |_: &str| Some("z".to_owned());
        let mut check = |pods: &[Arc<PodView>], expected: &[usize], writes: usize| {
            let wanted = plan(&service, pods, &slices, &zone, None);
            assert_eq!(wanted.steps.len(), writes, "{wanted:#?}");
            apply(&wanted, &mut slices, &mut next);
            let mut sizes: Vec<usize> = slices.iter().map(|s| s.endpoints.iter().flatten().count()).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, expected);
            assert!(plan(&service, pods, &slices, &zone, None).is_empty(), "a second run must change nothing");
        };
        check(&[], &[0], 1);
        let mut pods: Vec<_> = (0..150).map(|number| pod(number, 8080, true)).collect();
        check(&pods, &[50, 100], 2);
        // One pod less: one slice changes, and the newcomer goes into that same slice.
        pods.remove(3);
        pods.push(pod(200, 8080, true));
        check(&pods, &[50, 100], 1);
        // A pod with another number for the named port needs its own slice.
        pods.push(pod(201, 9090, false));
        check(&pods, &[1, 50, 100], 1);
        check(&[], &[0], 3);
    }

    #[test]
    fn conditions_follow_readiness_termination_and_publishing() {
        let condition = |service: &Service, pod: &PodView| {
            let conditions = endpoint(service, pod, "10.0.0.1", &|_| None).conditions.unwrap();
            [conditions.ready, conditions.serving, conditions.terminating].map(|value| value.unwrap_or(false))
        };
        let (plain, mut publishing) = (service(), service());
        publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let mut view = (*pod(1, 80, true)).clone();
        assert_eq!(condition(&plain, &view), [true, true, false]);
        view.deletion = Some(jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(condition(&plain, &view), [false, true, true]);
        view.ready = false;
        assert_eq!(condition(&plain, &view), [false, false, true]);
        assert_eq!(condition(&publishing, &view), [true, false, true]);
    }
}
