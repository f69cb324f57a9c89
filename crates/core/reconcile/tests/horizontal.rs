//! What autoscalers decide: upstream's figures in tables, and stories of load over time.
#![allow(clippy::unwrap_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use reconcile::Plan;
use reconcile::horizontal::sources::Answer;
use reconcile::horizontal::{Look, Memory, Observed, Scale};
use reconcile::plan::{Op, merge};
use serde_json::{Value, json};

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// An autoscaler, its target and its metrics.
struct World {
    scaler: Value,
    scale: Scale,
    pods: Vec<Pod>,
    answers: Vec<Answer>,
    memory: Memory,
    now: Timestamp,
}

impl World {
    fn new(replicas: i32, spec: Value) -> Self {
        let mut whole =
            json!({"minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": {"kind": "Deployment", "name": "web"}});
        merge(&mut whole, &spec);
        let scaler = json!({"metadata": {"name": "web", "namespace": "a"}, "spec": whole});
        let scale = Scale { replicas, present: replicas, selector: "app=web".to_owned() };
        let (pods, answers, memory) = (Vec::new(), Vec::new(), Memory::default());
        Self { scaler, scale, pods, answers, memory, now: start() }
    }

    /// One look, whose writes happen.
    fn look(&mut self) -> Plan {
        let scaler: HorizontalPodAutoscaler = serde_json::from_value(self.scaler.clone()).unwrap();
        let mut look = Look::new(&scaler, self.now);
        let observed = Observed { pods: &self.pods, answers: &self.answers, others: &[] };
        if let Some(rescale) = look.decide(&self.scale, &observed, &mut self.memory) {
            self.scale.replicas = rescale.to;
            look.rescaled(&rescale, &mut self.memory);
        }
        let plan = look.finish(&mut self.memory);
        for step in &plan.steps {
            let Op::Patch { body, .. } = &step.op else { panic!("{step:?}") };
            merge(&mut self.scaler, body);
        }
        plan
    }

    /// `TYPE=STATUS REASON` of a condition.
    fn condition(&self, kind: &str) -> String {
        let all = self.scaler["status"]["conditions"].as_array().unwrap();
        let found = all.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(String::new, |c| format!("{}={} {}", kind, text(&c["status"]), text(&c["reason"])))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A pod that started an hour ago and has been ready since, or never was.
fn pod(name: &str, request: Option<&str>, ready: bool) -> Pod {
    let requests = request.map_or(json!({}), |request| json!({"cpu": request, "memory": "1Gi"}));
    let status = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
        "status": {"phase": "Running", "startTime": "2025-12-31T23:00:00Z",
            "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": "2025-12-31T23:00:10Z"}]},
    }))
    .unwrap()
}

fn usage(name: &str, milli: &str, now: Timestamp) -> Value {
    let used = json!({"cpu": format!("{milli}m"), "memory": format!("{milli}Mi")});
    json!({"metadata": {"name": name}, "timestamp": now.to_string(), "window": "10.05s",
        "containers": [{"name": "c", "usage": used}]})
}

/// Pods as `USED/REQUEST` in thousandths of a core and cores; `-` without figures, a `!` at the end of unready ones.
fn set_pods(world: &mut World, line: &str) {
    let mut items = Vec::new();
    world.pods.clear();
    for (number, token) in line.split_whitespace().enumerate() {
        let name = format!("web-{number}");
        let (token, ready) = token.strip_suffix('!').map_or((token, true), |token| (token, false));
        let (used, request) = token.split_once('/').map_or((token, None), |(used, request)| (used, Some(request)));
        world.pods.push(pod(&name, request, ready));
        if used != "-" {
            items.push(usage(&name, used, world.now));
        }
    }
    world.answers = vec![Ok(json!({ "items": items }))];
}

fn cpu(percent: i64) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

/// Replicas, target percent, pods: wished replicas, percent in use. The figures are those of upstream's own tests.
const UTILIZATION: &str = "
    3 | 30  | 300/1 500/1 700/1                 | 5 50
    3 | 30  | 300/1! 500/1 700/1                | 4 60
    3 | 30  | 400/1 500/1! 700/1!               | 3 40
    5 | 50  | 100/1 300/1 500/1 250/1 250/1     | 3 28
    5 | 50  | 100/1 300/1 500/1 250/1! 250/1!   | 2 30
    3 | 100 | 1010/0.9 1030/1.0 1020/1.1        | 3 102
    4 | 100 | 400/1 95/1 -/1 -/1                | 3 24
    2 | 100 | 1000/1 -/1                        | 2 100
    2 | 100 | 1900/1 -/1                        | 2 190
    2 | 100 | 600/1 -/1                         | 2 60
";

#[test]
fn utilization_asks_for_replicas() {
    for line in UTILIZATION.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 100, "periodSeconds": 1}]}});
        let percent: i64 = fields[1].parse().unwrap();
        let mut world = World::new(fields[0].parse().unwrap(), json!({"metrics": cpu(percent), "behavior": behavior}));
        world.look();
        world.now += SignedDuration::from_secs(60);
        set_pods(&mut world, fields[2]);
        world.look();
        let used = &world.scaler["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
        assert_eq!(format!("{} {used}", world.scale.replicas), fields[3], "{line}");
    }
}

