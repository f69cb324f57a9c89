//! Nonsense gets a clear answer, and harms nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{Cluster, Scope, contains};
use pki::{Authority, CertificateRequest};
use serde_json::{Value, json};

const DAY: i64 = 86_400;

/// The API without kubectl in between, as an administrator or with other credentials.
struct Api {
    server: String,
    dir: PathBuf,
}

impl Api {
    fn new(cluster: &Cluster) -> Result<Self> {
        let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
        let dir = cluster.dir().join("bad_input");
        std::fs::create_dir_all(&dir)?;
        let pki = cluster.dir().join("pki");
        let now = jiff_now()?;
        let authority = Authority::load_or_create(&pki, "ca", "kubernetes", now)?;
        for (name, issued) in [("admin", now), ("expired", now - 400 * DAY)] {
            let request =
                CertificateRequest { life: Duration::from_secs(30 * DAY as u64), ..CertificateRequest::admin() };
            let credential = authority.issue(&request, issued)?;
            std::fs::write(dir.join(format!("{name}.crt")), &credential.certificate_pem)?;
            std::fs::write(dir.join(format!("{name}.key")), &credential.key_pem)?;
        }
        Ok(Self { server, dir })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, bytes)?;
        Ok(format!("@{}", path.display()))
    }

    fn certificate(&self, name: &str) -> Vec<String> {
        let path = |end: &str| self.dir.join(format!("{name}.{end}")).display().to_string();
        vec!["--cert".to_owned(), path("crt"), "--key".to_owned(), path("key")]
    }

    /// Code and body of an answer; code 0 where there was none.
    fn call(&self, credentials: &[String], args: &[&str], path: &str) -> Result<(u16, String)> {
        let output = Command::new("curl")
            .args(["-sk", "--max-time", "30", "-w", "\n%{http_code}"])
            .args(credentials)
            .args(args)
            .arg(format!("{}{path}", self.server))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').with_context(|| format!("curl said {text:?}"))?;
        Ok((code.parse()?, body.to_owned()))
    }

    /// A Status of this code and reason, with these words in its message.
    fn refused(&self, args: &[&str], path: &str, code: u16, reason: &str, words: &[&str]) -> Result<()> {
        let (is, body) = self.call(&self.certificate("admin"), args, path)?;
        status(is, &body, code, reason, words)
            .with_context(|| format!("{path} {}", args.join(" ").chars().take(80).collect::<String>()))
    }
}

fn jiff_now() -> Result<i64> {
    Ok(i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?)
}

fn status(is: u16, body: &str, code: u16, reason: &str, words: &[&str]) -> Result<()> {
    let short: String = body.chars().take(400).collect();
    ensure!(is == code, "{is} instead of {code}: {short}");
    let Ok(value) = serde_json::from_str::<Value>(body) else { bail!("no Status but {short:?}") };
    ensure!(value["kind"] == "Status" && value["code"] == code && value["reason"] == reason, "{short}");
    contains(value["message"].as_str().unwrap_or_default(), words)
}

pub fn to_the_api(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "bad-input")?;
    let api = Api::new(cluster)?;
    let maps = "/api/v1/namespaces/bad-input/configmaps";
    let json = ["-H", "Content-Type: application/json", "--data-binary"];
    let yaml = ["-H", "Content-Type: application/yaml", "--data-binary"];
    let post = |head: [&'static str; 3], body: &str, code: u16, reason: &str, words: &[&str]| {
        api.refused(&[head[0], head[1], head[2], body], maps, code, reason, words)
    };
    post(json, "{\"kind\":", 400, "BadRequest", &[])?;
    post(json, "[]", 400, "BadRequest", &[])?;
    post(json, "", 400, "BadRequest", &[])?;
    post(yaml, "kind: ConfigMap\n  metadata: [", 400, "BadRequest", &[])?;
    let map = |data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}).to_string()
    };
    post(
        json,
        &map(json!({"a": 5})),
        400,
        "BadRequest",
        &["cannot unmarshal number", "ConfigMap.data of type string"],
    )?;
    post(json, &map(json!("text")), 400, "BadRequest", &["cannot unmarshal string"])?;
    post(json, r#"{"apiVersion":"v1","kind":"Nonsense","metadata":{"name":"x"}}"#, 400, "BadRequest", &["Nonsense"])?;
    post(["-H", "Content-Type: text/html", "--data-binary"], "<p>", 415, "UnsupportedMediaType", &["text/html"])?;
    post(json, &map(json!({"a b": "c"})), 422, "Invalid", &["data[a b]: Invalid value"])?;
    post(json, &"[".repeat(100_000), 400, "BadRequest", &[])?;
    let large = api.file("large", map(json!({"a": "x".repeat(4 << 20)})).as_bytes())?;
    post(json, &large, 413, "RequestEntityTooLarge", &["limit is 3145728"])?;
    api.refused(&[], "/apis/nonsense.example/v1/things", 404, "", &[]).or_else(|_| {
        let (code, body) = api.call(&api.certificate("admin"), &[], "/apis/nonsense.example/v1/things")?;
        ensure!(code == 404, "{code}: {body}");
        Ok(())
    })?;
    api.refused(&["-X", "PUT"], "/api/v1/namespaces", 405, "MethodNotAllowed", &[])?;
    api.refused(&[], "/api/v1/pods?labelSelector=a%3D%3D%3Db", 400, "BadRequest", &[])?;
    api.refused(&[], "/api/v1/pods?fieldSelector=spec.nonsense%3Db", 400, "BadRequest", &["spec.nonsense"])?;
    api.refused(&[], "/api/v1/pods?limit=many", 400, "BadRequest", &[])?;
    api.refused(&[], "/api/v1/pods?continue=broken", 400, "BadRequest", &["continue"])?;
    scope.fails("apply -f /dev/null", &["no objects passed to apply"])?;
    let unknown = scope.apply("apiVersion: nonsense.example/v1\nkind: Thing\nmetadata: {name: x}\n");
    contains(&format!("{:?}", unknown.err()), &["no matches for kind \"Thing\""])?;
    let typo = scope.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containres: []}\n");
    contains(&format!("{:?}", typo.err()), &["unknown field", "spec.containres"])?;
    selectors(&scope, &api)?;
    credentials(&api)?;
    unharmed(cluster)?;
    scope.delete()
}

