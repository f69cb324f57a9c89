//! The informers of one process: each source is listed and watched once, whoever asks for it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{Index, Informer, InformerConfig};

/// What to follow and what to keep of it. Implemented on a marker type; two askers of the same marker share one watch.
pub trait Source: 'static {
    type Object: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static;
    type View: Send + Sync + 'static;

    fn project(object: Self::Object) -> Self::View;

    /// The collection; all namespaces and objects unless overridden.
    fn config() -> InformerConfig {
        InformerConfig::all(<Self::Object as kube::Resource>::url_path(&(), None))
    }

    fn indexes() -> &'static [Index<Self::View>] {
        &[]
    }
}

/// The source that keeps whole objects, without their managedFields.
pub struct Whole<K>(PhantomData<K>);

impl<K> Source for Whole<K>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    type Object = K;
    type View = K;

    fn project(mut object: K) -> K {
        object.meta_mut().managed_fields = None;
        object
    }
}

/// The shared informers of a process; cheap to clone.
#[derive(Clone)]
pub struct Hub {
    client: Client,
    stop: CancellationToken,
    informers: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Hub {
    /// Informers started here end with `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self { client, stop, informers: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of a source, started by the first who asks.
    pub fn informer<S: Source>(&self) -> Informer<S::View> {
        let mut informers = self.informers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = informers.get(&TypeId::of::<S>()).and_then(|known| known.downcast_ref::<Informer<S::View>>());
        if let Some(informer) = known {
            return informer.clone();
        }
        let informer =
            Informer::start::<S::Object>(self.client.clone(), S::config(), S::project, S::indexes(), self.stop.clone());
        informers.insert(TypeId::of::<S>(), Box::new(informer.clone()));
        informer
    }

    /// The informer that keeps whole objects of a kind.
    pub fn whole<K>(&self) -> Informer<K>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        self.informer::<Whole<K>>()
    }
}
