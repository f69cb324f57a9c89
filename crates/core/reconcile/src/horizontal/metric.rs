//! One metric of an autoscaler: the replicas it asks for, its status, and upstream's words when it cannot be had.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::quantity::{Format, Quantity};

use super::demand::{Demand, Goal, Tolerance, of_pods, of_share, of_whole};
use super::pods::milli;
use super::sources::{self, Answer};

/// What the replicas of a metric are worked out from.
pub(super) struct Facts<'a> {
    pub namespace: &'a str,
    /// As the target's spec and its status have them.
    pub replicas: (i32, i32),
    pub pods: &'a [Pod],
    pub tolerance: Tolerance,
    pub now: Timestamp,
}

pub(super) struct Proposal {
    pub replicas: i32,
    /// The metric, as rescale events name it.
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric proposes nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: &'static str,
    /// In the metric's own event and in the condition.
    pub why: String,
    /// In the summary over all metrics.
    pub summary: String,
}

/// Joins the parts that a failure's messages are nested from.
fn failure(reason: &'static str, what: &str, why: String) -> Failure {
    Failure { reason, summary: format!("{what}: {why}"), why }
}

const NO_TARGET: &str = "neither a value target nor an average value target was set";

pub(super) fn propose(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    match spec.type_.as_str() {
        "Resource" => of_resource(spec, answer, facts),
        "ContainerResource" => of_container_resource(spec, answer, facts),
        "Pods" => of_pods_metric(spec, answer, facts),
        "Object" => of_object(spec, answer, facts),
        "External" => of_external(spec, answer, facts),
        other => {
            let why = format!("unknown metric source type {other:?}");
            Err(Failure { reason: "InvalidMetricSourceType", summary: why.clone(), why })
        }
    }
}

fn quantity(milli: i64, format: Format) -> QuantityText {
    QuantityText(Quantity::from_milli(milli, format).to_string())
}

fn value(milli: i64) -> MetricValueStatus {
    MetricValueStatus { value: Some(quantity(milli, Format::DecimalSi)), ..Default::default() }
}

fn average(milli: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(quantity(milli, Format::DecimalSi)), ..Default::default() }
}

fn identifier(metric: &MetricIdentifier) -> MetricIdentifier {
    metric.clone()
}