/// Ten thousand of them, in a request's address and in an object.
fn selectors(scope: &Scope<'_>, api: &Api) -> Result<()> {
    // Short ones: curl reads no line beyond 100 KiB.
    let terms: Vec<String> = (0..10_000).map(|index| format!("k{index:x}")).collect();
    let ask = |terms: &[String], version: &str| -> Result<String> {
        let line = format!("url = \"{}/api/v1/pods?labelSelector={}\"\n", api.server, terms.join("%2C"));
        let file = api.file("query", line.as_bytes())?;
        let args = ["-sk", version, "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", "--config"];
        let output = Command::new("curl").args(args).arg(&file[1..]).args(api.certificate("admin")).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    ensure!(ask(&terms[..5_000], "--http2")? == "200", "five thousand fit into the headers of a request");
    ensure!(ask(&terms, "--http1.1")? == "414", "ten thousand do not");
    let too_large = scope.args(&["get", "pods", "-l", &terms.join(",")]).err();
    contains(&format!("{too_large:?}"), &["request header list larger than peer's advertised limit"])?;
    let labels: serde_json::Map<String, Value> = (0..10_000).map(|index| (format!("key{index}"), json!("v"))).collect();
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "selective"}, "spec": {"selector": labels, "ports": [{"port": 80}]}});
    let body = api.file("service", body.to_string().as_bytes())?;
    let head = ["-H", "Content-Type: application/json", "--data-binary", &body];
    let (code, answer) = api.call(&api.certificate("admin"), &head, "/api/v1/namespaces/bad-input/services")?;
    ensure!(
        code == 201,
        "a Service with ten thousand selectors: {code} {}",
        answer.chars().take(300).collect::<String>()
    );
    scope.run("delete service selective").map(|_| ())
}

fn credentials(api: &Api) -> Result<()> {
    let (code, body) =
        api.call(&["-H".to_owned(), "Authorization: Bearer nonsense".to_owned()], &[], "/api/v1/pods")?;
    status(code, &body, 401, "Unauthorized", &["Unauthorized"])?;
    let (code, body) = api.call(&[], &[], "/api/v1/pods")?;
    status(code, &body, 403, "Forbidden", &["system:anonymous"])?;
    let (code, body) = api.call(&api.certificate("expired"), &[], "/api/v1/pods")?;
    status(code, &body, 401, "Unauthorized", &[]).context("an expired certificate")
}

pub fn to_the_command_line(cluster: &Cluster) -> Result<()> {
    let dir = cluster.dir().join("other");
    let other = format!("{}-other", std::process::id());
    let path = |path: &Path| path.display().to_string();
    let fails = |args: &[&str], code: i32, words: &[&str]| {
        let (is, said) = cluster.tug_fails(args)?;
        ensure!(is == code && !said.contains("panicked"), "`tug {}`: code {is}: {said}", args.join(" "));
        contains(&said, words).with_context(|| format!("tug {}", args.join(" ")))
    };
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let port = server.rsplit(':').next().context("no port")?.to_owned();
    fails(&["up", "--name", &other, "--data-dir", &path(&dir), "--port", &port], 1, &["port", &port, "--port"])?;
    let file = cluster.dir().join("a-file");
    std::fs::write(&file, "no directory")?;
    fails(&["up", "--name", &other, "--data-dir", &path(&file)], 1, &[&path(&file)])?;
    fails(&["up", "--name", "Bad Name!", "--data-dir", &path(&dir)], 1, &["Bad Name!"])?;
    fails(&["up", "--name", &other, "--data-dir", &path(&dir), "--nodes", "1000"], 1, &["--nodes 1000"])?;
    fails(&["up", "--nodes", "many"], 2, &["many"])?;
    fails(&["fly"], 2, &["fly"])?;
    fails(&["status", "--name", &other, "--data-dir", &path(&dir)], 1, &["tug up"])?;
    let agent = path(&dir.join("agent"));
    fails(&["agent", "--server", "https://127.0.0.1:1", "--data-dir", &agent], 1, &["--node-ip"])?;
    fails(&["image", "import", "/nonsense.tar", "--name", &other, "--data-dir", &path(&dir)], 1, &[])?;
    let mut without = cluster.tug_command(&["up", "--name", &other, "--data-dir", &path(&dir)]);
    let output = without.env("PATH", "/nonsense").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "without containerd: {output:?}");
    contains(&said, &["containerd", "apt-get install"])?;
    ensure!(!dir.join("cluster.json").exists(), "a cluster that was refused left nothing behind");
    unharmed(cluster)
}

/// All nodes are Ready and the control plane is the same process as ever.
fn unharmed(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.kubectl(&["get", "nodes"])?;
    ensure!(nodes.matches(" Ready ").count() == 3, "{nodes}");
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz"])? == "ok");
    Ok(())
}
