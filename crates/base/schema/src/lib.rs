//! The one schema model: the table of built-in types, and the interpreters that decode, default and describe objects.

pub mod custom;
pub mod decode;
mod describe;
pub mod model;
pub mod openapi;
mod openapi_custom;
pub mod openapi_protobuf;
mod table;

pub use decode::{
    DecodeError, Decoded, FieldValidation, Format, conform, conform_partial, decode, decode_partial, type_meta,
};
pub use model::{Field, ListKind, Omit, Patch, Shape, Struct, StructRef, Type, TypeRef};
pub use table::{Registry, builtin};
