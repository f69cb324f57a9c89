//! HorizontalPodAutoscalers: reads the target's scale, its pods and the metrics, writes the scale, then the status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{ApiErrorExt, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use meta::labels::Selector;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reconcile::horizontal::sources::{self, Answer, CUSTOM_METRICS, EXTERNAL_METRICS, Read};
use reconcile::horizontal::{Look, Memory, Observed, Scale};
use reconcile::plan::HORIZONTAL_POD_AUTOSCALERS;
use serde_json::Value;

use crate::apply::Writer;
use crate::kind_paths::KindPaths;
use crate::runner::{Context, Outcome};
use crate::sources::Autoscalers;

const NAME: &str = "horizontal-pod-autoscaler-controller";
/// Writes of one scale that others keep changing, before the next look decides anew.
const RESCALE_ATTEMPTS_MAX: usize = 5;
/// What of a path has another meaning in a URL.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// Versions of the custom metrics API that are understood.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// What is kept of one autoscaler from look to look.
#[derive(Default)]
struct Kept {
    memory: Memory,
    selector: Option<Selector>,
}

struct Controller {
    autoscalers: Informer<Arc<HorizontalPodAutoscaler>>,
    kept: Mutex<HashMap<ObjectKey, Kept>>,
    paths: KindPaths,
    client: Client,
    writer: Writer,
}

