//! The images Tug brings along, and image archives.
