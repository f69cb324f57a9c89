//! Tables of pods: what runs, what is planned, what the status says.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use podsync::{Container, ContainerState, KillReason, Memory, Observed, Pins, ProbeKind, Sandbox, plan, status};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// A pod from its spec as JSON.
fn pod(spec: &str) -> Pod {
    let text = format!(r#"{{"metadata":{{"name":"p","namespace":"ns","uid":"u"}},"spec":{spec}}}"#);
    serde_json::from_str(&text).unwrap()
}

/// `name#attempt@state[:exit[:seconds ago]]`, all in sandbox `s0`.
fn observed(text: &str) -> Observed {
    let mut seen = Observed::default();
    for word in text.split_whitespace() {
        if let Some(sandbox) = word.strip_prefix("sandbox") {
            let ready = sandbox != "-down";
            let ips = if ready { vec!["10.0.0.1".to_string()] } else { Vec::new() };
            seen.sandboxes.push(Sandbox { id: "s0".into(), attempt: 0, ready, ips, created: NOW });
            continue;
        }
        let (name, rest) = word.split_once('#').unwrap();
        let (attempt, state) = rest.split_once('@').unwrap();
        let mut parts = state.split(':');
        let life = match parts.next().unwrap() {
            "run" => ContainerState::Running,
            "exit" => ContainerState::Exited,
            other => panic!("{other}"),
        };
        let exit_code = parts.next().map_or(0, |c| c.parse().unwrap());
        let ago: i64 = parts.next().map_or(0, |c| c.parse().unwrap());
        let at = NOW - SignedDuration::from_secs(ago);
        seen.containers.push(Container {
            id: format!("{name}{attempt}"),
            name: name.into(),
            sandbox_id: "s0".into(),
            attempt: attempt.parse().unwrap(),
            state: life,
            created: at,
            started: Some(at),
            finished: (life == ContainerState::Exited).then_some(at),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: "i".into(),
            image_id: "sha".into(),
            log_path: String::new(),
        });
    }
    seen
}

/// Plan and status in short words.
fn short(pod: &Pod, seen: &Observed, memory: &Memory) -> String {
    let mut out = String::new();
    let planned = plan(pod, seen, memory, NOW);
    for action in &planned.actions {
        use podsync::Action::*;
        let _ = match action {
            CreateSandbox { attempt } => write!(out, "sandbox#{attempt} "),
            StopSandbox { .. } => write!(out, "stop-sandbox "),
            RemoveSandbox { .. } => write!(out, "remove-sandbox "),
            Start { name, attempt, .. } => write!(out, "start {name}#{attempt} "),
            Stop { name, grace, after, .. } if after.is_empty() => write!(out, "stop {name} {grace}s "),
            Stop { name, grace, after, .. } => write!(out, "stop {name} {grace}s after {} ", after.join(",")),
            RemoveContainer { id, .. } => write!(out, "remove {id} "),
        };
    }
    if let Some(at) = planned.wake_at {
        let _ = write!(out, "wake {}s ", at.duration_since(NOW).as_secs());
    }
    if planned.ended {
        out.push_str("ended ");
    }
    let status = status(pod, seen, memory, &Pins::default(), NOW);
    let _ = write!(out, "| {}", status.phase.unwrap_or_default());
    let lists = [status.init_container_statuses, status.container_statuses];
    for container in lists.into_iter().flatten().flatten() {
        let state = container.state.unwrap();
        let word = match (state.waiting, state.running, state.terminated) {
            (Some(w), ..) => w.reason.unwrap_or_default(),
            (_, Some(_), _) => "Running".into(),
            (.., Some(t)) => format!("{}/{}", t.reason.unwrap_or_default(), t.exit_code),
            _ => String::new(),
        };
        let ready = if container.ready { "+" } else { "" };
        let _ = write!(out, " {}={word}{ready}", container.name);
    }
    let yes = status.conditions.iter().flatten().filter(|c| c.status == "True").map(|c| c.type_.as_str());
    let yes: Vec<&str> = yes.filter(|t| *t != "PodScheduled" && *t != "PodReadyToStartContainers").collect();
    let _ = write!(out, " {yes:?}");
    out
}

const ALWAYS: &str = r#"{"containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}"#;
const ONCE: &str = r#"{"restartPolicy":"Never","containers":[{"name":"a","image":"i"}]}"#;
const RETRY: &str = r#"{"restartPolicy":"OnFailure","containers":[{"name":"a","image":"i"}]}"#;
const INIT: &str = r#"{"initContainers":[{"name":"x","image":"i"},{"name":"y","image":"i","restartPolicy":"Always"}],
  "containers":[{"name":"a","image":"i"}]}"#;
