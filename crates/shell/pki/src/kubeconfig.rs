//! Kubeconfig files: writing one with embedded certificates, merging a context into the user's own and removing it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::files::{self, SECRET_MODE};
use crate::issue::Credential;
use crate::{PkiError, PkiResult};

/// How a user proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAuth {
    Certificate(Credential),
    Token(String),
}

/// One context: a cluster, a user, and the name of all three entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    pub name: String,
    /// `https://HOST:PORT`.
    pub server: String,
    pub ca_pem: String,
    pub auth: UserAuth,
}

impl Kubeconfig {
    pub fn with_certificate(name: &str, server: &str, ca_pem: &str, credential: &Credential) -> Self {
        let auth = UserAuth::Certificate(credential.clone());
        Self { name: name.to_owned(), server: server.to_owned(), ca_pem: ca_pem.to_owned(), auth }
    }

    pub fn with_token(name: &str, server: &str, ca_pem: &str, token: &str) -> Self {
        let auth = UserAuth::Token(token.to_owned());
        Self { name: name.to_owned(), server: server.to_owned(), ca_pem: ca_pem.to_owned(), auth }
    }

    /// The whole file as YAML.
    pub fn to_yaml(&self) -> PkiResult<String> {
        let mut config = empty();
        self.put(&mut config)?;
        config["current-context"] = json!(self.name);
        encode(&config)
    }

    /// Reads back a file of one context as [`Kubeconfig::write`] makes it; None where there is none.
    pub fn read(path: &Path) -> PkiResult<Option<Self>> {
        let Some(config) = read(path)? else { return Ok(None) };
        let foreign = || not_a_kubeconfig(path, &"it does not hold one context with embedded credentials");
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(foreign);
        let decoded = |value: &Value| {
            let bytes = STANDARD.decode(text(value)?).map_err(|_| foreign())?;
            String::from_utf8(bytes).map_err(|_| foreign())
        };
        let (cluster, user) = (&config["clusters"][0], &config["users"][0]["user"]);
        let auth = match &user["token"] {
            Value::String(token) => UserAuth::Token(token.clone()),
            _ => UserAuth::Certificate(Credential {
                certificate_pem: decoded(&user["client-certificate-data"])?,
                key_pem: decoded(&user["client-key-data"])?,
            }),
        };
        Ok(Some(Self {
            name: text(&cluster["name"])?,
            server: text(&cluster["cluster"]["server"])?,
            ca_pem: decoded(&cluster["cluster"]["certificate-authority-data"])?,
            auth,
        }))
    }

    /// Writes the file for its owner alone.
    pub fn write(&self, path: &Path) -> PkiResult<()> {
        files::write_atomic(path, self.to_yaml()?.as_bytes(), SECRET_MODE)
    }

    /// Adds (or replaces) this context in a user's kubeconfig and makes it current; everything else stays. A file that
    /// is not there is made.
    pub fn merge_into(&self, path: &Path) -> PkiResult<()> {
        let mut config = read(path)?.unwrap_or_else(empty);
        self.put(&mut config).map_err(|e| not_a_kubeconfig(path, &e))?;
        config["current-context"] = json!(self.name);
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            files::make_private_dir(folder)?;
        }
        // A kubeconfig behind a symbolic link stays behind it.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        files::write_atomic(&target, encode(&config)?.as_bytes(), SECRET_MODE)
    }

    fn put(&self, config: &mut Value) -> PkiResult<()> {
        let encoded = |text: &str| STANDARD.encode(text);
        let user = match &self.auth {
            UserAuth::Token(token) => json!({ "token": token }),
            UserAuth::Certificate(credential) => json!({
                "client-certificate-data": encoded(&credential.certificate_pem),
                "client-key-data": encoded(&credential.key_pem),
            }),
        };
        let cluster = json!({ "server": self.server, "certificate-authority-data": encoded(&self.ca_pem) });
        let context = json!({ "cluster": self.name, "user": self.name });
        set_entry(config, "clusters", &self.name, "cluster", cluster)?;
        set_entry(config, "users", &self.name, "user", user)?;
        set_entry(config, "contexts", &self.name, "context", context)
    }
}

