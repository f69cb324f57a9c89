//! From a protobuf body to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::{Shape, Struct, Type, TypeRef};
use serde_json::{Map, Value, json};

use super::{DEPTH_MAX, Envelope, MAGIC, Place, ProtobufError, Result, SCHEMA_OR_BOOL, place};

/// One field of a message.
enum Wire<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * at).min(63);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed(self.take(8)?.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(self.take(4)?.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Some((u32::try_from(tag >> 3).unwrap_or(u32::MAX), wire)))
    }
}

impl<'a> Wire<'a> {
    fn bytes(&self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed(_) => Err(ProtobufError::WireType(0)),
        }
    }

    fn text(&self) -> Result<String> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| ProtobufError::Text)
    }

    fn number(&self) -> i64 {
        match self {
            Self::Varint(number) | Self::Fixed(number) => number.cast_signed(),
            Self::Bytes(_) => 0,
        }
    }
}

/// Opens the envelope of a body.
pub fn open(body: &[u8]) -> Result<Envelope<'_>> {
    let mut reader = Reader(body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?);
    let mut envelope = Envelope::default();
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => {
                let mut types = Reader(wire.bytes()?);
                while let Some((number, wire)) = types.next()? {
                    match number {
                        1 => envelope.api_version = wire.text()?,
                        2 => envelope.kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            2 => envelope.raw = wire.bytes()?,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Turns a message into JSON; fields that the type does not know are left out.
pub fn message(ty: &Type, bytes: &[u8]) -> Result<Value> {
    let mut object = Map::new();
    if let Some(of) = ty.as_struct() {
        read_struct(of, bytes, &mut object, 0)?;
    }
    Ok(Value::Object(object))
}

fn read_struct(of: &Struct, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        match place(&of.name, number) {
            Some(Place::Named(names)) => read_named(of, names, wire.bytes()?, object, depth + 1)?,
            Some(Place::Like(name)) => {
                if let Some(like) = schema::builtin().by_name(name) {
                    like.as_struct().map_or(Ok(()), |like| read_struct(like, wire.bytes()?, object, depth + 1))?;
                }
            }
            Some(Place::Field(name)) => {
                if let Some(field) = of.field(name) {
                    put(object, name, &field.ty, &wire, depth)?;
                }
            }
            None => {
                if let Some(field) = of.fields.iter().find(|field| field.number == number) {
                    put(object, &field.name, &field.ty, &wire, depth)?;
                }
            }
        }
    }
    Ok(())
}

fn read_named(of: &Struct, names: &str, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<()> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let name = names.split_whitespace().filter_map(|entry| entry.split_once('='));
        let name = name.filter(|(_, known)| known.parse() == Ok(number)).map(|(name, _)| name).next();
        if let Some(field) = name.and_then(|name| of.field(name)) {
            put(object, &field.name, &field.ty, &wire, depth)?;
        }
    }
    Ok(())
}

/// Sets a field, or adds to it where it is a list or a map.
fn put(object: &mut Map<String, Value>, name: &str, ty: &TypeRef, wire: &Wire<'_>, depth: usize) -> Result<()> {
    match &ty.shape {
        Shape::List { item, .. } => {
            let value = read(item, wire, depth)?;
            let list = object.entry(name).or_insert_with(|| json!([]));
            list.as_array_mut().into_iter().for_each(|list| list.push(value.clone()));
        }
        Shape::Map { value: ty, .. } => {
            let mut reader = Reader(wire.bytes()?);
            let (mut key, mut value) = (String::new(), zero(ty));
            while let Some((number, wire)) = reader.next()? {
                match number {
                    1 => key = wire.text()?,
                    2 => value = read(ty, &wire, depth)?,
                    _ => {}
                }
            }
            let map = object.entry(name).or_insert_with(|| json!({}));
            map.as_object_mut().into_iter().for_each(|map| drop(map.insert(key.clone(), value.clone())));
        }
        Shape::Struct { of, .. } => {
            let entry = object.entry(name).or_insert_with(|| json!({}));
            if let Some(inner) = entry.as_object_mut() {
                read_struct(of.get(), wire.bytes()?, inner, depth + 1)?;
            }
        }
        _ => {
            let value = match (&ty.shape, name) {
                (Shape::Any, name) if name == "items" || SCHEMA_OR_BOOL.contains(&name) => schema_or(wire, depth)?,
                _ => read(ty, wire, depth)?,
            };
            if !value.is_null() {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// The places of a JSON schema where something else may stand for a schema: a bool (its field 1, the schema is 2), or a
/// list of schemas (field 2, a single one is 1).
fn schema_or(wire: &Wire<'_>, depth: usize) -> Result<Value> {
    let schema = schema::builtin().by_name(super::SCHEMA);
    let schema = schema.ok_or(ProtobufError::Raw)?;
    let (mut reader, mut allows, mut schemas) = (Reader(wire.bytes()?), None, Vec::new());
    while let Some((_, wire)) = reader.next()? {
        match wire.bytes() {
            Ok(_) => {
                // Zero values go, as they do from every typed field.
                let read = read(&schema, &wire, depth + 1)?;
                let decoded = schema::conform(&schema, read, schema::FieldValidation::Ignore);
                schemas.push(decoded.map_err(|_| ProtobufError::Raw)?.value);
            }
            Err(_) => allows = Some(wire.number() != 0),
        }
    }
    Ok(match schemas.len() {
        0 => allows.map_or(Value::Null, Value::Bool),
        1 => schemas.remove(0),
        _ => Value::Array(schemas),
    })
}

/// What an absent map value means.
fn zero(ty: &Type) -> Value {
    match &ty.shape {
        Shape::String | Shape::Bytes => json!(""),
        Shape::Quantity => json!("0"),
        Shape::List { .. } => json!([]),
        _ => Value::Null,
    }
}

fn read(ty: &Type, wire: &Wire<'_>, depth: usize) -> Result<Value> {
    Ok(match &ty.shape {
        Shape::Bool => (wire.number() != 0).into(),
        Shape::Int32 | Shape::Int64 => wire.number().into(),
        Shape::Double => f64::from_bits(wire.number().cast_unsigned()).into(),
        Shape::String => wire.text()?.into(),
        Shape::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Shape::Quantity => first(wire.bytes()?)?.map_or(json!("0"), Value::String),
        Shape::IntOrString => int_or_string(wire.bytes()?)?,
        Shape::Time => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
        Shape::MicroTime => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        Shape::Raw | Shape::FieldsV1 | Shape::Any | Shape::Deduced => match first_bytes(wire.bytes()?)? {
            [] => Value::Null,
            raw => serde_json::from_slice(raw).map_err(|_| ProtobufError::Raw)?,
        },
        Shape::Struct { of, .. } => {
            let mut object = Map::new();
            read_struct(of.get(), wire.bytes()?, &mut object, depth + 1)?;
            Value::Object(object)
        }
        // A list inside of a map or list is a message with its items as field 1.
        Shape::List { item, .. } => {
            let (mut reader, mut items) = (Reader(wire.bytes()?), Vec::new());
            while let Some((number, wire)) = reader.next()? {
                if number == 1 {
                    items.push(read(item, &wire, depth + 1)?);
                }
            }
            items.into()
        }
        Shape::Map { .. } => Value::Null,
    })
}

fn first_bytes(message: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader(message);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            return wire.bytes();
        }
    }
    Ok(&[])
}

fn first(message: &[u8]) -> Result<Option<String>> {
    let bytes = first_bytes(message)?;
    let text = std::str::from_utf8(bytes).map_err(|_| ProtobufError::Text)?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn int_or_string(message: &[u8]) -> Result<Value> {
    let (mut reader, mut is_text, mut number_value, mut text) = (Reader(message), false, 0, String::new());
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => is_text = wire.number() == 1,
            2 => number_value = wire.number(),
            3 => text = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number_value.into() })
}

/// An empty message is the zero time, which JSON leaves out.
fn time(message: &[u8], format: &str) -> Result<Value> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let (mut reader, mut seconds, mut nanos) = (Reader(message), 0, 0);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.number(),
            2 => nanos = wire.number(),
            _ => {}
        }
    }
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0));
    Ok(time.map_or(Value::Null, |time| time.strftime(format).to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_map_is_read() {
        // metadata {name: "a"}, data {"k": "v"}
        let raw = [&[0x0a, 3, 0x0a, 1, b'a'][..], &[0x12, 6, 0x0a, 1, b'k', 0x12, 1, b'v'][..]].concat();
        let types = [&[0x0a, 2][..], b"v1", &[0x12, 9][..], b"ConfigMap"].concat();
        let mut body = MAGIC.to_vec();
        for (tag, part) in [(0x0a, types), (0x12, raw)] {
            body.extend([tag, u8::try_from(part.len()).unwrap()]);
            body.extend(part);
        }
        let envelope = open(&body).unwrap();
        assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMap"));
        let ty = schema::builtin().type_of(&meta::Gvk::new("", "v1", "ConfigMap")).unwrap();
        let value = message(ty, envelope.raw).unwrap();
        assert_eq!(value, json!({"metadata": {"name": "a"}, "data": {"k": "v"}}));
        assert!(open(&body[1..]).is_err());
        assert!(message(ty, &[0x0a, 200]).is_err());
    }
}
