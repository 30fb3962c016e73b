//! Compiled schemas: chains with the same schema share one, and it is compiled once.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::chain::{Hash, HashAlg, Schema, SchemaError};

/// Schemas kept; beyond it all are forgotten and compiled again as they are used. What one takes depends on its
/// patterns: some ten KiB as a rule, up to 8 MiB and a core's share more for the worst that may be banged.
const SCHEMAS_MAX: usize = 256;

/// The compiled schemas in use, by the hash of their bytes.
#[derive(Default)]
pub struct Schemas {
    /// Read by every inject into a chain with a schema, written at a schema's first use.
    compiled: RwLock<HashMap<Hash, Arc<Schema>>>,
}

impl Schemas {
    /// The name of a schema here, whatever the algorithm of its chain.
    pub fn hash(bytes: &[u8]) -> Hash {
        HashAlg::Sha3_256.hash(&[bytes])
    }

    /// The compiled form of a schema; `hash` is that of its bytes.
    pub fn get(&self, hash: Hash, bytes: &[u8]) -> Result<Arc<Schema>, SchemaError> {
        let found = self
            .compiled
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hash)
            .cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let schema = Arc::new(Schema::compile(bytes)?);
        let mut all = self
            .compiled
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SCHEMAS_MAX {
            all.clear();
        }
        all.insert(hash, schema.clone());
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_compiled_once_and_one_that_is_none_is_not_kept() {
        let schemas = Schemas::default();
        let get = |bytes: &[u8]| schemas.get(Schemas::hash(bytes), bytes);
        let first = get(b"{\"type\": \"object\"}").unwrap();
        let again = get(b"{\"type\": \"object\"}").unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &get(b"{}").unwrap()));
        assert!(get(b"{").is_err());
        assert_eq!(schemas.compiled.read().unwrap().len(), 2);
    }

    #[test]
    fn no_more_than_the_limit_are_kept() {
        let schemas = Schemas::default();
        for number in 0..=SCHEMAS_MAX {
            let bytes = format!("{{\"maximum\": {number}}}");
            schemas
                .get(Schemas::hash(bytes.as_bytes()), bytes.as_bytes())
                .unwrap();
        }
        assert_eq!(schemas.compiled.read().unwrap().len(), 1);
    }
}