const INIT_ONCE: &str =
    r#"{"restartPolicy":"Never","initContainers":[{"name":"x","image":"i"}],"containers":[{"name":"a","image":"i"}]}"#;

#[test]
fn plans_and_statuses() {
    let rows = [
        (ALWAYS, "", "sandbox#0 | Pending a=ContainerCreating b=ContainerCreating [\"Initialized\"]"),
        (ALWAYS, "sandbox", "start a#0 start b#0 | Pending a=ContainerCreating b=ContainerCreating [\"Initialized\"]"),
        (
            ALWAYS,
            "sandbox a#0@run b#0@run",
            "| Running a=Running+ b=Running+ [\"Initialized\", \"Ready\", \"ContainersReady\"]",
        ),
        (ALWAYS, "sandbox a#0@exit:1 b#0@run", "start a#1 | Running a=Error/1 b=Running+ [\"Initialized\"]"),
        (
            ALWAYS,
            "sandbox a#2@run a#1@exit:1 a#0@exit:1 b#0@run",
            "remove a0 | Running a=Running+ b=Running+ [\"Initialized\", \"Ready\", \"ContainersReady\"]",
        ),
        (ALWAYS, "sandbox-down a#0@run b#0@exit:0", "stop a 30s | Running a=Running+ b=Completed/0 [\"Initialized\"]"),
        (
            ALWAYS,
            "sandbox-down a#0@exit:0 b#0@exit:0",
            "sandbox#1 | Running a=Completed/0 b=Completed/0 [\"Initialized\"]",
        ),
        (ONCE, "sandbox a#0@exit:0", "stop-sandbox | Succeeded a=Completed/0 [\"Initialized\"]"),
        (ONCE, "sandbox-down a#0@exit:3", "ended | Failed a=Error/3 [\"Initialized\"]"),
        (RETRY, "sandbox a#0@exit:3", "start a#1 | Running a=Error/3 [\"Initialized\"]"),
        (RETRY, "sandbox-down a#1@exit:0 a#0@exit:3", "ended | Succeeded a=Completed/0 [\"Initialized\"]"),
        (INIT, "sandbox", "start x#0 | Pending x=PodInitializing y=PodInitializing a=PodInitializing []"),
        (INIT, "sandbox x#0@exit:1", "start x#1 | Pending x=Error/1 y=PodInitializing a=PodInitializing []"),
        (INIT, "sandbox x#0@exit:0", "start y#0 | Pending x=Completed/0+ y=PodInitializing a=PodInitializing []"),
        (
            INIT,
            "sandbox x#0@exit:0 y#0@run",
            "start a#0 | Pending x=Completed/0+ y=Running+ a=PodInitializing [\"Initialized\"]",
        ),
        (
            INIT,
            "sandbox x#0@exit:0 y#0@exit:1 a#0@run",
            "start y#1 | Running x=Completed/0+ y=Error/1 a=Running+ [\"Initialized\"]",
        ),
        (INIT_ONCE, "sandbox x#0@exit:1", "stop-sandbox | Failed x=Error/1 a=PodInitializing []"),
    ];
    for (spec, seen, expected) in rows {
        let seen_now = observed(seen);
        let mut memory = Memory::default();
        memory.started.extend(seen_now.containers.iter().map(|c| c.id.clone()));
        assert_eq!(short(&pod(spec), &seen_now, &memory), expected, "{spec} {seen}");
    }
}

