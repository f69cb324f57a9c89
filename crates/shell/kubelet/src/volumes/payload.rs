//! Files of configMap, secret, downwardAPI and projected volumes.

use super::atomic::{File, Payload, valid_path};
use crate::fields::{self, Addresses};
use crate::node::Node;
use crate::objects::{Data, DataKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

const MODE_DEFAULT: i32 = 0o644;

struct Builder<'a> {
    node: &'a Node,
    pod: &'a Pod,
    mode: i32,
    files: Payload,
    refresh_at: &'a mut Option<Timestamp>,
}

/// The directory name of the plugin and the files to show.
pub(super) async fn payload(
    node: &Node,
    pod: &Pod,
    volume: &Volume,
    refresh_at: &mut Option<Timestamp>,
) -> Result<(&'static str, Payload), String> {
    let mut builder = Builder { node, pod, mode: MODE_DEFAULT, files: Payload::new(), refresh_at };
    let plugin = if let Some(source) = &volume.config_map {
        builder.mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        builder.data(DataKind::ConfigMap, &source.name, source.items.as_deref(), source.optional).await?;
        "configmap"
    } else if let Some(source) = &volume.secret {
        builder.mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let name = source.secret_name.as_deref().unwrap_or_default();
        builder.data(DataKind::Secret, name, source.items.as_deref(), source.optional).await?;
        "secret"
    } else if let Some(source) = &volume.downward_api {
        builder.mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        builder.downward(source.items.as_deref().unwrap_or_default())?;
        "downward-api"
    } else if let Some(source) = &volume.projected {
        builder.mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        for part in source.sources.iter().flatten() {
            builder.projection(part).await?;
        }
        "projected"
    } else {
        return Err("no volume plugin matched: this kind of volume is not supported by the node".into());
    };
    Ok((plugin, builder.files))
}

impl Builder<'_> {
    fn put(&mut self, path: &str, data: Vec<u8>, mode: Option<i32>) -> Result<(), String> {
        if !valid_path(path) {
            return Err(format!("invalid path in volume: {path}"));
        }
        let mode = mode.unwrap_or(self.mode).unsigned_abs() & 0o777;
        self.files.insert(path.to_string(), File { data, mode, owner: None });
        Ok(())
    }

    async fn data(
        &mut self,
        kind: DataKind,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), String> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let optional = optional.unwrap_or(false);
        let data: Data = match self.node.objects.get(kind, namespace, name, uid).await? {
            Some(data) => data,
            None if optional => Data::new(),
            None => return Err(format!("{} \"{name}\" not found", kind.as_str())),
        };
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            for (key, value) in data {
                self.put(&key, value, None)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(value) => self.put(&item.path, value.clone(), item.mode)?,
                None if optional => {}
                None => {
                    return Err(format!(
                        "references non-existent {} key: {}",
                        match kind {
                            DataKind::ConfigMap => "config",
                            DataKind::Secret => "secret",
                        },
                        item.key
                    ));
                }
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: &[DownwardAPIVolumeFile]) -> Result<(), String> {
        let addresses = Addresses { pod: Vec::new(), host: self.node.host_ips() };
        for item in items {
            let text = if let Some(selector) = &item.field_ref {
                fields::field(self.pod, selector, &addresses)?
            } else if let Some(selector) = &item.resource_field_ref {
                fields::resource(self.pod, None, selector, &self.node.machine)?
            } else {
                continue;
            };
            self.put(&item.path, text.into_bytes(), item.mode)?;
        }
        Ok(())
    }

    async fn projection(&mut self, part: &VolumeProjection) -> Result<(), String> {
        if let Some(source) = &part.config_map {
            self.data(DataKind::ConfigMap, &source.name, source.items.as_deref(), source.optional).await
        } else if let Some(source) = &part.secret {
            self.data(DataKind::Secret, &source.name, source.items.as_deref(), source.optional).await
        } else if let Some(source) = &part.downward_api {
            self.downward(source.items.as_deref().unwrap_or_default())
        } else if let Some(source) = &part.service_account_token {
            self.token(source).await
        } else {
            Err("this kind of projected volume source is not supported by the node".into())
        }
    }

    async fn token(&mut self, source: &ServiceAccountTokenProjection) -> Result<(), String> {
        let (token, renew) = self.node.tokens.get(self.node, self.pod, source).await?;
        *self.refresh_at = Some(self.refresh_at.map_or(renew, |old| old.min(renew)));
        // a token is for the pod's processes only: the common user if there is one, else everybody in the pod
        let user = common_user(self.pod);
        let group = self.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group);
        let private = (user.is_some() || group.is_some()).then_some(0o600);
        self.put(&source.path, token.into_bytes(), private)?;
        if let Some(file) = self.files.get_mut(&source.path) {
            file.owner = user;
        }
        Ok(())
    }
}

/// The user that every container runs as, if they all name the same one.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users =
        podsync::all_containers(spec).map(|(_, c)| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}
