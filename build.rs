//! Makes the gRPC code from proto/ with protox: nobody needs protoc.
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let public = ["types", "chain", "proof", "node", "tail"]
        .map(|name| format!("proto/qbc/v1/{name}.proto"));
    let inner = ["cluster", "peer"].map(|name| format!("proto/qbc/cluster/v1/{name}.proto"));
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What strangers may ask about is the public part alone.
    let shown = protox::compile(&public, ["proto"])?;
    fs::write(out.join("qbc_descriptor.bin"), prost_bytes(&shown))?;
    let descriptors = protox::compile(public.iter().chain(&inner), ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
