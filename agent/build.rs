//! Generates the gRPC server from the contract, in Rust alone: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let api = std::path::Path::new("../api/agent/v1");
    println!("cargo::rerun-if-changed={}", api.display());
    let descriptors = protox::compile([api.join("agent.proto")], [api])?;
    tonic_prost_build::configure().build_client(false).build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
