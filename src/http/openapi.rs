//! The OpenAPI 3.1 document: paths from the table of routes, schemas from proto.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::routes::{Kind, ROUTES, Route};

/// Schemas of all messages, made from the descriptors at build time.
const SCHEMAS: &str = include_str!(concat!(env!("OUT_DIR"), "/qbc_schemas.json"));

/// The document.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(made)
}

fn made() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        operations[route.method.to_lowercase()] = operation(route);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "QBC",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Messages are those of proto/qbc/v1 in their proto3 JSON: 64-bit numbers as strings, bytes in base64. A chain's name is one path segment, with %2F for its slashes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters = Vec::new();
    for place in route.path.split('/').filter_map(place) {
        let schema = schema_of(Route::kind_of_place(place));
        parameters.push(json!({"name": place, "in": "path", "required": true, "schema": schema}));
    }
    for param in route.query {
        let schema = schema_of(param.kind);
        parameters.push(json!({"name": param.name, "in": "query", "schema": schema}));
    }
    let mut operation = json!({
        "summary": route.about,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": content(route.response)},
            "default": {
                "description": "Refused: docs/ERRORS.md lists the reasons.",
                "content": {"application/problem+json": {"schema": reference("Problem")}},
            },
        },
    });
    if route.body {
        operation["requestBody"] = json!({"content": content(route.request)});
    }
    operation
}

fn place(segment: &str) -> Option<&str> {
    let inner = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(inner.trim_start_matches('*'))
}

fn content(shape: &str) -> Value {
    match shape.strip_prefix(':') {
        Some(kind) => json!({kind: {}}),
        None => json!({"application/json": {"schema": reference(shape)}}),
    }
}

fn reference(message: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{message}")})
}

fn schema_of(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Bytes | Kind::Tokens => json!({"type": "string"}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Flag => json!({"type": "boolean"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_a_route_names_has_a_schema_and_every_reference_leads_to_one() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(schemas.len() > 40);
        let mut left = vec![document];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        let name = to.rsplit('/').next().unwrap();
                        assert!(schemas.contains_key(name), "{to} leads nowhere");
                    }
                    left.extend(fields.values());
                }
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn every_parameter_of_a_route_is_a_field_of_its_message() {
        let schemas = &document()["components"]["schemas"];
        for route in ROUTES.iter().filter(|route| !route.request.is_empty()) {
            for param in route.query {
                let known = &schemas[route.request]["properties"][param.name];
                let own = ["alone", "key", "id"].contains(&param.name);
                assert!(known.is_object() || own, "{} {}", route.path, param.name);
            }
        }
    }
}
