//! Why one container does not run: the reason of its waiting, or how it ended.

use serde_json::Value;

use crate::cause::Cause;
use crate::pod::PodFacts;
use crate::view::{
    changed_through, event, event_line, event_where, flag, list, name, namespace, number, short, since, text,
};
use crate::{image, probe, words};

/// Lines of a container's log that are shown.
const LOG_LINES_MAX: usize = 4;
/// A container that was restarted and runs for less is taken to be on its way to the next failure, in seconds.
const STEADY_AFTER: i64 = 60;

/// A container with all that is known of it.
pub(crate) struct Part<'a> {
    pub facts: &'a PodFacts<'a>,
    pub spec: &'a Value,
    pub status: &'a Value,
    pub is_init: bool,
}

impl Part<'_> {
    pub fn name(&self) -> &str {
        text(self.spec, "/name")
    }

    pub fn title(&self) -> String {
        format!("{} {:?}", if self.is_init { "init container" } else { "container" }, self.name())
    }

    pub fn is_sidecar(&self) -> bool {
        self.is_init && text(self.spec, "/restartPolicy") == "Always"
    }

    fn logs_command(&self, previous: bool) -> String {
        let pod = self.facts.pod;
        let previous = if previous { " --previous" } else { "" };
        format!("kubectl logs {} -c {} -n {}{previous}", name(pod), self.name(), namespace(pod))
    }

    /// Events are about a pod; those of a container name it in their field path.
    pub fn is_mine(&self, event: &Value) -> bool {
        let path = text(event, "/involvedObject/fieldPath");
        path.is_empty() || path.ends_with(&format!("{{{}}}", self.name()))
    }

    /// The container's part in the way, if it has one.
    pub fn cause(&self) -> Option<Cause> {
        let waiting = text(self.status, "/state/waiting/reason");
        let message = text(self.status, "/state/waiting/message");
        match waiting {
            "" => self.of_run(),
            "PodInitializing" | "ContainerCreating" => None,
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => Some(image::cause(self, waiting, message)),
            "CreateContainerConfigError" => Some(self.configuration(message)),
            "CrashLoopBackOff" => self.ended(true),
            "CreateContainerError" | "RunContainerError" => Some(self.not_started(waiting, message)),
            "PostStartHookError" => Some(
                Cause::new(
                    format!("the postStart hook of {} fails, so that it is ended", self.title()),
                    "mend the hook's command, or take it out",
                )
                .seen(event(self.facts.events, "FailedPostStartHook").map(event_line).unwrap_or_default())
                .seen(format!("{waiting}: {}", short(message)))
                .run(self.logs_command(true)),
            ),
            _ => Some(
                Cause::new(format!("{} waits: {waiting}", self.title()), "see what the node says of the pod")
                    .seen(format!("{waiting}: {}", short(message)))
                    .run(format!("kubectl describe pod {} -n {}", name(self.facts.pod), namespace(self.facts.pod))),
            ),
        }
    }

    fn of_run(&self) -> Option<Cause> {
        if self.status.pointer("/state/terminated").is_some() {
            let success = number(self.status, "/state/terminated/exitCode") == Some(0);
            return if success && (self.is_init || !self.runs_forever()) { None } else { self.ended(false) };
        }
        self.status.pointer("/state/running")?;
        let steady = since(self.status, "/state/running/startedAt", self.facts.now).unwrap_or(STEADY_AFTER);
        let restarts = number(self.status, "/restartCount").unwrap_or(0);
        // `Unknown`: its node or runtime went down under it, which is no fault of its own.
        let ended = self.status.pointer("/lastState/terminated").filter(|last| text(last, "/reason") != "Unknown");
        if restarts > 0 && steady < STEADY_AFTER && ended.is_some() {
            return self.ended(true);
        }
        if self.is_init && !self.is_sidecar() {
            let seconds = since(self.status, "/state/running/startedAt", self.facts.now).unwrap_or(0);
            return Some(
                Cause::new(
                    format!(
                        "{} still runs, for {}; the next container starts when it ends with success",
                        self.title(),
                        crate::view::duration(seconds)
                    ),
                    "wait for it, or see what it waits for",
                )
                .seen_all(self.last_words())
                .run(self.logs_command(false)),
            );
        }
        if flag(self.status, "/ready") { None } else { probe::cause(self) }
    }

    fn runs_forever(&self) -> bool {
        let policy = text(self.facts.pod, "/spec/restartPolicy");
        self.is_sidecar() || policy.is_empty() || policy == "Always"
    }

    /// How the last run ended.
    fn ended(&self, again: bool) -> Option<Cause> {
        let last = ["/state/terminated", "/lastState/terminated"].into_iter().find_map(|p| self.status.pointer(p))?;
        if let Some(cause) = probe::killed(self) {
            return Some(cause);
        }
        let (reason, message) = (text(last, "/reason"), text(last, "/message"));
        if matches!(reason, "StartError" | "ContainerCannotRun") {
            return Some(self.not_started(reason, message));
        }
        let code = number(last, "/exitCode").unwrap_or(0);
        let restarts = number(self.status, "/restartCount").unwrap_or(0);
        let (verb, times) = match (again, restarts) {
            (true, 1) if self.status.pointer("/state/running").is_some() => {
                ("ended a short while ago and runs again", String::new())
            }
            (true, 1) => ("ends again and again", " (1 restart so far)".to_owned()),
            (true, count) if count > 0 => ("ends again and again", format!(" ({count} restarts so far)")),
            _ => ("ended", String::new()),
        };
        let title = self.title();
        let mut cause = if reason == "OOMKilled" {
            self.out_of_memory(&format!("{title} {verb}{times}"))
        } else if code == 0 {
            let what = format!("{title} {verb}{times}: its command ends with success, but it is to run for good");
            Cause::new(what, "give it a command that keeps running, or make it a Job, which may end")
        } else {
            let what = format!("{title} {verb}{times}: exit code {code}, {}", words::exit_code(code));
            Cause::new(what, words::exit_help(code))
        };
        cause = cause.seen_all(self.last_words()).seen(match short(message) {
            words if words.is_empty() => format!("terminated: {reason}, exit code {code}"),
            words => format!("terminated: {reason}, exit code {code}: {words}"),
        });
        if cause.command.is_none() {
            cause = cause.run(self.logs_command(again));
        }
        Some(cause)
    }

    fn out_of_memory(&self, what: &str) -> Cause {
        let limit = text(self.spec, "/resources/limits/memory");
        if limit.is_empty() {
            return Cause::new(
                format!("{what}: killed because memory ran out on its node or in its pod (it has no limit of its own)"),
                "give it a memory request that is what it needs, so that it goes where there is room",
            );
        }
        let what = format!("{what}: killed because it used more memory than its limit of {limit}");
        let cause = Cause::new(what, format!("raise resources.limits.memory above {limit}, or make it use less"));
        match (changed_through(self.facts.pod), doubled(limit)) {
            (Some(owner), Some(more)) => cause.run(format!(
                "kubectl set resources {owner} -c {} --limits=memory={more} -n {}",
                self.name(),
                namespace(self.facts.pod)
            )),
            _ => cause,
        }
    }

    fn last_words(&self) -> Vec<String> {
        let log = self.facts.logs.get(self.name()).map(String::as_str).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(LOG_LINES_MAX);
        lines.get(from..).unwrap_or_default().iter().map(|line| format!("its last words: {}", short(line))).collect()
    }

    fn configuration(&self, message: &str) -> Cause {
        let pod = self.facts.pod;
        let seen = format!("CreateContainerConfigError: {}", short(message));
        if let Some((what, help, command)) = missing(message, namespace(pod)) {
            return Cause::new(format!("{} cannot be made: {what}", self.title()), help).seen(seen).run(command);
        }
        let help = if message.contains("runAsNonRoot") {
            "set securityContext.runAsUser to a number other than 0, or use an image with such a user"
        } else {
            "mend what the message names in the container's configuration"
        };
        Cause::new(format!("{} cannot be made: {}", self.title(), short(message)), help).seen(seen)
    }

    /// The runtime did not bring the command to life.
    fn not_started(&self, reason: &str, message: &str) -> Cause {
        let command = self.spec.get("command").or_else(|| self.spec.get("args"));
        let command = command.map(Value::to_string).unwrap_or_else(|| "the command of its image".to_owned());
        let title = self.title();
        let image = text(self.spec, "/image");
        let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
        let cause = if has(&["executable file not found", "no such file or directory"]) {
            Cause::new(
                format!("{title} cannot start: {command} is not in the image {image}"),
                "correct the container's command, or use an image that holds it",
            )
        } else if has(&["permission denied"]) {
            Cause::new(
                format!("{title} cannot start: {command} may not be executed"),
                "make the file executable in the image, or name an interpreter in the command",
            )
        } else if has(&["OOM-killed", "memory limit too low"]) {
            let limit = text(self.spec, "/resources/limits/memory");
            Cause::new(
                format!("{title} cannot start: its memory limit of {limit} is too small even for the start"),
                format!("raise resources.limits.memory well above {limit}"),
            )
        } else if has(&["exec format error"]) {
            Cause::new(
                format!("{title} cannot start: {command} is not a program for this machine's processor"),
                "use an image for this processor, or a script with a first line that names its interpreter",
            )
        } else {
            Cause::new(format!("{title} cannot start: {}", short(message)), "mend what the message names")
        };
        let mount = event_where(self.facts.events, "Failed", |text| text.contains("Error:"));
        let line = mount.filter(|event| self.is_mine(event) && message.is_empty()).map(event_line);
        cause.seen(format!("{reason}: {}", short(message))).seen(line.unwrap_or_default())
    }
}

