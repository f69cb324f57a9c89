//! Docker-style image archives of a few programs.

use std::borrow::Cow;
use std::io;

use serde_json::json;
use sha2::{Digest, Sha256};

/// A file of an image, which everybody may read and run.
#[derive(Clone)]
pub struct File<'a> {
    /// Where it lies, without a leading slash.
    pub path: Cow<'a, str>,
    pub data: Cow<'a, [u8]>,
}

/// An image that holds these files and nothing else.
pub struct Image<'a> {
    /// The full name with tag.
    pub tag: &'a str,
    /// The first is the program it runs by default.
    pub files: Vec<File<'a>>,
    /// `uid:gid` it runs as by default.
    pub user: &'a str,
    pub port: Option<u16>,
}

/// Packs images into one archive: a layer and a configuration each, and `manifest.json` that names them. The same input
/// gives the same bytes, and so the same image ids.
///
/// # Errors
/// Only when writing to memory fails.
pub fn archive(images: &[Image<'_>]) -> io::Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    let mut manifest = Vec::new();
    for image in images {
        let layer = layer(image)?;
        let digest = sha256(&layer);
        let program = image.files.first().map(|file| format!("/{}", file.path));
        let mut config = json!({"Entrypoint": [program], "User": image.user, "WorkingDir": "/"});
        if let Some(port) = image.port {
            config["ExposedPorts"] = json!({ format!("{port}/tcp"): {} });
        }
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        })
        .to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        let layer_name = format!("{digest}.tar");
        append(&mut out, &layer_name, &layer, 0o644)?;
        append(&mut out, &config_name, config.as_bytes(), 0o644)?;
        manifest.push(json!({"Config": config_name, "RepoTags": [image.tag], "Layers": [layer_name]}));
    }
    append(&mut out, "manifest.json", serde_json::to_string(&manifest)?.as_bytes(), 0o644)?;
    out.into_inner()
}

fn layer(image: &Image<'_>) -> io::Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    for file in &image.files {
        append(&mut out, &file.path, &file.data, 0o755)?;
    }
    out.into_inner()
}

fn append(out: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8], mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    out.append_data(&mut header, path, data)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's architecture in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    #[test]
    fn the_builtin_archive_names_what_it_holds() {
        let bytes = crate::builtin().unwrap();
        let mut names = Vec::new();
        let mut manifest = String::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            names.push(entry.path().unwrap().display().to_string());
            if names.last().unwrap() == "manifest.json" {
                entry.read_to_string(&mut manifest).unwrap();
            }
        }
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], crate::PAUSE);
        assert_eq!(manifest[1]["RepoTags"][0], crate::DEMO);
        for image in manifest.as_array().unwrap() {
            assert!(names.iter().any(|n| image["Config"] == n.as_str()));
            assert!(names.iter().any(|n| image["Layers"][0] == n.as_str()));
        }
        assert_eq!(bytes, crate::builtin().unwrap(), "the same input gives the same image ids");
    }
}
