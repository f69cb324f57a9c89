//! Reads the committed table of built-in types into the model, once, when first asked.

use std::collections::HashMap;
use std::sync::LazyLock;

use meta::Gvk;

use crate::model::{Field, ListKind, Omit, Patch, Shape, Struct, StructRef, Type, TypeRef};

const TABLE: &str = include_str!("builtin.txt");

/// Every built-in type, by OpenAPI name and by group, version and kind.
pub struct Registry {
    rows: Vec<Struct>,
    by_name: HashMap<&'static str, u32>,
    by_gvk: HashMap<Gvk, TypeRef>,
}

static BUILTIN: LazyLock<Registry> = LazyLock::new(|| Registry::read(TABLE));

/// The built-in types of the Kubernetes version served.
pub fn builtin() -> &'static Registry {
    &BUILTIN
}

impl Registry {
    /// The type of a kind's objects (and of its lists and options).
    pub fn type_of(&self, gvk: &Gvk) -> Option<&TypeRef> {
        self.by_gvk.get(gvk)
    }

    /// A type by its OpenAPI name, with or without the leading `io.k8s.`.
    pub fn by_name(&self, name: &str) -> Option<TypeRef> {
        let row = *self.by_name.get(name.trim_start_matches("io.k8s."))?;
        Some(Type::new(Shape::Struct { of: StructRef::Builtin(row), atomic: false }))
    }

    /// Every struct, sorted by name.
    pub fn structs(&self) -> &[Struct] {
        &self.rows
    }

    pub(crate) fn row(&self, row: u32) -> &Struct {
        &self.rows[row as usize]
    }

    fn read(table: &'static str) -> Self {
        let heads = table.lines().filter_map(|line| line.strip_prefix("type ")).filter_map(|l| l.split(' ').next());
        let by_name: HashMap<&'static str, u32> = heads.zip(0..).collect();
        let mut reader = Reader { by_name: &by_name, types: HashMap::new() };
        let mut rows: Vec<Struct> = Vec::with_capacity(by_name.len());
        let mut fields = Vec::new();
        for line in table.lines().filter(|line| !line.starts_with('#')).rev() {
            match line.strip_prefix("type ") {
                None => fields.push(reader.field(line.trim_start())),
                Some(head) => {
                    fields.sort_by(|a: &Field, b| a.name.cmp(&b.name));
                    rows.push(reader.head(head, std::mem::take(&mut fields)));
                }
            }
        }
        rows.reverse();
        let of = |row| Type::new(Shape::Struct { of: StructRef::Builtin(row), atomic: false });
        let by_gvk = rows.iter().zip(0..).filter_map(|(s, row)| Some((s.gvk.clone()?, of(row)))).collect();
        Self { rows, by_name, by_gvk }
    }
}

struct Reader<'a> {
    by_name: &'a HashMap<&'static str, u32>,
    /// Equal types are shared.
    types: HashMap<&'static str, TypeRef>,
}

impl Reader<'_> {
    fn head(&self, head: &'static str, fields: Vec<Field>) -> Struct {
        let mut words = head.split(' ');
        let name = words.next().unwrap_or_default().into();
        let mut one = Struct { name, gvk: None, atomic: false, fields: fields.into() };
        for word in words {
            match word.split('/').collect::<Vec<_>>().as_slice() {
                ["atomic"] => one.atomic = true,
                [group, version, kind] => one.gvk = Some(Gvk::new(*group, *version, *kind)),
                _ => {}
            }
        }
        one
    }

    fn field(&mut self, line: &'static str) -> Field {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (name, number, omit, ty) = (word(), word(), word(), word());
        let mut field = Field {
            name: name.trim_end_matches('!').into(),
            ty: self.ty(ty),
            required: name.ends_with('!'),
            omit: match omit {
                "a" => Omit::Never,
                "z" => Omit::Zero,
                _ => Omit::Null,
            },
            patch: Patch::default(),
            default: None,
            number: number.parse().unwrap_or_default(),
            values: Box::default(),
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "merge" => field.patch.key = Some(value.into()),
                "patch" => {
                    field.patch.merge = value.contains("merge");
                    field.patch.retain_keys = value.contains("retainKeys");
                }
                "default" => field.default = serde_json::from_str(value).ok(),
                "enum" => field.values = value.split('|').map(Into::into).collect(),
                _ => {}
            }
        }
        field
    }

    fn ty(&mut self, text: &'static str) -> TypeRef {
        if let Some(known) = self.types.get(text) {
            return known.clone();
        }
        let made = Type::new(self.shape(text));
        self.types.insert(text, made.clone());
        made
    }

    fn shape(&mut self, text: &'static str) -> Shape {
        if let Some((kind, item)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let kind = match kind {
                "" => ListKind::Unstated,
                "set" => ListKind::Set,
                keys => keys
                    .strip_prefix("map:")
                    .map_or(ListKind::Atomic, |keys| ListKind::Map(keys.split(',').map(Into::into).collect())),
            };
            return Shape::List { kind, item: self.ty(item) };
        }
        if let Some(value) = text.strip_prefix("{}") {
            return Shape::Map { atomic: value.starts_with('~'), value: self.ty(value.trim_start_matches('~')) };
        }
        if let Some(name) = text.strip_prefix('@') {
            let atomic = name.ends_with('~');
            let row = self.by_name.get(name.trim_end_matches('~')).copied();
            return row.map_or(Shape::Any, |row| Shape::Struct { of: StructRef::Builtin(row), atomic });
        }
        match text {
            "bool" => Shape::Bool,
            "int32" => Shape::Int32,
            "int64" => Shape::Int64,
            "double" => Shape::Double,
            "string" => Shape::String,
            "bytes" => Shape::Bytes,
            "quantity" => Shape::Quantity,
            "intorstring" => Shape::IntOrString,
            "time" => Shape::Time,
            "microtime" => Shape::MicroTime,
            "raw" => Shape::Raw,
            "fieldsv1" => Shape::FieldsV1,
            _ => Shape::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        let registry = builtin();
        for line in TABLE.lines().filter(|line| line.starts_with(' ')) {
            let ty = line.trim_start().split(' ').nth(3).expect("a type");
            let core = ty.rsplit([']', '}']).next().unwrap_or(ty).trim_start_matches('~');
            let known = ["bool", "int32", "int64", "double", "string", "bytes", "quantity", "intorstring", "time"];
            let more = ["microtime", "raw", "fieldsv1", "any"];
            let name = core.strip_prefix('@').map(|name| name.trim_end_matches('~'));
            let is_type = name.is_some_and(|name| registry.by_name(name).is_some());
            assert!(is_type || known.contains(&core) || more.contains(&core), "{line}");
        }
    }

    #[test]
    fn kinds_lead_to_their_types() {
        let pod = builtin().type_of(&Gvk::new("", "v1", "Pod")).expect("pods exist");
        let containers = pod.child("spec").and_then(|spec| spec.field("containers")).expect("containers");
        assert_eq!(containers.patch, Patch { merge: true, retain_keys: false, key: Some("name".into()) });
        assert!(containers.required);
        assert_eq!(containers.ty.go_name(), "[]v1.Container");
        assert!(builtin().type_of(&Gvk::new("", "v1", "Nope")).is_none());
    }
}
