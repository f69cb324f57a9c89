//! Custom objects on their way in and out: decoded by their schema, validated, and read back in today's form.

use meta::{FieldError, FieldErrors, FieldPath};
use schema::custom::{coerce_metadata, fill_defaults, prune, run_expressions, validate, validate_change};
use schema::{DecodeError, Decoded, FieldValidation, Format, Type, decode_partial};
use serde_json::Value;

use super::CustomType;
use crate::registry::Served;
use crate::warnings;

impl CustomType {
    /// Decodes a body: any JSON in form, then what the schema knows.
    pub fn decode(&self, body: &[u8], format: Format, mode: FieldValidation) -> Result<Decoded, DecodeError> {
        let decoded = decode_partial(&Type::any(), body, format, FieldValidation::Warn)?;
        self.fit(decoded.value, decoded.warnings, mode)
    }

    /// Brings a value that was sent or made to the form of its schema.
    pub fn fit(&self, mut value: Value, found: Vec<String>, mode: FieldValidation) -> Result<Decoded, DecodeError> {
        let mut issues = found;
        if let Some(schema) = &self.schema {
            let unknown = |paths: Vec<String>| paths.into_iter().map(|path| format!("unknown field {path:?}"));
            issues.extend(unknown(prune(schema, &mut value)));
            issues.extend(unknown(coerce_metadata(schema, &mut value, false)?));
            fill_defaults(schema, &mut value);
        }
        match mode {
            FieldValidation::Strict if !issues.is_empty() => Err(DecodeError::strict(issues)),
            FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
            _ => Ok(Decoded { value, warnings: issues }),
        }
    }

    /// A stored object as today's schema of the storage version sees it.
    pub fn settle_stored(&self, value: &mut Value) {
        settle(self.storage_schema.as_deref(), value);
    }

    /// An object of this version as its schema sees it.
    pub fn settle(&self, value: &mut Value) {
        settle(self.schema.as_deref(), value);
    }

    pub fn validate(&self, value: &Value) -> FieldErrors {
        self.schema.as_ref().map(|schema| validate(schema, value)).unwrap_or_default()
    }

    /// The author's expressions, which are asked where the rest of the schema is content.
    fn expressions(&self, new: &Value, old: Option<&Value>, found: &FieldErrors) -> FieldErrors {
        const BLOCKING: [&str; 5] = [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ];
        let Some(schema) = self.schema.as_ref().filter(|schema| schema.has_expressions()) else { return Vec::new() };
        if found.iter().any(|error| BLOCKING.contains(&error.reason)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            return vec![FieldError::invalid(&FieldPath::default(), Value::Null, why)];
        }
        let found = run_expressions(schema, new, old);
        found.warnings.iter().for_each(|warning| warnings::add(warning));
        found.errors
    }
}

fn settle(schema: Option<&Type>, value: &mut Value) {
    let Some(schema) = schema else { return };
    prune(schema, value);
    fill_defaults(schema, value);
}

impl Served {
    /// Fills what the author left out.
    pub fn default(&self, value: &mut Value) {
        (self.kind.default)(value);
        if let Some(schema) = self.custom.as_ref().and_then(|custom| custom.schema.as_ref()) {
            fill_defaults(schema, value);
        }
    }

    pub fn validate(&self, value: &Value) -> FieldErrors {
        let mut errors = (self.kind.validate)(value);
        if let Some(custom) = &self.custom {
            errors.extend(custom.validate(value));
            errors.extend(custom.expressions(value, None, &errors));
        }
        errors
    }

    /// The rules for a change: what an object broke before is not held against a writer who left it as it was.
    pub fn validate_change(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = (self.kind.validate)(new);
        errors.extend((self.kind.validate_update)(new, old));
        errors.extend(self.ratcheted(new, old));
        errors
    }

    pub fn validate_status(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = (self.kind.validate_status)(new, old);
        errors.extend(self.ratcheted(new, old));
        errors
    }

    fn ratcheted(&self, new: &Value, old: &Value) -> FieldErrors {
        let Some(custom) = &self.custom else { return Vec::new() };
        let mut errors = custom.schema.as_ref().map(|ty| validate_change(ty, new, old)).unwrap_or_default();
        errors.extend(custom.expressions(new, Some(old), &errors));
        errors
    }

    /// Whether stored bytes are sent as they are.
    pub fn reads_as_stored(&self) -> bool {
        self.is_storage_version() && !self.custom.as_ref().is_some_and(|custom| custom.reshapes)
    }
}