pub(crate) fn start(context: &Context) {
    let autoscalers = context.hub.informer::<Autoscalers>();
    let queue = context.queue();
    let wake = queue.clone();
    autoscalers.subscribe(move |change| {
        let same = |old: &HorizontalPodAutoscaler, new: &HorizontalPodAutoscaler| old.spec == new.spec;
        match (&change.old, &change.new) {
            // Own writes of the status are no reason to look.
            (Some(old), Some(new)) if old.uid == new.uid && same(old, new) => {}
            (_, Some(new)) => wake.add(new.key.clone()),
            (Some(old), None) => wake.add(old.key.clone()),
            (None, None) => {}
        }
    });
    let client = context.hub.client().clone();
    // The component of upstream's events.
    let writer = context.writer("horizontal-pod-autoscaler").track(HORIZONTAL_POD_AUTOSCALERS, &autoscalers);
    let paths = KindPaths::new(client.clone());
    let controller = Arc::new(Controller { autoscalers, kept: Mutex::default(), paths, client, writer });
    let caches = controller.clone();
    context.work(NAME, &queue, async move { caches.autoscalers.synced().await }, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// A target's scale and where it is written.
struct Target {
    path: String,
    object: Value,
}

impl Controller {
    fn kept(&self) -> MutexGuard<'_, HashMap<ObjectKey, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(scaler) = self.autoscalers.get_key(key) else {
            self.kept().remove(key);
            return Ok(None);
        };
        // A key is worked on by one worker at a time: nobody misses what is taken out here.
        let mut kept = self.kept().remove(key).unwrap_or_default();
        let plan = self.look(key, &scaler, &mut kept).await;
        self.kept().insert(key.clone(), kept);
        let plan = plan?;
        self.writer.apply(&plan).await?;
        Ok(plan.requeue_after)
    }

    async fn look(
        &self,
        key: &ObjectKey,
        scaler: &HorizontalPodAutoscaler,
        kept: &mut Kept,
    ) -> kube::Result<reconcile::Plan> {
        let mut look = Look::new(scaler, Timestamp::now());
        let mut target = match self.target(&key.namespace, scaler).await {
            Ok(target) => target,
            Err(why) => {
                look.without_scale(&why);
                return Ok(look.finish(&mut kept.memory));
            }
        };
        let scale = Scale::from_value(&target.object);
        kept.selector = Selector::parse(&scale.selector).ok().filter(|selector| !selector.is_empty());
        let (mut pods, mut answers, mut others) = (Vec::new(), Vec::new(), Vec::new());
        if look.asks_metrics(&scale) && kept.selector.is_some() {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            pods = api.list(&ListParams::default().labels(&scale.selector)).await?.items;
            let specs = scaler.spec.metrics.as_deref().unwrap_or_default();
            answers = self.answers(specs, &key.namespace, &scale.selector).await;
            others = self.others(key);
        }
        let observed = Observed { pods: &pods, answers: &answers, others: &others };
        if let Some(rescale) = look.decide(&scale, &observed, &mut kept.memory) {
            match self.write(&mut target, rescale.to).await {
                Ok(()) => look.rescaled(&rescale, &mut kept.memory),
                Err(error) => look.refused(&rescale, &error.api_message()),
            }
        }
        Ok(look.finish(&mut kept.memory))
    }

    /// The selectors of the namespace's other autoscalers, as their last looks found them.
    fn others(&self, own: &ObjectKey) -> Vec<(String, Selector)> {
        let kept = self.kept();
        let neighbours = kept.iter().filter(|(key, _)| key.namespace == own.namespace && *key != own);
        neighbours.filter_map(|(key, kept)| Some((key.name.clone(), kept.selector.clone()?))).collect()
    }

    /// The scale of the target; the error as upstream's events tell it.
    async fn target(&self, namespace: &str, scaler: &HorizontalPodAutoscaler) -> Result<Target, String> {
        let reference = &scaler.spec.scale_target_ref;
        let version = reference.api_version.as_deref().unwrap_or_default();
        let found = self.paths.find(version, &reference.kind).await.map_err(|error| error.to_string())?;
        let path = format!("{}/{}/scale", found.path(namespace), reference.name);
        match self.get(&path).await {
            Ok(object) => Ok(Target { path, object }),
            Err(error) => {
                // Perhaps the kind moved to another version or another name.
                self.paths.forget(version, &reference.kind);
                Err(error.api_message())
            }
        }
    }

    async fn get(&self, path: &str) -> kube::Result<Value> {
        let path = utf8_percent_encode(path, ESCAPED).to_string();
        let request = http::Request::get(path).body(Vec::new());
        self.client.request(request.map_err(kube::Error::HttpError)?).await
    }

    /// Writes the scale; where somebody else wrote meanwhile, onto what they wrote.
    async fn write(&self, target: &mut Target, replicas: i32) -> kube::Result<()> {
        for attempt in 1.. {
            target.object["spec"]["replicas"] = replicas.into();
            let path = utf8_percent_encode(&target.path, ESCAPED).to_string();
            let request = http::Request::put(path).header(http::header::CONTENT_TYPE, "application/json");
            let request = request.body(target.object.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
            match self.client.request::<Value>(request).await {
                Err(error) if error.is_conflict() && attempt < RESCALE_ATTEMPTS_MAX => {
                    target.object = self.get(&target.path).await?;
                }
                result => return result.map(drop),
            }
        }
        Ok(())
    }

    /// What the metrics' APIs say, in the order of the metrics; each is asked once.
    async fn answers(&self, specs: &[MetricSpec], namespace: &str, selector: &str) -> Vec<Answer> {
        let mut known: BTreeMap<Read, Answer> = BTreeMap::new();
        let mut answers = Vec::with_capacity(specs.len());
        for spec in specs {
            let resource = match sources::described(spec) {
                Some(object) => self.resource_of(object.api_version.as_deref().unwrap_or_default(), &object.kind).await,
                None => Ok(String::new()),
            };
            let read = resource.map(|resource| sources::read(spec, namespace, selector, &resource));
            let answer = match read {
                Err(why) => Err(why),
                Ok(None) => Err("the metric names no source".to_owned()),
                Ok(Some(read)) => match known.get(&read) {
                    Some(answer) => answer.clone(),
                    None => {
                        let answer = self.ask(&read).await;
                        known.insert(read, answer.clone());
                        answer
                    }
                },
            };
            answers.push(answer);
        }
        answers
    }

    /// How paths of the custom metrics API call a kind: `ingresses.networking.k8s.io`.
    async fn resource_of(&self, api_version: &str, kind: &str) -> Result<String, String> {
        let found = self.paths.find(api_version, kind).await;
        let found = found.map_err(|error| format!("unable to map kind {kind} to resource: {error}"))?;
        Ok(if found.group().is_empty() { found.plural.clone() } else { format!("{}.{}", found.plural, found.group()) })
    }

    async fn ask(&self, read: &Read) -> Answer {
        let version = match read.group {
            CUSTOM_METRICS => {
                let served = self.paths.versions(CUSTOM_METRICS).await.map_err(|error| error.api_message())?;
                chosen(&served)?
            }
            _ => "v1beta1",
        };
        let path = format!("/apis/{}/{version}/{}", read.group, read.path);
        let mut path = utf8_percent_encode(&path, ESCAPED).to_string();
        if !read.parameters.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&read.parameters).finish();
            path = format!("{path}?{query}");
        }
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error: kube::Error| match error.status() {
            Some(status) if status.code == 404 && read.group == EXTERNAL_METRICS && status.reason != "NotFound" => {
                unserved(read)
            }
            Some(status) if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) => {
                unserved(read)
            }
            _ => error.api_message(),
        })
    }
}

/// The version to speak: the first that is understood of those served, which begin with the preferred one.
fn chosen(served: &[String]) -> Result<&'static str, String> {
    let mut known = served.iter().filter_map(|served| CUSTOM_VERSIONS.into_iter().find(|known| served == known));
    match known.next() {
        Some(version) => Ok(version),
        None if served.is_empty() => Err(format!("no custom metrics API ({CUSTOM_METRICS}) registered")),
        None => Err("no known available metric versions found".to_owned()),
    }
}

/// In the words clients use for a path that nobody serves.
fn unserved(read: &Read) -> String {
    format!("the server could not find the requested resource (get {}.{})", read.what, read.group)
}