/// The metric, what its API answers, replicas now: wished replicas and the figure shown.
#[test]
fn other_metrics_ask_for_replicas() {
    let item = |pod: &str, value: &str| json!({"describedObject": {"name": pod}, "value": value, "timestamp": "2026-01-01T00:00:00Z"});
    let values = |list: &[&str]| json!({"items": list.iter().map(|value| json!({"value": value})).collect::<Vec<_>>()});
    let metric = json!({"name": "qps"});
    let external = |target: Value| json!({"type": "External", "external": {"metric": metric, "target": target}});
    let object = json!({"type": "Object", "object": {"metric": metric, "describedObject": {"kind": "Service", "name": "s"},
        "target": {"type": "Value", "value": "15"}}});
    let per_pod =
        json!({"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "15"}}});
    let each = json!({"items": [item("web-0", "20"), item("web-1", "10"), item("web-2", "30")]});
    let raw = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"}}});
    let of_container = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let used = || json!({"items": [usage("web-0", "200", start()), usage("web-1", "200", start()), usage("web-2", "200", start())]});
    let cases = [
        (per_pod, each, 4, r#"{"averageValue":"20"}"#),
        (object, values(&["20"]), 4, r#"{"value":"20"}"#),
        (
            external(json!({"type": "AverageValue", "averageValue": "2150m"})),
            values(&["8600m"]),
            4,
            r#"{"averageValue":"2867m"}"#,
        ),
        (external(json!({"type": "Value", "value": "3"})), values(&["2", "4"]), 6, r#"{"value":"6"}"#),
        (raw, used(), 6, r#"{"averageValue":"200Mi"}"#),
        (of_container, used(), 2, r#"{"averageUtilization":20,"averageValue":"200m"}"#),
    ];
    for (spec, answer, replicas, shown) in cases {
        let window = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 9, "periodSeconds": 1}]},
            "scaleUp": {"policies": [{"type": "Pods", "value": 9, "periodSeconds": 1}]}});
        let mut world = World::new(3, json!({"metrics": [spec], "behavior": window}));
        set_pods(&mut world, "-/1 -/1 -/1");
        world.answers = vec![Ok(answer)];
        world.look();
        let status = &world.scaler["status"]["currentMetrics"][0];
        let source = status.as_object().unwrap().iter().find(|(key, _)| *key != "type").unwrap().1;
        assert_eq!((world.scale.replicas, source["current"].to_string().as_str()), (replicas, shown), "{spec}");
    }
}

/// `+SECONDS USED%` for every pod: replicas, `AbleToScale`, `ScalingLimited`.
fn story(replicas: i32, spec: Value, lines: &str) {
    let mut world = World::new(replicas, spec);
    merge(&mut world.scaler, &json!({"spec": {"metrics": cpu(50)}}));
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (when, expected) = line.split_once(':').unwrap();
        let (seconds, percent) = when.trim_start_matches('+').split_once(' ').unwrap();
        world.now += SignedDuration::from_secs(seconds.parse().unwrap());
        let used: i64 = percent.trim().trim_end_matches('%').parse().unwrap();
        let pods = format!("{}/1 ", used * 10).repeat(usize::try_from(world.scale.replicas).unwrap());
        set_pods(&mut world, &pods);
        world.look();
        let reason = |kind| world.condition(kind).split_once(' ').map(|(_, reason)| reason.to_owned()).unwrap();
        let shown = format!("{} {} {}", world.scale.replicas, reason("AbleToScale"), reason("ScalingLimited"));
        assert_eq!(shown, expected.trim(), "{line}\n{:#}", world.scaler["status"]);
    }
}

#[test]
fn without_a_behaviour_pods_double_at_most_and_go_after_five_minutes() {
    let lines = "
        +0 50%: 3 ReadyForNewScale DesiredWithinRange
        +5 52%: 3 ReadyForNewScale DesiredWithinRange
        +5 500%: 6 SucceededRescale ScaleUpLimit
        +5 500%: 10 SucceededRescale TooManyReplicas
        +5 10%: 10 ScaleDownStabilized TooManyReplicas
        +290 10%: 10 ScaleDownStabilized TooManyReplicas
        +6 10%: 2 SucceededRescale DesiredWithinRange
        +301 0%: 1 SucceededRescale TooFewReplicas
    ";
    story(3, json!({}), lines);
}

#[test]
fn a_behaviour_limits_the_pace_both_ways() {
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}, {"type": "Percent", "value": 50, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 3, "periodSeconds": 20}, {"type": "Percent", "value": 50, "periodSeconds": 20}]},
    });
    let lines = "
        +0 100%: 3 SucceededRescale ScaleUpLimit
        +5 100%: 3 ReadyForNewScale ScaleUpLimit
        +11 100%: 5 SucceededRescale ScaleUpLimit
        +16 100%: 8 SucceededRescale ScaleUpLimit
        +16 100%: 10 SucceededRescale TooManyReplicas
        +5 10%: 10 ScaleDownStabilized DesiredWithinRange
        +11 10%: 5 SucceededRescale ScaleDownLimit
        +5 10%: 5 ScaleDownStabilized ScaleDownLimit
        +16 10%: 2 SucceededRescale ScaleDownLimit
        +21 10%: 1 SucceededRescale DesiredWithinRange
    ";
    story(2, json!({"behavior": behavior}), lines);
    let off = json!({"scaleUp": {"selectPolicy": "Disabled", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": "500m", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}});
    let lines = "
        +0 100%: 2 ReadyForNewScale ScaleUpLimit
        +5 30%: 2 ReadyForNewScale DesiredWithinRange
        +5 20%: 1 SucceededRescale DesiredWithinRange
    ";
    story(2, json!({"behavior": off}), lines);
}

#[test]
fn what_cannot_be_known_is_told_and_not_repeated() {
    let mut world = World::new(3, json!({"metrics": cpu(50)}));
    world.now += SignedDuration::from_secs(1);
    set_pods(&mut world, "100 100 100");
    let plan = world.look();
    let told: Vec<String> = plan.notes.iter().map(|note| format!("{}: {}", note.reason, note.message)).collect();
    let why = "failed to get cpu utilization: missing request for cpu in container c of Pod web-0";
    let all = format!(
        "FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
    );
    assert_eq!(told, [format!("FailedGetResourceMetric: {why}"), all]);
    assert_eq!(world.condition("ScalingActive"), "ScalingActive=False FailedGetResourceMetric");
    assert_eq!(world.condition("AbleToScale"), "AbleToScale=True SucceededGetScale");
    world.now += SignedDuration::from_secs(5);
    assert_eq!(world.look().notes, [], "the same warning within seconds");
    world.now += SignedDuration::from_secs(15);
    assert_eq!(world.look().notes.len(), 2);
    world.answers = vec![Ok(json!({"items": []}))];
    let plan = world.look();
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API";
    assert_eq!(plan.notes[0].message, why);
}

#[test]
fn limits_and_zero_need_no_metrics() {
    let mut world = World::new(12, json!({"minReplicas": 2, "metrics": cpu(50)}));
    let plan = world.look();
    assert_eq!(plan.notes[0].message, "New size: 10; reason: Current number of replicas above Spec.MaxReplicas");
    assert_eq!((plan.notes[0].reason, world.scale.replicas), ("SuccessfulRescale", 10));
    world.scale.replicas = 1;
    let plan = world.look();
    assert_eq!(plan.notes[0].message, "New size: 2; reason: Current number of replicas below Spec.MinReplicas");
    world.scale.replicas = 0;
    assert_eq!(world.look().notes, []);
    assert_eq!(
        (world.scale.replicas, world.condition("ScalingActive").as_str()),
        (0, "ScalingActive=False ScalingDisabled")
    );
}

#[test]
fn figures_that_change_nothing_are_written_seldom() {
    let mut world = World::new(1, json!({"metrics": cpu(50)}));
    let mut writes = Vec::new();
    for used in [500, 501, 502, 503, 504] {
        set_pods(&mut world, &format!("{used}/1"));
        writes.push(world.look().steps.len());
        world.now += SignedDuration::from_secs(5);
    }
    assert_eq!(writes, [1, 0, 0, 1, 0]);
}

#[test]
fn one_unknown_metric_lets_others_ask_for_more_only() {
    for (used, replicas, reason) in [("900", 4, "True ValidMetricFound"), ("100", 2, "False FailedGetExternalMetric")] {
        let mut metrics = cpu(50).as_array().unwrap().clone();
        metrics.push(json!({"type": "External", "external": {"metric": {"name": "qps"}, "target": {"type": "Value", "value": "3"}}}));
        let mut world = World::new(2, json!({ "metrics": metrics }));
        set_pods(&mut world, &format!("{used}/1 {used}/1"));
        world.answers.push(Err("nobody serves it".to_owned()));
        let plan = world.look();
        assert_eq!(world.scale.replicas, replicas);
        assert_eq!(world.condition("ScalingActive"), format!("ScalingActive={reason}"));
        let why = "unable to get external metric a/qps/nil: unable to fetch metrics from external metrics API: nobody serves it";
        assert_eq!(plan.notes[0].message, why);
    }
}

#[test]
fn a_clock_that_goes_back_holds_nothing_for_longer() {
    let spec = json!({"metrics": [{"type": "External", "external": {"metric": {"name": "load"},
        "target": {"type": "AverageValue", "averageValue": "10"}}}]});
    let mut world = World::new(4, spec);
    let items = |value: &str| Ok(json!({"items": [{"value": value, "timestamp": "2026-01-01T00:00:00Z"}]}));
    world.answers = vec![items("40")];
    world.look();
    world.now -= SignedDuration::from_hours(2);
    world.answers = vec![items("10")];
    world.look();
    assert_eq!(world.scale.replicas, 4);
    world.now += SignedDuration::from_secs(301);
    world.look();
    assert_eq!(world.scale.replicas, 1);
}
