//! Patches, strategic merge and field ownership on JSON values.
