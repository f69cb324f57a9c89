//! Kubernetes' protobuf bodies, read as JSON and written from it by the numbers that the schema holds.

mod read;
mod write;

use std::sync::LazyLock;

use schema::{Field, ListKind, Omit, Patch, Shape, Struct, StructRef, Type, TypeRef, builtin};

pub use read::{message, open};
pub use write::{event, object};

/// Opens every body.
const MAGIC: &[u8] = b"k8s\0";
/// Nesting accepted in a body; no type of the API comes near it.
const DEPTH_MAX: usize = 64;

/// The envelope of a body: what it says it is, and the message itself.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Why bytes are not a message. Always final.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix 'k8s\\x00'")]
    Magic,
    #[error("the protobuf message ends early")]
    Truncated,
    #[error("the protobuf message has a field of wire type {0}, which is not used")]
    WireType(u64),
    #[error("the protobuf message is nested too deeply")]
    Depth,
    #[error("the protobuf message holds text that is not UTF-8")]
    Text,
    #[error("the protobuf message holds raw content that is not JSON")]
    Raw,
    #[error("{0} has no protobuf form")]
    NoForm(String),
    #[error("the object does not fit its type: {0}")]
    Misfit(#[from] serde_json::Error),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// Where a message nests fields that JSON has inline, or names them so that their number is not found by name.
#[derive(Clone, Copy)]
enum Place {
    /// The field's bytes are a message with these fields of the same struct.
    Named(&'static str),
    /// The field's bytes are a message numbered like another struct.
    Like(&'static str),
    /// The field is this one.
    Field(&'static str),
}

const SCHEMA: &str = "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// Fields of a JSON schema where a bool may stand for a schema.
const SCHEMA_OR_BOOL: [&str; 2] = ["additionalItems", "additionalProperties"];

const VOLUME: &str = "hostPath=1 emptyDir=2 gcePersistentDisk=3 awsElasticBlockStore=4 gitRepo=5 secret=6 nfs=7 iscsi=8 \
    glusterfs=9 persistentVolumeClaim=10 rbd=11 flexVolume=12 cinder=13 cephfs=14 flocker=15 downwardAPI=16 fc=17 \
    azureFile=18 configMap=19 vsphereVolume=20 quobyte=21 azureDisk=22 photonPersistentDisk=23 portworxVolume=24 \
    scaleIO=25 projected=26 storageos=27 csi=28 ephemeral=29 image=30";
const PERSISTENT_VOLUME: &str = "gcePersistentDisk=1 awsElasticBlockStore=2 hostPath=3 glusterfs=4 nfs=5 rbd=6 iscsi=7 \
    cinder=8 cephfs=9 fc=10 flocker=11 flexVolume=12 azureFile=13 vsphereVolume=14 quobyte=15 azureDisk=16 \
    photonPersistentDisk=17 portworxVolume=18 scaleIO=19 local=20 storageos=21 csi=22";

const NAME: Place = Place::Named("name=1");
const OPAQUE: Place = Place::Named("opaque=1");

/// The places that differ between the JSON and the protobuf form: struct, field number, what is there.
const PLACES: [(&str, u32, Place); 24] = [
    ("api.core.v1.Volume", 2, Place::Named(VOLUME)),
    ("api.core.v1.PersistentVolumeSpec", 2, Place::Named(PERSISTENT_VOLUME)),
    ("api.core.v1.Probe", 1, Place::Named("exec=1 httpGet=2 tcpSocket=3 grpc=4")),
    ("api.core.v1.EphemeralContainer", 1, Place::Like("api.core.v1.Container")),
    ("api.core.v1.ConfigMapEnvSource", 1, NAME),
    ("api.core.v1.ConfigMapKeySelector", 1, NAME),
    ("api.core.v1.ConfigMapProjection", 1, NAME),
    ("api.core.v1.ConfigMapVolumeSource", 1, NAME),
    ("api.core.v1.SecretEnvSource", 1, NAME),
    ("api.core.v1.SecretKeySelector", 1, NAME),
    ("api.core.v1.SecretProjection", 1, NAME),
    (
        "api.admissionregistration.v1.NamedRuleWithOperations",
        2,
        Place::Like("api.admissionregistration.v1.RuleWithOperations"),
    ),
    (
        "api.admissionregistration.v1.RuleWithOperations",
        2,
        Place::Named("apiGroups=1 apiVersions=2 resources=3 scope=4"),
    ),
    ("api.admissionregistration.v1.MutatingWebhookConfiguration", 2, Place::Field("webhooks")),
    ("api.admissionregistration.v1.ValidatingWebhookConfiguration", 2, Place::Field("webhooks")),
    ("api.admissionregistration.v1.Validation", 1, Place::Field("expression")),
    ("api.admissionregistration.v1.Variable", 1, Place::Field("name")),
    ("api.admissionregistration.v1.Variable", 2, Place::Field("expression")),
    ("api.authentication.v1.BoundObjectReference", 4, Place::Field("uid")),
    ("api.networking.v1.IngressClassParametersReference", 1, Place::Field("apiGroup")),
    ("api.networking.v1.IngressRule", 2, Place::Named("http=1")),
    ("api.resource.v1.DeviceAllocationConfiguration", 3, OPAQUE),
    ("api.resource.v1.DeviceClaimConfiguration", 2, OPAQUE),
    ("api.resource.v1.DeviceClassConfiguration", 1, OPAQUE),
];

fn places(of: &str) -> impl Iterator<Item = (u32, Place)> {
    PLACES.iter().filter(move |(name, ..)| *name == of).map(|(_, number, place)| (*number, *place))
}

fn place(of: &str, number: u32) -> Option<Place> {
    places(of).find(|(at, _)| *at == number).map(|(_, place)| place)
}

/// The number of a field among those that a nested message names.
fn number_of(names: &str, field: &str) -> Option<u32> {
    let mut entries = names.split_whitespace().filter_map(|entry| entry.split_once('='));
    entries.find(|(name, _)| *name == field).and_then(|(_, number)| number.parse().ok())
}

/// The numbers that lead to a field: its own behind those of the messages it is nested in; none where it has no place,
/// as what every object says of itself.
fn numbers(of: &Struct, field: &Field) -> Vec<u32> {
    if field.number > 0 {
        return vec![field.number];
    }
    for (at, place) in places(&of.name) {
        let below = match place {
            Place::Field(name) if *name == *field.name => return vec![at],
            Place::Field(_) => continue,
            Place::Named(names) => number_of(names, &field.name).map(|number| vec![number]),
            Place::Like(name) => builtin().by_name(name).and_then(|like| {
                let like = like.as_struct()?;
                Some(numbers(like, like.field(&field.name)?)).filter(|numbers| !numbers.is_empty())
            }),
        };
        if let Some(mut path) = below {
            path.insert(0, at);
            return path;
        }
    }
    Vec::new()
}

/// The types of objects that the table of kinds does not hold: metadata without the rest.
static METADATA_ONLY: LazyLock<[TypeRef; 2]> = LazyLock::new(|| {
    let field = |name: &str, number: u32, ty: TypeRef| Field {
        name: name.into(),
        ty,
        required: false,
        omit: Omit::Null,
        patch: Patch::default(),
        default: None,
        number,
        values: Box::default(),
    };
    let meta = |name: &str| {
        builtin().by_name(&format!("apimachinery.pkg.apis.meta.v1.{name}")).unwrap_or_else(|| Type::new(Shape::Any))
    };
    let own = |name: &str, fields: Vec<Field>| {
        let of = Struct { name: name.into(), gvk: None, atomic: false, fields: fields.into() };
        Type::new(Shape::Struct { of: StructRef::Own(of.into()), atomic: false })
    };
    let one = own("PartialObjectMetadata", vec![field("metadata", 1, meta("ObjectMeta"))]);
    let items = Type::new(Shape::List { kind: ListKind::Atomic, item: one.clone() });
    let list = vec![field("items", 2, items), field("metadata", 1, meta("ListMeta"))];
    [one, own("PartialObjectMetadataList", list)]
});

/// The type of an object by what it says of itself.
fn type_of(api_version: &str, kind: &str) -> Option<TypeRef> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group == "meta.k8s.io" {
        let at = ["PartialObjectMetadata", "PartialObjectMetadataList"].iter().position(|name| *name == kind)?;
        return METADATA_ONLY.get(at).cloned();
    }
    builtin().type_of(&meta::Gvk::new(group.to_owned(), version.to_owned(), kind.to_owned())).cloned()
}

/// Whether objects of a kind have a protobuf form.
pub fn has_form(gvk: &meta::Gvk) -> bool {
    builtin().type_of(gvk).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of every built-in type can be written, but for what the envelope says.
    #[test]
    fn every_field_has_its_number() {
        let mut without = Vec::new();
        for of in builtin().structs() {
            for field in of.fields.iter().filter(|field| numbers(of, field).is_empty()) {
                let of_object = matches!(&*field.name, "apiVersion" | "kind");
                if !of_object && &*of.name != "apimachinery.pkg.version.Info" {
                    without.push(format!("{}.{}", of.name, field.name));
                }
            }
        }
        assert!(without.is_empty(), "{without:#?}");
    }
}
