//! The images Tug brings along, and image archives.
//!
//! A first Deployment has to run on a machine that reaches no registry, so the pause program of every pod and a demo
//! application are compiled with Tug and carried inside it. They become a docker-style archive, which every containerd
//! imports, only when a node asks for it: at rest they cost no memory beyond the pages of the binary that hold them.

mod archive;
mod programs;

pub use archive::{File, Image, archive};
pub use programs::with_libraries;

/// The pause image; the tag changes with the program, so that an upgraded node imports the new one.
pub const PAUSE: &str = "tug.local/pause:1";
/// The demo application of README's tour.
pub const DEMO: &str = "tug.local/demo:latest";

static PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
static DEMO_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo"));

/// The built-in images as one archive.
///
/// # Errors
/// Only when memory for the archive cannot be had.
pub fn builtin() -> std::io::Result<Vec<u8>> {
    let image = |tag, path: &'static str, program: &'static [u8], user, port| Image {
        tag,
        files: vec![File { path: path.into(), data: program.into() }],
        user,
        port,
    };
    archive(&[
        image(PAUSE, "pause", PAUSE_PROGRAM, "65535:65535", None),
        image(DEMO, "demo", DEMO_PROGRAM, "65532:65532", Some(8080)),
    ])
}