#[test]
fn deletion_ends_main_containers_before_sidecars_and_the_sandbox_last() {
    let mut pod = pod(INIT);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    pod.metadata.deletion_grace_period_seconds = Some(7);
    let actions = |seen: &str| short(&pod, &observed(seen), &Memory::default()).split('|').next().unwrap().to_string();
    assert_eq!(actions("sandbox x#0@exit:0 y#0@run a#0@run"), "stop y 7s after a0 stop a 7s ");
    assert_eq!(actions("sandbox x#0@exit:0 y#0@run a#0@exit:0"), "stop y 7s ");
    assert_eq!(actions("sandbox x#0@exit:0 y#0@exit:0 a#0@exit:0"), "stop-sandbox ");
    assert_eq!(actions("sandbox-down x#0@exit:0 y#0@exit:0 a#0@exit:0"), "ended ");
}

#[test]
fn a_failed_probe_stops_the_container_with_its_own_grace() {
    let spec = |policy: &str| {
        format!(
            r#"{{"restartPolicy":"{policy}","terminationGracePeriodSeconds":30,"containers":[{{"name":"a","image":"i",
            "livenessProbe":{{"terminationGracePeriodSeconds":5}},"startupProbe":{{"terminationGracePeriodSeconds":3}}}}]}}"#
        )
    };
    let seen = observed("sandbox a#0@run");
    let rows = [
        ("Always", ProbeKind::Liveness, 5, "Container a failed liveness probe, will be restarted"),
        ("Always", ProbeKind::Startup, 3, "Container a failed startup probe, will be restarted"),
        ("Never", ProbeKind::Liveness, 5, "Container a failed liveness probe"),
    ];
    for (policy, probe, seconds, text) in rows {
        let memory = Memory { condemned: [("a0".to_string(), probe)].into(), ..Memory::default() };
        let actions = plan(&pod(&spec(policy)), &seen, &memory, NOW).actions;
        let [podsync::Action::Stop { reason, grace, .. }] = actions.as_slice() else { panic!("{actions:?}") };
        assert_eq!((*grace, reason.message("a", false).as_str()), (seconds, text));
    }
}

#[test]
fn what_was_ended_to_start_anew_does_so_after_a_clean_exit() {
    let replaced = Memory { replaced: ["a0".to_string()].into(), ..Memory::default() };
    let seen = observed("sandbox a#0@exit:0");
    assert_eq!(
        short(&pod(RETRY), &seen, &Memory::default()),
        "stop-sandbox | Succeeded a=Completed/0 [\"Initialized\"]"
    );
    assert_eq!(short(&pod(RETRY), &seen, &replaced), "start a#1 | Running a=Completed/0 [\"Initialized\"]");
    let ended: Vec<bool> = [
        KillReason::ProbeFailed { probe: ProbeKind::Liveness, restarts: true },
        KillReason::ProbeFailed { probe: ProbeKind::Liveness, restarts: false },
        KillReason::SpecChanged,
        KillReason::Resized,
        KillReason::PodEnds,
        KillReason::SandboxChanged,
    ]
    .iter()
    .map(KillReason::replaces)
    .collect();
    assert_eq!(ended, [true, false, true, true, false, false]);
}