/// A ConfigMap, Secret or key that a message says is not there: what, what helps, and the command.
pub(crate) fn missing(message: &str, namespace: &str) -> Option<(String, String, String)> {
    for (word, kind, create) in
        [("configmap", "ConfigMap", "configmap NAME"), ("secret", "Secret", "secret generic NAME")]
    {
        if let Some(name) = between(message, &format!("{word} \""), "\" not found") {
            let command =
                format!("kubectl create {} -n {namespace} --from-literal=KEY=VALUE", create.replace("NAME", name));
            let help = format!("create the {kind}, correct its name, or mark the reference optional");
            return Some((format!("the {kind} {name:?} does not exist in {namespace}"), help, command));
        }
        let in_kind = format!(" in {kind} ");
        if let Some(key) = between(message, "couldn't find key ", &in_kind) {
            let whole = message.split(&in_kind).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or("");
            let name = whole.rsplit('/').next().unwrap_or(whole);
            let command = format!("kubectl edit {word} {name} -n {namespace}");
            let help = format!("add the key to the {kind}, correct the key, or mark the reference optional");
            return Some((format!("the {kind} {name:?} has no key {key:?}"), help, command));
        }
        if let Some(key) = between(message, &format!("references non-existent {word} key: "), "") {
            let help = format!("add the key to the {kind}, correct the key, or mark the reference optional");
            let what = format!("a {kind} of its volumes has no key {key:?}");
            return Some((what, help, format!("kubectl get {word} -n {namespace} -o yaml")));
        }
    }
    None
}

/// What stands between two texts; up to the end where the second is empty.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.get(text.find(before)? + before.len()..)?;
    if after.is_empty() { Some(rest.trim()) } else { rest.get(..rest.find(after)?) }
}

fn doubled(quantity: &str) -> Option<String> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    (!unit.contains('.')).then(|| number.parse::<u64>().ok()?.checked_mul(2).map(|more| format!("{more}{unit}")))?
}

/// Containers with their states, in the order in which they start.
pub(crate) fn parts<'a>(facts: &'a PodFacts<'a>) -> Vec<Part<'a>> {
    const NONE: &Value = &Value::Null;
    let of = |specs: &str, statuses: &str, is_init: bool| {
        let statuses = list(facts.pod, statuses);
        let specs = list(facts.pod, specs).iter();
        specs
            .map(|spec| {
                let status = statuses.iter().find(|status| text(status, "/name") == text(spec, "/name"));
                Part { facts, spec, status: status.unwrap_or(NONE), is_init }
            })
            .collect::<Vec<_>>()
    };
    let mut all = of("/spec/initContainers", "/status/initContainerStatuses", true);
    all.extend(of("/spec/containers", "/status/containerStatuses", false));
    all
}
