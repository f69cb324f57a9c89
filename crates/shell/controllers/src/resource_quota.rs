//! ResourceQuotas: follows what the quotas of the cluster count, and corrects their status when less is used.
//!
//! Admission charges every write; this gives back what ended. Only resources that some quota counts are followed, so
//! a cluster without quotas pays nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use access::quota::{Evaluator, correction, counts_until, gives_back, recount};
use client::{Change, Informer, InformerConfig, ObjectKey, Queue, Source};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::core::{DynamicObject, PartialObjectMeta};
use reconcile::plan::{Op, PatchKind, Plan, RESOURCE_QUOTAS, merge_difference, to_value};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::apply::Writer;
use crate::discovery::discover;
use crate::runner::{Context, Outcome};

const NAME: &str = "resourcequota-controller";
/// Objects that end together are counted together.
const GATHER: Duration = Duration::from_millis(50);
/// What was charged is counted once more this long after: the write may have failed after the charge.
const CONFIRM: Duration = Duration::from_secs(5);
/// A resource that a quota names and nobody serves is looked for again after this time.
const UNSERVED_PAUSE: Duration = Duration::from_secs(10);
/// How long a cache is waited for that may not show yet what was charged.
const CHARGED_MAX: Duration = Duration::from_secs(1);
/// How long the first list of one resource is waited for.
const SYNC_MAX: Duration = Duration::from_secs(10);

/// Group and plural.
type Counted = (String, String);

struct Quotas;

impl Source for Quotas {
    type Object = ResourceQuota;
    type View = Arc<Value>;
    fn project(mut quota: ResourceQuota) -> Arc<Value> {
        quota.metadata.managed_fields = None;
        Arc::new(to_value(&quota))
    }
}

/// The objects of one resource, as small as quotas need them.
struct Followed {
    evaluator: Evaluator,
    objects: Informer<Value>,
    end: CancellationToken,
}

struct Controller {
    quotas: Informer<Arc<Value>>,
    followed: Mutex<BTreeMap<Counted, Followed>>,
    queue: Queue<ObjectKey>,
    client: kube::Client,
    stop: CancellationToken,
    writer: Writer,
}

pub(crate) fn start(context: &Context) {
    let quotas = context.hub.informer::<Quotas>();
    let queue = context.queue();
    let wake = queue.clone();
    quotas.subscribe(move |change| {
        let Some(quota) = change.latest() else { return };
        let part = |part: &str| change.sides().map(|side| side.view[part].clone()).collect::<Vec<_>>();
        let is_charge = change.old.is_some() && change.new.is_some() && part("spec").windows(2).all(|w| w[0] == w[1]);
        if is_charge && quota.view["spec"]["hard"] == quota.view["status"]["hard"] {
            wake.add_after(quota.key.clone(), CONFIRM);
        } else {
            wake.add(quota.key.clone());
        }
    });
    let writer = context.writer(NAME).track(RESOURCE_QUOTAS, &quotas);
    let controller = Arc::new(Controller {
        quotas: quotas.clone(),
        followed: Mutex::default(),
        queue: queue.clone(),
        client: context.hub.client().clone(),
        stop: context.stop.clone(),
        writer,
    });
    context.work(NAME, &queue, async move { quotas.synced().await }, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    });
}

/// What the limits of a quota count.
fn counted(quota: &Value) -> BTreeSet<Counted> {
    let hard = quota["spec"]["hard"].as_object().into_iter().flatten();
    hard.filter_map(|(name, _)| Evaluator::resource_of(name)).collect()
}

