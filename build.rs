//! Makes the gRPC code and its JSON mapping from proto/ with protox: nobody needs protoc.
use std::{env, error::Error, fmt::Write, fs, path::PathBuf};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Messages that `src/proto/run.rs` writes by hand.
const BY_HAND: [&str; 2] = ["TailTransactions", "ReadResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let public = ["types", "chain", "proof", "node", "tail"]
        .map(|name| format!("proto/qbc/v1/{name}.proto"));
    let inner = ["cluster", "peer"].map(|name| format!("proto/qbc/cluster/v1/{name}.proto"));
    let shapes = ["proto/qbc/http/v1/http.proto".to_owned()];
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What strangers may ask about is the public part alone.
    let shown = protox::compile(&public, ["proto"])?;
    fs::write(out.join("qbc_descriptor.bin"), prost_bytes(&shown))?;
    let all = public.iter().chain(&inner).chain(&shapes);
    let descriptors = protox::compile(all, ["proto"])?;
    fs::write(out.join("qbc_schemas.json"), schemas(&descriptors)?)?;
    let bytes = prost_bytes(&descriptors);
    let mut code = tonic_prost_build::configure().bytes(".");
    for name in BY_HAND {
        code = code.extern_path(format!(".qbc.v1.{name}"), format!("crate::proto::{name}"));
    }
    code.compile_fds(descriptors)?;
    // The proto3 mapping to JSON, with the names of the fields as they stand in proto.
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .emit_fields()
        .exclude(BY_HAND.map(|name| format!(".qbc.v1.{name}")))
        .build(&[".qbc"])?;
    Ok(())
}

/// What the JSON of the messages looks like, as JSON Schema for the OpenAPI document.
fn schemas(descriptors: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut all = String::from(
        r#"{"Problem":{"type":"object","properties":{"type":{"type":"string"},"title":{"type":"string"},"status":{"type":"integer"},"detail":{"type":"string"},"reason":{"type":"string"},"metadata":{"type":"object","additionalProperties":{"type":"string"}},"retry_after_ms":{"type":"integer"}}}"#,
    );
    for file in &descriptors.file {
        for message in &file.message_type {
            message_schema(&mut all, "", message)?;
        }
        for kind in &file.enum_type {
            enum_schema(&mut all, "", kind)?;
        }
    }
    all.push('}');
    Ok(all)
}

fn message_schema(
    all: &mut String,
    outer: &str,
    message: &DescriptorProto,
) -> Result<(), Box<dyn Error>> {
    let name = format!("{outer}{}", message.name());
    write!(all, r#","{name}":{{"type":"object","properties":{{"#)?;
    for (at, field) in message.field.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let one = field_schema(field);
        let list = field.label() == Label::Repeated;
        let shape = if list {
            format!(r#"{{"type":"array","items":{one}}}"#)
        } else {
            one
        };
        write!(all, r#"{comma}"{}":{shape}"#, field.name())?;
    }
    all.push_str("}}");
    let nested = format!("{name}.");
    for message in &message.nested_type {
        message_schema(all, &nested, message)?;
    }
    for kind in &message.enum_type {
        enum_schema(all, &nested, kind)?;
    }
    Ok(())
}

fn enum_schema(
    all: &mut String,
    outer: &str,
    kind: &EnumDescriptorProto,
) -> Result<(), Box<dyn Error>> {
    let values = kind.value.iter().map(|value| format!("{:?}", value.name()));
    let values: Vec<String> = values.collect();
    let name = format!("{outer}{}", kind.name());
    let values = values.join(",");
    write!(all, r#","{name}":{{"type":"string","enum":[{values}]}}"#)?;
    Ok(())
}

/// The proto3 mapping: 64-bit numbers and bytes are strings.
fn field_schema(field: &FieldDescriptorProto) -> String {
    let shape = match field.r#type() {
        Type::Message | Type::Enum => {
            let path = field.type_name().trim_start_matches('.');
            // Messages begin with a capital letter, packages do not.
            let parts = path
                .split('.')
                .filter(|part| part.starts_with(char::is_uppercase));
            let name = parts.collect::<Vec<_>>().join(".");
            return format!(r##"{{"$ref":"#/components/schemas/{name}"}}"##);
        }
        Type::Bool => r#""type":"boolean""#,
        Type::Bytes => r#""type":"string","contentEncoding":"base64""#,
        Type::Uint64 | Type::Int64 => r#""type":"string","format":"uint64""#,
        Type::Uint32 | Type::Int32 => r#""type":"integer""#,
        _ => r#""type":"string""#,
    };
    format!("{{{shape}}}")
}

fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
