//! What a container sees, and what kubectl carries into it and out of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{BUSYBOX, Cluster, Scope, contains, eventually};

const SETTINGS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, motd: welcome}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: open-sesame}
";

const TOOLS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: tools, labels: {role: toolbox}, annotations: {note: hi}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: prepare, image: IMAGE, command: [/bin/busybox, sh, -c, 'echo prepared > /work/state'], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
  - name: shell
    image: IMAGE
    command: [/bin/busybox, sh, -c, '/bin/busybox --install -s /bin; echo ready > /work/ready; exec sleep 100000']
    readinessProbe: {exec: {command: [/bin/busybox, test, -f, /work/ready]}, periodSeconds: 1}
    resources: {limits: {cpu: 200m, memory: 64Mi}}
    env:
    - {name: PLAIN, value: "$(COLOUR) sky"}
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: AFTER, value: "$(COLOUR) sea"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: password, key: password}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    envFrom: [{prefix: SET_, configMapRef: {name: settings}}]
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password, readOnly: true}
    - {name: about, mountPath: /about}
  - {name: side, image: IMAGE, command: [/bin/busybox, httpd, -f, -p, '9000', -h, /work], volumeMounts: [{name: work, mountPath: /work}]}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password, defaultMode: 0400}}
  - name: about
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: cpu, resourceFieldRef: {containerName: shell, resource: limits.cpu, divisor: 1m}}
"#;

pub fn sees_its_configuration(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "inside")?;
    scope.apply(SETTINGS)?;
    scope.apply(&TOOLS.replace("IMAGE", BUSYBOX))?;
    scope.run("wait pod/tools --for=condition=Ready --timeout=60s")?;
    let ip = scope.field("pod tools", "{.status.podIP}")?;
    let node = scope.field("pod tools", "{.spec.nodeName}")?;
    let environment = scope.exec("tools", "env")?;
    contains(
        &environment,
        &[
            "PLAIN=$(COLOUR) sky\n",
            "COLOUR=blue\n",
            "AFTER=blue sea\n",
            "PASSWORD=open-sesame\n",
            "SET_motd=welcome\n",
            "MEMORY=67108864\n",
            "HOSTNAME=tools\n",
            "KUBERNETES_SERVICE_HOST=",
            &format!("POD_IP={ip}\n"),
            &format!("NODE={node}\n"),
        ],
    )?;
    let file = |path: &str| scope.exec("tools", &format!("cat {path}"));
    ensure!(file("/settings/motd")? == "welcome");
    ensure!(file("/password/password")? == "open-sesame");
    contains(&scope.exec("tools", "stat -L -c %a /password/password")?, &["400"])?;
    ensure!(file("/about/labels")? == "role=\"toolbox\"");
    ensure!(file("/about/cpu")? == "200");
    ensure!(file("/work/state")? == "prepared\n", "the init container ran before, on the same volume");
    ensure!(scope.exec("tools", "wget -q -O - http://localhost:9000/state")? == "prepared\n", "one network");
    contains(&file("/etc/resolv.conf")?, &["inside.svc.cluster.local svc.cluster.local cluster.local", "ndots:5"])?;
    contains(&file("/var/run/secrets/kubernetes.io/serviceaccount/namespace")?, &["inside"])?;
    ensure!(scope.field("pod tools", "{.status.qosClass}")? == "Burstable");

    scope.run("patch configmap settings --type merge -p {\"data\":{\"motd\":\"changed\"}}")?;
    eventually(Duration::from_secs(90), "a mounted ConfigMap follows", || {
        let is = file("/settings/motd")?;
        ensure!(is == "changed", "it is {is:?}");
        Ok(())
    })?;
    streams(&scope)?;
    scope.delete()
}

