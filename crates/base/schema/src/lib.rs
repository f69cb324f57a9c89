//! The one schema model: the table of built-in types, and the interpreters that decode, default and describe objects.

pub mod custom;
pub mod decode;
mod describe;
pub mod model;
pub mod openapi;
pub mod openapi_protobuf;
mod table;

pub use decode::{DecodeError, Decoded, FieldValidation, Format, conform, decode, decode_partial, type_meta};
pub use model::{Field, ListKind, Omit, Patch, Shape, Struct, StructRef, Type, TypeRef};
pub use table::{Registry, builtin};
