//! What pods use is measured, and a Deployment grows under load and shrinks when the load ends.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Meter, Scope, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// From `tug up` to the first figures.
const FIRST_FIGURES_WITHIN: Duration = Duration::from_secs(30);
/// From the first sample that shows a load to the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The share by which `kubectl top` may differ from the control groups.
const DIFFERENCE_MAX: f64 = 0.1;
const COMPARISONS_MAX: usize = 3;
/// Percent of the request.
const TARGET: f64 = 20.0;
/// Thousandths of a core.
const REQUEST: f64 = 100.0;
const POD_METRICS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/autoscale/pods/";
const NODE_METRICS: &str = "/apis/metrics.k8s.io/v1beta1/nodes/";

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: demo}
spec:
  replicas: 1
  selector: {matchLabels: {app: demo}}
  template:
    metadata: {labels: {app: demo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: demo
        image: tug.local/demo:latest
        imagePullPolicy: IfNotPresent
        resources: {requests: {cpu: 100m}, limits: {cpu: 300m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: demo}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: demo}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 20}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
";

/// The first half minute is enough for `kubectl top`. Is to run before all others.
pub fn top_soon_after_up(cluster: &Cluster) -> Result<()> {
    let left = FIRST_FIGURES_WITHIN.saturating_sub(cluster.age());
    eventually(left, "kubectl top nodes", || {
        let told = cluster.kubectl(&["top", "nodes", "--no-headers"])?;
        ensure!(told.lines().count() == 3 && !told.contains("unknown"), "{told}");
        Ok(())
    })?;
    println!("    figures of all nodes {:.1} s after the start", cluster.age().as_secs_f64());
    Ok(())
}

/// A pod is kept busy until this is dropped: by two requests that overlap, so that there is no gap between them.
struct Busy {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

const TURN: Duration = Duration::from_secs(6);

impl Busy {
    fn start(scope: &Scope<'_>, pod: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let worker = |wait: Duration| {
            let url = format!("http://127.0.0.1:8080/load?cpu=1000&seconds={}", TURN.as_secs());
            let mut command = scope.command(&format!("exec {pod} -- /demo get {url}"));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let stop = stop.clone();
            thread::spawn(move || {
                thread::sleep(wait);
                while !stop.load(Relaxed) && command.status().is_ok_and(|status| status.success()) {}
            })
        };
        let workers = vec![worker(Duration::ZERO), worker(TURN / 2)];
        Self { stop, workers }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

/// A program that runs beside the scenario and ends with it.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A busy pod brings others, idle pods go, and what is told of their use is what the kernel says.
pub fn follows_load(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "autoscale")?;
    scope.apply(APP)?;
    scope.rolled_out("demo")?;
    let pod = scope.field("pods", "{.items[0].metadata.name}")?;
    let active = "{.status.conditions[?(@.type==\"ScalingActive\")].reason}";
    scope.field_becomes("hpa demo", active, "ValidMetricFound")?;
    ensure!(scope.field("deployment demo", "{.spec.replicas}")? == "1", "it grew without load");
    let process = scope.processes(&pod)?.first().map(|process| process.pid).context("no process")?;
    let (own, machine) = (Meter::start(Some(process))?, Meter::start(None)?);

    let memory = format!("exec {pod} -- /demo get http://127.0.0.1:8080/load?memory=64&seconds=300");
    let _memory = Beside(scope.command(&memory).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let busy = Busy::start(&scope, &pod);
    let begun = Instant::now();
    let (sample, grown) = first_answer(&scope, &pod)?;
    let took = grown.saturating_duration_since(sample);
    println!(
        "    load shown after {:.1} s, answered {:.1} s later",
        sample.duration_since(begun).as_secs_f64(),
        took.as_secs_f64()
    );
    ensure!(took <= ANSWER_WITHIN, "answered {took:?} after the first sample that showed the load");
    scope.field_becomes("deployment demo", "{.status.readyReplicas}", "3")?;
    println!("    three pods ready {:.1} s after the load began", begun.elapsed().as_secs_f64());

    let node = scope.field(&format!("pod {pod}"), "{.spec.nodeName}")?;
    agree(&scope, &own, &format!("pods {pod}"), &format!("{POD_METRICS}{pod}"))?;
    agree(&scope, &machine, &format!("nodes {node}"), &format!("{NODE_METRICS}{node}"))?;
    scope.says("get hpa demo", &["Deployment/demo", "cpu: ", "%/20%"])?;
    scope
        .says("get events", &["SuccessfulRescale", "cpu resource utilization (percentage of request) above target"])?;

    drop(busy);
    let ended = Instant::now();
    scope.field_becomes("deployment demo", "{.spec.replicas}", "1")?;
    println!("    one pod {:.1} s after the load ended", ended.elapsed().as_secs_f64());
    scope.says("get events", &["New size: 1; reason: All metrics below target"])?;
    scope.says("describe hpa demo", &["Deployment pods:", "ValidMetricFound", "SuccessfulRescale"])?;
    scope.delete()
}

/// When the first sample showed the load, and when the Deployment grew.
fn first_answer(scope: &Scope<'_>, pod: &str) -> Result<(Instant, Instant)> {
    let mut sample = None;
    eventually(Duration::from_secs(40), "more pods under load", || {
        if sample.is_none() {
            let told = figures(scope, &format!("{POD_METRICS}{pod}"))?;
            // What is within the tolerance is no load.
            let threshold = REQUEST * TARGET / 100.0 * 1.15;
            sample = (told.millicores >= threshold).then(Instant::now);
        }
        ensure!(scope.field("deployment demo", "{.spec.replicas}")? != "1", "one replica");
        let now = Instant::now();
        Ok((sample.unwrap_or(now), now))
    })
}

/// What the metrics API says of one object, and of which time.
#[derive(Debug)]
struct Figures {
    millicores: f64,
    from: Timestamp,
    to: Timestamp,
}

fn figures(scope: &Scope<'_>, path: &str) -> Result<Figures> {
    let told: Value = serde_json::from_str(&scope.run(&format!("get --raw {path}"))?)?;
    let text = |field: &str| told[field].as_str().context("no figures");
    // The second is cut off: the sample was taken somewhere in it.
    let to = text("timestamp")?.parse::<Timestamp>()? + SignedDuration::from_millis(500);
    let from = to - text("window")?.parse::<SignedDuration>()?;
    let usage = if told["usage"].is_null() { &told["containers"][0]["usage"] } else { &told["usage"] };
    let cpu = usage["cpu"].as_str().context("no cpu")?;
    let at = cpu.find(|c: char| !c.is_ascii_digit()).unwrap_or(cpu.len());
    let (number, unit) = (cpu[..at].parse::<f64>()?, &cpu[at..]);
    let millicores =
        number * [("n", 1e-6), ("u", 1e-3), ("m", 1.0)].iter().find(|(u, _)| *u == unit).map_or(1e3, |u| u.1);
    Ok(Figures { millicores, from, to })
}

/// `kubectl top` tells the same as the kernel, of the same time.
fn agree(scope: &Scope<'_>, meter: &Meter, what: &str, path: &str) -> Result<()> {
    let mut differing = Vec::new();
    let line = eventually(Duration::from_secs(40), &format!("kubectl top {what} tells of one sample"), || {
        let before = figures(scope, path)?;
        let told = scope.run(&format!("top {what} --no-headers"))?;
        ensure!(figures(scope, path)?.to == before.to, "there was a new sample meanwhile");
        let mut words = told.split_whitespace().skip(1).filter(|word| !word.ends_with('%'));
        let cpu: f64 = words.next().context("no cpu")?.trim_end_matches('m').parse()?;
        let memory: f64 = words.next().context("no memory")?.trim_end_matches("Mi").parse()?;
        let millicores = meter.millicores(before.from, before.to).context("no reading")?;
        let megabytes = meter.megabytes(before.to).context("no reading")?;
        let line = format!("top says {cpu}m {memory}Mi, the control group {millicores:.0}m {megabytes:.0}Mi");
        let near = |told: f64, found: f64| (told - found).abs() <= DIFFERENCE_MAX * found;
        if near(cpu, millicores) && near(memory, megabytes) {
            return Ok(Some(line));
        }
        differing.push(line);
        // A sample's second is known, its moment is not: where use changed in that second, the next sample is asked.
        ensure!(differing.len() >= COMPARISONS_MAX, "they differ");
        Ok(None)
    })?;
    let line = line.with_context(|| format!("top {what} and the control group differ: {}", differing.join("; ")))?;
    println!("    {}: {line}", what.split(' ').next().unwrap_or_default());
    Ok(())
}
