//! kubectl in one namespace, written as a user types it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use images::{File, Image};
use machine::processes::Process;
use serde_json::Value;

use crate::Cluster;

/// A shell and its tools, which the demo image does not have; `import_busybox` brings it to the nodes.
pub const BUSYBOX: &str = "tug.local/busybox:e2e";

/// A cluster and a namespace; words are split at spaces, `args` takes them as they are.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub cluster: &'a Cluster,
    pub namespace: &'a str,
}

impl<'a> Scope<'a> {
    /// Makes the namespace.
    ///
    /// # Errors
    /// It could not be made.
    pub fn new(cluster: &'a Cluster, namespace: &'a str) -> Result<Self> {
        cluster.new_namespace(namespace)?;
        Ok(Self { cluster, namespace })
    }

    fn in_namespace<'b>(&self, args: &[&'b str]) -> Vec<&'b str>
    where
        'a: 'b,
    {
        [&["-n", self.namespace], args].concat()
    }

    /// # Errors
    /// kubectl ended with another code than 0.
    pub fn args(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", self.namespace], args].concat())
    }

    /// # Errors
    /// As `args`.
    pub fn run(&self, words: &str) -> Result<String> {
        self.args(&split(words))
    }

    /// Runs kubectl and looks for these words in what it prints.
    ///
    /// # Errors
    /// It failed, or a word is missing.
    pub fn says(&self, words: &str, wanted: &[&str]) -> Result<String> {
        let text = self.run(words)?;
        contains(&text, wanted).with_context(|| format!("kubectl {words}"))?;
        Ok(text)
    }

    /// Runs kubectl where it is to fail with these words.
    ///
    /// # Errors
    /// It did not fail, or failed with other words.
    pub fn fails(&self, words: &str, wanted: &[&str]) -> Result<()> {
        let text = self.cluster.kubectl_fails(&self.in_namespace(&split(words)))?;
        contains(&text, wanted).with_context(|| format!("kubectl {words}"))
    }

    /// kubectl to run in a way of one's own.
    pub fn command(&self, words: &str) -> Command {
        self.cluster.kubectl_command(&self.in_namespace(&split(words)))
    }

    /// # Errors
    /// kubectl refused the manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        // kubectl takes what begins with a brace for JSON.
        self.cluster.kubectl_with(&["apply", "-n", self.namespace, "-f", "-"], &format!("# YAML\n{manifest}"))
    }

    /// # Errors
    /// There is no such object.
    pub fn get(&self, words: &str) -> Result<Value> {
        self.cluster.get(&self.in_namespace(&split(words)))
    }

    /// One value, as jsonpath finds it.
    ///
    /// # Errors
    /// There is no such object.
    pub fn field(&self, words: &str, path: &str) -> Result<String> {
        self.args(&[&["get", "-o", &format!("jsonpath={path}")], split(words).as_slice()].concat())
    }

    /// # Errors
    /// It does not become so in time; the error shows what it was last.
    pub fn field_becomes(&self, words: &str, path: &str, wanted: &str) -> Result<()> {
        crate::eventually(std::time::Duration::from_secs(60), &format!("{words} {path} = {wanted:?}"), || {
            let is = self.field(words, path)?;
            ensure!(is == wanted, "it is {is:?}");
            Ok(())
        })
    }

    /// Runs kubectl until it prints these words.
    ///
    /// # Errors
    /// It does not in time; the error shows what it printed last.
    pub fn eventually(&self, words: &str, wanted: &[&str]) -> Result<()> {
        crate::eventually(std::time::Duration::from_secs(60), words, || self.says(words, wanted).map(drop))
    }

    /// Runs a program in a pod.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn exec(&self, pod: &str, words: &str) -> Result<String> {
        self.args(&[&["exec", pod, "--"], split(words).as_slice()].concat())
    }

    /// Waits for a Deployment to be rolled out.
    ///
    /// # Errors
    /// It is not within a minute.
    pub fn rolled_out(&self, name: &str) -> Result<String> {
        self.run(&format!("rollout status deployment/{name} --timeout=60s"))
    }

    /// Deletes the namespace with all in it, and does not wait.
    ///
    /// # Errors
    /// kubectl said no.
    pub fn delete(self) -> Result<()> {
        self.cluster.kubectl(&["delete", "namespace", self.namespace, "--wait=false"]).map(|_| ())
    }

    /// The processes of a pod's first container, wherever on this machine it runs.
    ///
    /// # Errors
    /// The pod has no running container.
    pub fn processes(&self, pod: &str) -> Result<Vec<Process>> {
        let id = self.field(&format!("pod {pod}"), "{.status.containerStatuses[0].containerID}")?;
        let id = id.rsplit('/').next().filter(|id| !id.is_empty()).context("the container has no id")?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if groups.contains(id) {
                found.extend(Process::of(pid));
            }
        }
        ensure!(!found.is_empty(), "no process of container {id}");
        Ok(found)
    }
}

fn split(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}

/// # Errors
/// One of the words is not in the text; the error shows both.
pub fn contains(text: &str, wanted: &[&str]) -> Result<()> {
    match wanted.iter().find(|word| !text.contains(**word)) {
        None => Ok(()),
        Some(word) => bail!("{word:?} is not in:\n{text}"),
    }
}

/// Makes an image of this machine's static busybox and imports it into every node.
///
/// # Errors
/// The machine has no busybox, or the import failed.
pub fn import_busybox(cluster: &Cluster) -> Result<()> {
    let program = machine::programs::find("busybox").context("no busybox here: apt-get install busybox-static")?;
    let program = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = File { path: "bin/busybox".into(), data: program.into() };
    import(cluster, &Image { tag: BUSYBOX, files: vec![file], user: "0:0", port: None })
}

/// Brings an image to every node.
///
/// # Errors
/// The import failed.
pub fn import(cluster: &Cluster, image: &Image<'_>) -> Result<()> {
    let file: PathBuf = cluster.dir().join("import.tar");
    std::fs::write(&file, images::archive(std::slice::from_ref(image))?)?;
    let dir = cluster.dir().display().to_string();
    let said = cluster.tug(&["image", "import", &file.display().to_string(), "--data-dir", &dir])?;
    contains(&said, &[image.tag])
}
