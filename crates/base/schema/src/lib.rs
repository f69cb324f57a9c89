//! The one schema model, the generated table of built-in types and the interpreters over both.
