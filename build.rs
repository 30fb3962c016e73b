//! Makes the gRPC code and its JSON mapping from proto/ with protox: nobody needs protoc.
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let public =
        ["types", "chain", "proof", "node"].map(|name| format!("proto/qbc/v1/{name}.proto"));
    let inner = ["cluster", "peer"].map(|name| format!("proto/qbc/cluster/v1/{name}.proto"));
    let shapes = ["proto/qbc/http/v1/http.proto".to_owned()];
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What strangers may ask about is the public part alone.
    let shown = protox::compile(&public, ["proto"])?;
    fs::write(out.join("qbc_descriptor.bin"), prost_bytes(&shown))?;
    let all = public.iter().chain(&inner).chain(&shapes);
    let descriptors = protox::compile(all, ["proto"])?;
    let bytes = prost_bytes(&descriptors);
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    // The proto3 mapping to JSON, with the names of the fields as they stand in proto.
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .build(&[".qbc"])?;
    Ok(())
}

fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
