//! Compiles the runtime's wire format without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/cri.proto", "proto/events.proto", "proto/tasks.proto", "proto/health.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