fn streams(scope: &Scope<'_>) -> Result<()> {
    let exit = ["-n", scope.namespace, "exec", "tools", "--", "sh", "-c", "exit 7"];
    let code = scope.cluster.kubectl_command(&exit).stderr(Stdio::null()).status()?;
    ensure!(code.code() == Some(7), "the code of the program is the code of exec: {code}");
    let upper = ["-n", scope.namespace, "exec", "-i", "tools", "--", "tr", "a-z", "A-Z"];
    let upper = scope.cluster.kubectl_with(&upper, "shout")?;
    ensure!(upper == "SHOUT", "{upper:?}");
    terminal(scope)?;
    copy(scope)?;
    forward(scope)
}

/// `exec -it` needs a terminal on this side, which `script` makes.
fn terminal(scope: &Scope<'_>) -> Result<()> {
    // The size comes after the start, as it may with any server; until then `stty` succeeds and says nothing.
    let exec = format!(
        "kubectl -n {} exec -it tools -- sh -c 'tty; until stty size | grep 101; do sleep 0.1; done'",
        scope.namespace
    );
    let mut command = scope.cluster.command("timeout");
    command.args(["20", "script", "-qec", &format!("stty rows 33 cols 101; {exec}"), "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Whoever sits at the terminal stays: the runtime takes a terminal away when its input ends.
    let input = child.stdin.take();
    let said = child.wait_with_output()?;
    drop(input);
    contains(&String::from_utf8_lossy(&said.stdout), &["/dev/pts/", "33 101"])
}

fn copy(scope: &Scope<'_>) -> Result<()> {
    let dir = scope.cluster.dir().join("copy");
    std::fs::create_dir_all(&dir)?;
    // Larger than any buffer on the way, and every byte different from its neighbours.
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (there, back) = (dir.join("there"), dir.join("back"));
    std::fs::write(&there, &bytes)?;
    scope.args(&["cp", &there.display().to_string(), "tools:/work/copied"])?;
    scope.args(&["cp", "tools:/work/copied", &back.display().to_string()])?;
    ensure!(std::fs::read(&back)? == bytes, "cp brings back what it took there");
    Ok(())
}

fn forward(scope: &Scope<'_>) -> Result<()> {
    let mut child = scope.command("port-forward pod/tools :9000").stdout(Stdio::piped()).spawn()?;
    // It speaks of each connection, so its output stays open as long as it runs.
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let outcome = (|| {
        let mut line = String::new();
        output.read_line(&mut line)?;
        // "Forwarding from 127.0.0.1:40123 -> 9000"
        let address = line.split_whitespace().nth(2).with_context(|| format!("port-forward said {line:?}"))?.to_owned();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /state HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            contains(&answer, &["200 OK", "prepared"])?;
        }
        Ok(())
    })();
    child.kill()?;
    child.wait()?;
    outcome
}

const TALKS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  restartPolicy: Never
  containers:
  - name: shell
    image: IMAGE
    command: [/bin/busybox, sh, -c, 'echo aside >&2; echo one; echo two; /bin/busybox sleep 2; echo three; exit 3']
";

pub fn logs(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "logs")?;
    scope.apply(&TALKS.replace("IMAGE", BUSYBOX))?;
    eventually(Duration::from_secs(30), "logs before the end", || scope.says("logs talks", &["two\n"]))?;
    let followed = scope.run("logs -f talks")?;
    // The order of two streams is not known, the order within each is.
    let spoken = followed.replace("aside\n", "");
    ensure!(spoken == "one\ntwo\nthree\n" && spoken != followed, "following ends with the container: {followed:?}");
    ensure!(scope.run("logs talks --tail 1")? == "three\n");
    contains(&scope.run("logs talks --timestamps")?, &["T", "Z one\n"])?;
    ensure!(scope.run("logs talks --limit-bytes 4")?.len() == 4);
    scope.field_becomes("pod talks", "{.status.phase}", "Failed")?;
    ensure!(scope.field("pod talks", "{.status.containerStatuses[0].state.terminated.exitCode}")? == "3");
    scope.fails("logs talks -c none", &["container none is not valid for pod talks"])?;
    scope.fails("exec talks -- /bin/busybox true", &["cannot exec into a container in a completed pod"])?;
    scope.delete()
}
