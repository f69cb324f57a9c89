//! The types of custom resources as expressions see them.

use std::sync::Arc;

use cel::{ListType, Type as Cel};

use crate::model::{ListKind, Shape, Type};

/// What an expression may do with a value. `name` tells objects of different places apart.
pub fn cel_type(ty: &Type, name: &str) -> Cel {
    let format = ty.custom.as_ref().map_or("", |custom| &*custom.rules.format);
    match &ty.shape {
        Shape::Bool => Cel::Bool,
        Shape::Int32 | Shape::Int64 => Cel::Int,
        Shape::Double => Cel::Double,
        Shape::String => match format {
            "byte" => Cel::Bytes,
            "date" | "date-time" | "datetime" => Cel::Timestamp,
            "duration" => Cel::Duration,
            _ => Cel::String,
        },
        Shape::Time | Shape::MicroTime => Cel::Timestamp,
        Shape::Quantity => Cel::String,
        Shape::Bytes => Cel::Bytes,
        Shape::List { kind, item } => {
            let kind = match kind {
                ListKind::Set => cel::ListKind::Set,
                ListKind::Map(keys) => cel::ListKind::Map(keys.iter().map(ToString::to_string).collect()),
                ListKind::Unstated | ListKind::Atomic => cel::ListKind::Atomic,
            };
            Cel::List(Arc::new(ListType { item: cel_type(item, &format!("{name}.@idx")), kind }))
        }
        Shape::Map { value, .. } => Cel::map(Cel::String, cel_type(value, &format!("{name}.@elem"))),
        Shape::Struct { of, .. } => {
            let embedded = ty.custom.as_ref().is_some_and(|custom| custom.embedded);
            let fields = of.get().fields.iter().map(|field| {
                let name = format!("{name}.{}", field.name);
                let ty = match (embedded, &*field.name) {
                    (true, "metadata") => metadata(&name),
                    _ => cel_type(&field.ty, &name),
                };
                (field.name.to_string(), ty)
            });
            Cel::object(name, fields)
        }
        Shape::IntOrString | Shape::Raw | Shape::FieldsV1 | Shape::Any | Shape::Deduced => Cel::Dyn,
    }
}

/// The same for a whole resource, built in or custom, as policies see it: with all of its metadata. Types that contain
/// themselves are open below the second.
pub fn resource_cel_type(ty: &Type, name: &str) -> Cel {
    below(ty, name, &mut Vec::new())
}

fn below<'a>(ty: &'a Type, name: &str, above: &mut Vec<&'a str>) -> Cel {
    match &ty.shape {
        Shape::Struct { of, .. } => {
            let of = of.get();
            // Custom structs have no name of their own, and cannot contain themselves.
            let is_builtin = of.name.contains('.');
            if is_builtin && above.contains(&&*of.name) {
                return Cel::Dyn;
            }
            above.push(&of.name);
            let fields = of.fields.iter().map(|field| {
                let ty = below(&field.ty, &format!("{name}.{}", field.name), above);
                (field.name.to_string(), ty)
            });
            let fields: Vec<(String, Cel)> = fields.collect();
            above.pop();
            Cel::object(name, fields)
        }
        Shape::List { item, .. } => Cel::list(below(item, &format!("{name}.@idx"), above)),
        Shape::Map { value, .. } => Cel::map(Cel::String, below(value, &format!("{name}.@elem"), above)),
        _ => cel_type(ty, name),
    }
}

/// Of an object's metadata, rules may read names alone.
fn metadata(name: &str) -> Cel {
    Cel::object(name, ["name", "generateName"].map(|field| (field.to_owned(), Cel::String)))
}