#[test]
fn rules_of_a_container_overrule_the_policy() {
    let spec = |rule: &str| {
        format!(
            r#"{{"restartPolicy":"Never","containers":[{{"name":"a","image":"i","restartPolicy":"Never","restartPolicyRules":[
            {{"action":"{rule}","exitCodes":{{"operator":"In","values":[42]}}}}]}},{{"name":"b","image":"i"}}]}}"#
        )
    };
    let rows = [
        ("Restart", "sandbox a#0@exit:42 b#0@run", "start a#1 | Running a=Error/42 b=Running+"),
        ("Restart", "sandbox a#0@exit:1 b#0@run", "| Running a=Error/1 b=Running+"),
        ("RestartAllContainers", "sandbox a#0@exit:42 b#0@run", "stop b 0s | Running a=Error/42 b=Running+"),
        ("RestartAllContainers", "sandbox a#0@exit:42 b#0@exit:137", "remove b0 | Running a=Error/42 b=Error/137"),
        ("RestartAllContainers", "sandbox a#0@exit:42", "remove a0 | Pending a=Error/42 b=ContainerCreating"),
    ];
    for (rule, seen, expected) in rows {
        let seen_now = observed(seen);
        let mut memory = Memory::default();
        memory.started.extend(seen_now.containers.iter().map(|c| c.id.clone()));
        let text = short(&pod(&spec(rule)), &seen_now, &memory);
        assert!(text.starts_with(expected), "{rule} {seen}: {text}");
    }
    // what is gone from the runtime starts again although its policy says Never
    let mut pod = pod(&spec("RestartAllContainers"));
    let ended = |name: &str, code: i32| {
        format!(
            r#"{{"name":"{name}","image":"i","imageID":"","ready":false,"restartCount":0,"containerID":"containerd://{name}0",
            "state":{{"terminated":{{"exitCode":{code},"reason":"Error"}}}}}}"#
        )
    };
    let status = format!(r#"{{"containerStatuses":[{},{}]}}"#, ended("a", 42), ended("b", 137));
    pod.status = Some(serde_json::from_str(&status).unwrap());
    let mut seen = observed("sandbox");
    let reborn: BTreeSet<String> = ["a0".to_string(), "b0".to_string()].into();
    seen.absorb(pod.status.as_ref().unwrap(), &reborn);
    let text = short(&pod, &seen, &Memory::default());
    let expected = "start a#1 start b#1 | Running a=RestartingAllContainers b=RestartingAllContainers";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn crash_loops_wait_longer_each_time_and_forget_after_ten_minutes() {
    let pod = pod(ONCE.replace("Never", "Always").as_str());
    let mut memory = Memory::default();
    let mut waits = Vec::new();
    for attempt in 0..8 {
        let seen = observed(&format!("sandbox a#{attempt}@exit:1"));
        let planned = plan(&pod, &seen, &memory, NOW);
        waits.push(planned.wake_at.map_or(0, |at| at.duration_since(NOW).as_secs()));
        let later = planned.wake_at.unwrap_or(NOW);
        let again = plan(&pod, &seen, &memory, later);
        let Some(podsync::Action::Start { crash: Some(crash), .. }) = again.actions.first() else {
            panic!("{again:?}")
        };
        memory.crash.insert("a".into(), podsync::Backoff { updated: NOW, ..*crash });
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    let text = short(&pod, &observed("sandbox a#8@exit:1"), &memory);
    assert!(text.contains("a=CrashLoopBackOff"), "{text}");
    let long_ago = NOW - SignedDuration::from_secs(601);
    memory.crash.insert("a".into(), podsync::Backoff { delay: SignedDuration::from_secs(300), updated: long_ago });
    let seen = observed("sandbox a#9@exit:1");
    assert!(plan(&pod, &seen, &memory, NOW).wake_at.is_none(), "ten quiet minutes reset the delay");
}

#[test]
fn the_same_input_gives_the_same_plan_and_nothing_is_started_twice() {
    let pod = pod(ALWAYS);
    let seen = observed("sandbox a#0@exit:1 b#0@run");
    let mut memory = Memory::default();
    assert_eq!(plan(&pod, &seen, &memory, NOW), plan(&pod, &seen, &memory, NOW));
    memory.starting.insert("a".into());
    assert!(plan(&pod, &seen, &memory, NOW).actions.is_empty());
}

#[test]
fn what_the_runtime_lost_counts_as_ended() {
    let status = r#"{"containerStatuses":[{"name":"a","image":"i","imageID":"","ready":true,"restartCount":2,
        "containerID":"containerd://gone","state":{"running":{}}}]}"#;
    let mut pod = pod(ONCE);
    pod.status = Some(serde_json::from_str(status).unwrap());
    let mut seen = observed("");
    seen.absorb(pod.status.as_ref().unwrap(), &BTreeSet::new());
    let text = short(&pod, &seen, &Memory::default());
    assert_eq!(text, "ended | Failed a=ContainerStatusUnknown/137 [\"Initialized\"]");
}

#[test]
fn requests_and_limits_become_cgroup_limits() {
    let pod = pod(
        r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"250m"},"limits":{"cpu":"1","memory":"64Mi"}}},
        {"name":"b","resources":{"requests":{"cpu":"250m"},"limits":{"memory":"64Mi"}}}]}"#,
    );
    let limits = podsync::pod_limits(pod.spec.as_ref().unwrap());
    assert_eq!((limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes), (512, None, Some(128 << 20)));
    assert_eq!(podsync::qos_class(&pod).as_str(), "Burstable");
}