impl Controller {
    fn followed(&self) -> MutexGuard<'_, BTreeMap<Counted, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(self: &Arc<Self>, key: &ObjectKey) -> Outcome {
        self.leave();
        let Some(quota) = self.quotas.get_key(key) else { return Ok(None) };
        let wanted = counted(&quota);
        let unserved = self.follow(&wanted).await?;
        let (mut counted, mut next) = self.count(&quota, key, &wanted);
        if counted.as_ref().is_some_and(|counted| counted.gives_back) {
            self.see_charges(&quota, &wanted).await;
            (counted, next) = self.count(&quota, key, &wanted);
        }
        if let Some(plan) = counted.and_then(|counted| plan(&quota, key, &counted.status)) {
            self.writer.apply(&plan).await?;
        }
        let now = Timestamp::now().as_second();
        let next = next.map(|end| Duration::from_secs(u64::try_from(end - now).unwrap_or(0) + 1));
        Ok(next.into_iter().chain(unserved.then_some(UNSERVED_PAUSE)).min())
    }

    /// What is to be corrected; and when something ends to count, in seconds since the epoch.
    fn count(&self, quota: &Value, key: &ObjectKey, wanted: &BTreeSet<Counted>) -> (Option<Correction>, Option<i64>) {
        let views: Vec<_> = {
            let followed = self.followed();
            let of = |one: &Followed| (one.evaluator.clone(), one.objects.list_namespace(&key.namespace));
            wanted
                .iter()
                .filter_map(|counted| followed.get(counted))
                .filter(|one| one.objects.is_synced())
                .map(of)
                .collect()
        };
        let now = Timestamp::now().as_second();
        let ends = views.iter().filter(|(evaluator, _)| *evaluator == Evaluator::Pods).flat_map(|(_, pods)| pods);
        let next = ends.filter_map(|pod| counts_until(&pod.view)).filter(|end| *end >= now).min();
        let objects = views.iter().map(|(evaluator, list)| (evaluator.clone(), list.iter().map(|object| &object.view)));
        let (hard, used) = recount(quota, objects, now);
        let status = correction(quota, &hard, &used);
        (status.map(|status| Correction { status, gives_back: gives_back(quota, &used) }), next)
    }

    /// Waits until the caches are newer than the quota's last charge, which an object follows.
    async fn see_charges(&self, quota: &Value, wanted: &BTreeSet<Counted>) {
        let version = quota["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok());
        let Some(version) = version else { return };
        let informers: Vec<_> = {
            let followed = self.followed();
            wanted.iter().filter_map(|counted| followed.get(counted)).map(|one| one.objects.clone()).collect()
        };
        let newer = async {
            for informer in informers {
                informer.reached(version + 1, CHARGED_MAX).await;
            }
        };
        // Of a resource that nobody writes comes no newer revision: then there was nothing to see.
        let _ = tokio::time::timeout(CHARGED_MAX, newer).await;
    }

    /// Follows what is not followed yet; answers whether something is not served.
    async fn follow(self: &Arc<Self>, wanted: &BTreeSet<Counted>) -> kube::Result<bool> {
        let new: Vec<Counted> = {
            let followed = self.followed();
            wanted.iter().filter(|counted| !followed.contains_key(*counted)).cloned().collect()
        };
        if !new.is_empty() {
            let (served, _) = discover(&self.client).await?;
            for counted in new {
                let found = served.iter().find(|r| r.group() == counted.0 && r.plural == counted.1);
                let path = found.filter(|r| r.namespaced && r.has("list") && r.has("watch")).map(|r| r.path(""));
                if let Some((path, evaluator)) = path.zip(Evaluator::of(&counted.0, &counted.1)) {
                    let mut followed = self.followed();
                    followed.entry(counted.clone()).or_insert_with(|| self.start(counted, evaluator, path));
                }
            }
        }
        let (informers, complete): (Vec<_>, bool) = {
            let followed = self.followed();
            let found: Vec<_> = wanted.iter().filter_map(|counted| followed.get(counted)).collect();
            (found.iter().map(|one| one.objects.clone()).collect(), found.len() == wanted.len())
        };
        for informer in informers {
            // One resource that cannot be listed must not keep the others from being counted.
            let _ = tokio::time::timeout(SYNC_MAX, informer.synced()).await;
        }
        Ok(!complete)
    }

    fn start(self: &Arc<Self>, counted: Counted, evaluator: Evaluator, path: String) -> Followed {
        let end = self.stop.child_token();
        let config = InformerConfig::all(path);
        let client = self.client.clone();
        let objects = if evaluator.reads_content() {
            let project: fn(DynamicObject) -> Value = match evaluator {
                Evaluator::Pods => |object| Evaluator::Pods.essence(&to_value(&object)),
                Evaluator::Services => |object| Evaluator::Services.essence(&to_value(&object)),
                Evaluator::Claims => |object| Evaluator::Claims.essence(&to_value(&object)),
                _ => |object| Evaluator::ResourceClaims.essence(&to_value(&object)),
            };
            Informer::start::<DynamicObject>(client, config, project, &[], end.clone())
        } else {
            let project = |_: PartialObjectMeta<DynamicObject>| Value::Null;
            Informer::start::<PartialObjectMeta<DynamicObject>>(
                client,
                config.metadata_only(),
                project,
                &[],
                end.clone(),
            )
        };
        let controller = Arc::downgrade(self);
        objects.subscribe(move |change: &Change<Value>| {
            // What is created was charged on its way in.
            let Some(old) = &change.old else { return };
            let same = change.new.as_ref().is_some_and(|new| new.uid == old.uid && new.view == old.view);
            if let Some(controller) = controller.upgrade().filter(|_| !same) {
                controller.wake(&old.key.namespace, &counted);
            }
        });
        Followed { evaluator, objects, end }
    }

    fn wake(&self, namespace: &str, resource: &Counted) {
        for quota in self.quotas.list_namespace(namespace) {
            if counted(&quota).contains(resource) {
                self.queue.add_after(quota.key.clone(), GATHER);
            }
        }
    }

    /// Ends what no quota counts any more.
    fn leave(&self) {
        let wanted: BTreeSet<Counted> = self.quotas.list().iter().flat_map(|quota| counted(quota)).collect();
        self.followed().retain(|counted, one| {
            let keep = wanted.contains(counted);
            if !keep {
                one.end.cancel();
            }
            keep
        });
    }
}

/// A status to write.
struct Correction {
    status: Value,
    gives_back: bool,
}

/// The corrected status, bound to the version that was counted against: a charge in between is not lost.
fn plan(quota: &Value, key: &ObjectKey, status: &Value) -> Option<Plan> {
    let status = merge_difference(&quota["status"], status)?;
    let version = &quota["metadata"]["resourceVersion"];
    let mut plan = Plan::default();
    plan.push(Op::Patch {
        resource: RESOURCE_QUOTAS,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        subresource: Some("status"),
        kind: PatchKind::Update,
        body: json!({"metadata": {"resourceVersion": version}, "status": status}),
    });
    Some(plan)
}