/// A resource against a share of what is requested, or against an amount.
fn resource_demand(
    resource: &str,
    container: Option<&str>,
    target: &MetricTarget,
    answer: &Answer,
    facts: &Facts<'_>,
) -> Result<(Demand, MetricValueStatus), String> {
    let goal = match (&target.average_value, target.average_utilization) {
        (Some(amount), _) => Goal::Average(milli(amount)),
        (None, Some(percent)) => Goal::Utilization { percent, resource, container },
        (None, None) => {
            return Err("invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                .to_owned());
        }
    };
    let kind = if target.average_value.is_some() { "usage" } else { "utilization" };
    let samples = sources::of_resource(answer, resource, container)
        .map_err(|why| format!("unable to get metrics for resource {resource}: {why}"));
    let cpu = resource == "cpu";
    let demand = samples
        .and_then(|samples| of_pods(facts.replicas.0, facts.pods, &samples, (goal, cpu), facts.tolerance, facts.now))
        .map_err(|why| format!("failed to get {resource} {kind}: {why}"))?;
    let format = if resource == "memory" { Format::BinarySi } else { Format::DecimalSi };
    let status = MetricValueStatus {
        average_utilization: demand.percent,
        average_value: Some(quantity(demand.figure, format)),
        value: None,
    };
    Ok((demand, status))
}

fn of_resource(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    let source = spec.resource.clone().unwrap_or_default();
    let fail =
        |why| failure("FailedGetResourceMetric", &format!("failed to get {} resource metric value", source.name), why);
    let (demand, current) = resource_demand(&source.name, None, &source.target, answer, facts).map_err(fail)?;
    let name = match demand.percent {
        Some(_) => format!("{} resource utilization (percentage of request)", source.name),
        None => format!("{} resource", source.name),
    };
    let resource = Some(ResourceMetricStatus { current, name: source.name });
    let status = MetricStatus { type_: spec.type_.clone(), resource, ..Default::default() };
    Ok(Proposal { replicas: demand.replicas, name, status })
}

fn of_container_resource(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    let source = spec.container_resource.clone().unwrap_or_default();
    let fail = |why| {
        let what = format!("failed to get {} container metric value", source.container);
        failure("FailedGetContainerResourceMetric", &what, why)
    };
    let container = Some(source.container.as_str());
    let (demand, current) = resource_demand(&source.name, container, &source.target, answer, facts).map_err(fail)?;
    let name = match demand.percent {
        Some(_) => format!("{} container resource utilization (percentage of request)", source.name),
        None => format!("{} resource", source.name),
    };
    let container_resource =
        Some(ContainerResourceMetricStatus { current, name: source.name, container: source.container });
    let status = MetricStatus { type_: spec.type_.clone(), container_resource, ..Default::default() };
    Ok(Proposal { replicas: demand.replicas, name, status })
}

fn of_pods_metric(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    let source = spec.pods.clone().unwrap_or_default();
    let goal = || Goal::Average(source.target.average_value.as_ref().map_or(0, milli));
    let demand = sources::of_pods(answer)
        .map_err(|why| format!("unable to get metric {}: {why}", source.metric.name))
        .and_then(|samples| {
            of_pods(facts.replicas.0, facts.pods, &samples, (goal(), false), facts.tolerance, facts.now)
        })
        .map_err(|why| failure("FailedGetPodsMetric", "failed to get pods metric value", why))?;
    let pods = Some(PodsMetricStatus { current: average(demand.figure), metric: identifier(&source.metric) });
    let status = MetricStatus { type_: spec.type_.clone(), pods, ..Default::default() };
    Ok(Proposal { replicas: demand.replicas, name: format!("pods metric {}", source.metric.name), status })
}

fn of_object(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    let source = spec.object.clone().unwrap_or_default();
    let (object, metric, target) = (&source.described_object, &source.metric, &source.target);
    let summary = "failed to get object metric value";
    let fail = |what: &str, why| failure("FailedGetObjectMetric", what, why);
    let figure = sources::of_object(answer).map_err(|why| {
        let (kind, namespace, name) = (&object.kind, facts.namespace, &object.name);
        format!("unable to get metric {}: {why} on {kind} {namespace}/{name}", metric.name)
    });
    let (demand, current, name) = match (target.type_.as_str(), &target.value, &target.average_value) {
        ("Value", Some(wanted), _) => {
            let demand = figure
                .and_then(|figure| of_whole(facts.replicas.0, figure, milli(wanted), facts.tolerance, facts.pods))
                .map_err(|why| fail(summary, why))?;
            let current = value(demand.figure);
            (demand, current, format!("{} metric {}", object.kind, metric.name))
        }
        ("AverageValue", _, Some(wanted)) => {
            let what = format!("{summary}: failed to get {} object metric", metric.name);
            let figure = figure.map_err(|why| fail(&what, why))?;
            let demand = of_share(facts.replicas.1, figure, milli(wanted), facts.tolerance);
            let current = average(demand.figure);
            (demand, current, shared_name(metric))
        }
        _ => return Err(fail(summary, format!("invalid object metric source: {NO_TARGET}"))),
    };
    let status = ObjectMetricStatus { current, described_object: object.clone(), metric: identifier(metric) };
    let status = MetricStatus { type_: spec.type_.clone(), object: Some(status), ..Default::default() };
    Ok(Proposal { replicas: demand.replicas, name, status })
}

fn of_external(spec: &MetricSpec, answer: &Answer, facts: &Facts<'_>) -> Result<Proposal, Failure> {
    let source = spec.external.clone().unwrap_or_default();
    let (metric, target) = (&source.metric, &source.target);
    let summary = format!("failed to get {} external metric value", metric.name);
    let fail = |what: &str, why| failure("FailedGetExternalMetric", what, why);
    let figure = sources::of_external(answer).map_err(|why| {
        let selector = selector_text(metric.selector.as_ref());
        format!("unable to get external metric {}/{}/{selector}: {why}", facts.namespace, metric.name)
    });
    let (demand, current) = match (&target.average_value, &target.value) {
        (Some(wanted), _) => {
            let what = format!("{summary}: failed to get {} external metric", metric.name);
            let figure = figure.map_err(|why| fail(&what, why))?;
            let demand = of_share(facts.replicas.1, figure, milli(wanted), facts.tolerance);
            let current = average(demand.figure);
            (demand, current)
        }
        (None, Some(wanted)) => {
            let what = format!("{summary}: failed to get external metric {}", metric.name);
            let demand = figure
                .and_then(|figure| of_whole(facts.replicas.0, figure, milli(wanted), facts.tolerance, facts.pods))
                .map_err(|why| fail(&what, why))?;
            let current = value(demand.figure);
            (demand, current)
        }
        (None, None) => return Err(fail(&summary, format!("invalid external metric source: {NO_TARGET}"))),
    };
    let name = shared_name(metric);
    let status = ExternalMetricStatus { current, metric: identifier(metric) };
    let status = MetricStatus { type_: spec.type_.clone(), external: Some(status), ..Default::default() };
    Ok(Proposal { replicas: demand.replicas, name, status })
}

fn shared_name(metric: &MetricIdentifier) -> String {
    format!("external metric {}({})", metric.name, selector_text(metric.selector.as_ref()))
}

/// A selector as upstream's messages show it.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", one.key, one.operator)
    });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.collect::<String>(),
        expressions.collect::<String>()
    )
}