/// The kubeconfig of the public `cluster-info` ConfigMap: where the cluster is and how to recognise it, and nobody.
pub fn cluster_info(server: &str, ca_pem: &str) -> PkiResult<String> {
    let mut config = empty();
    let cluster = json!({ "server": server, "certificate-authority-data": STANDARD.encode(ca_pem) });
    set_entry(&mut config, "clusters", "", "cluster", cluster)?;
    encode(&config)
}

/// Removes a context with its cluster and user; answers whether there was one. A current context that pointed to it is
/// unset.
pub fn remove_context(path: &Path, name: &str) -> PkiResult<bool> {
    let Some(mut config) = read(path)? else { return Ok(false) };
    let mut removed = false;
    for list in ["clusters", "users", "contexts"] {
        if let Some(entries) = config.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|entry| entry["name"] != name);
            removed |= entries.len() != before;
        }
    }
    if config["current-context"] == name {
        config["current-context"] = json!("");
        removed = true;
    }
    if removed {
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        files::write_atomic(&target, encode(&config)?.as_bytes(), SECRET_MODE)?;
    }
    Ok(removed)
}

fn empty() -> Value {
    json!({ "apiVersion": "v1", "kind": "Config", "preferences": {}, "clusters": [], "users": [], "contexts": [] })
}

fn set_entry(config: &mut Value, list: &str, name: &str, key: &str, value: Value) -> PkiResult<()> {
    let wrong = || PkiError::Rejected(format!("{list} is not a list"));
    let config = config.as_object_mut().ok_or_else(wrong)?;
    let entries = config.entry(list).or_insert_with(|| json!([]));
    if entries.is_null() {
        *entries = json!([]);
    }
    let entries = entries.as_array_mut().ok_or_else(wrong)?;
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(name));
    entry.insert(key.to_owned(), value);
    match entries.iter_mut().find(|entry| entry["name"] == name) {
        Some(old) => *old = Value::Object(entry),
        None => entries.push(Value::Object(entry)),
    }
    Ok(())
}

fn read(path: &Path) -> PkiResult<Option<Value>> {
    let Some(text) = files::read_optional(path)? else { return Ok(None) };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let config: Value = serde_saphyr::from_str(&text).map_err(|e| not_a_kubeconfig(path, &e))?;
    if config.is_object() { Ok(Some(config)) } else { Err(not_a_kubeconfig(path, &"it is not a mapping")) }
}

fn not_a_kubeconfig(path: &Path, cause: &dyn std::fmt::Display) -> PkiError {
    PkiError::BadFile {
        path: path.to_owned(),
        problem: format!("is not a kubeconfig ({cause})"),
        next_step: "repair or move it away; nothing in it was changed".to_owned(),
    }
}

fn encode(config: &Value) -> PkiResult<String> {
    serde_saphyr::to_string(config).map_err(|e| PkiError::crypto("write the kubeconfig as YAML", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn sample(name: &str) -> Kubeconfig {
        Kubeconfig::with_token(name, "https://127.0.0.1:6443", "CA", "secret")
    }

    #[test]
    fn merging_keeps_what_others_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let old = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster:\n    server: https://w\n    x-extra: [1, 2]\ncontexts:\n- name: work\n  context: {cluster: work, user: me, namespace: team}\nusers: null\nextensions: [{name: e, extension: {a: b}}]\n";
        std::fs::write(&path, old).unwrap();
        sample("tug").merge_into(&path).unwrap();
        sample("tug").merge_into(&path).unwrap();
        let config = read(&path).unwrap().unwrap();
        assert_eq!(config["current-context"], "tug");
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(config["clusters"][0]["cluster"]["x-extra"], json!([1, 2]));
        assert_eq!(config["contexts"][0]["context"]["namespace"], "team");
        assert_eq!(config["extensions"][0]["extension"]["a"], "b");
        assert_eq!(config["users"][0]["user"]["token"], "secret");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(remove_context(&path, "tug").unwrap());
        assert!(!remove_context(&path, "tug").unwrap());
        let config = read(&path).unwrap().unwrap();
        assert_eq!((config["clusters"].as_array().unwrap().len(), &config["current-context"]), (1, &json!("")));
    }

    #[test]
    fn a_broken_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for bad in ["clusters: {a: b}\n", "- a\n", "a: [\n"] {
            std::fs::write(&path, bad).unwrap();
            let error = sample("tug").merge_into(&path).unwrap_err().to_string();
            assert!(error.contains("config") && error.contains("nothing in it was changed"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
