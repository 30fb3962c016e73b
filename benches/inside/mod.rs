//! A group as benches of the engine drive it: over the real store, without log and gRPC.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use qbc::{
    chain::{Attributes, Authority, Birth, Constitution, HashAlg, Meta},
    engine::{
        Bang, CommandWriter, Engine, GroupId, InjectHead, InjectItem, Outcome, Seal,
        TemplateRequest,
    },
    store::{ChainNo, Slot, Store, StoreOptions},
};

/// The group.
pub struct Inside {
    pub store: Store,
    pub engine: Engine,
    pub time_ms: u64,
    /// Of the last batch.
    pub bytes: usize,
}

impl Inside {
    /// Over an empty folder.
    pub fn new(folder: &Path, options: StoreOptions) -> Self {
        let store = Store::open(folder, options).unwrap();
        Self {
            engine: Engine::new(GroupId(1), Slot(1), store.clone()),
            store,
            time_ms: 1000,
            bytes: 0,
        }
    }

    /// Applies one command and writes it, without a sync.
    pub fn entry(&mut self, command: &[u8]) -> Outcome {
        self.time_ms += 1;
        let mut writer = CommandWriter::new(self.time_ms, command.len());
        writer.push(command);
        let mut batch = self.store.batch();
        let mut outcomes = self.engine.apply(&writer.finish(), &mut batch).unwrap();
        self.bytes = batch.bytes();
        self.store.write(batch).unwrap();
        self.engine.written();
        outcomes.remove(0)
    }

    pub fn bang(&mut self, name: &str, keyed: bool) -> ChainNo {
        let meta = Meta {
            constitution: Some(constitution(name, keyed).to_bytes()),
            ..Meta::default()
        };
        let command = Bang {
            request_id: b"",
            alg: HashAlg::Sha3_256,
            meta: &meta.to_bytes(),
        };
        match self.entry(&command.encode()) {
            Outcome::Banged(Ok(banged)) => banged.chain,
            other => panic!("{other:?}"),
        }
    }

    /// One inject: payloads, each with its key where there are keys.
    pub fn inject<const N: usize>(&mut self, chain: ChainNo, each: &[([u8; N], Option<Vec<u8>>)]) {
        let attributes = each.iter().map(|(_, key)| Attributes {
            key: key.clone(),
            ..Attributes::default()
        });
        let attributes: Vec<Vec<u8>> = attributes.map(|one| one.to_bytes()).collect();
        let items = each.iter().zip(&attributes);
        let items = items.map(|((payload, _), attributes)| InjectItem {
            kind: 0,
            attributes,
            id: b"",
            salt: None,
            transfer: None,
            payload,
        });
        let head = InjectHead {
            chain,
            request_id: b"",
            expected_next_index: None,
            expected_head: None,
        };
        let outcome = self.entry(&head.encode(items, N * each.len()));
        assert!(matches!(outcome, Outcome::Injected(Ok(_))));
    }

    /// Seals the pool.
    pub fn leap(&mut self, chain: ChainNo) {
        let request = TemplateRequest {
            time_ms: self.time_ms,
            node_id: 1,
            note: b"",
            is_final: false,
        };
        let template = self.engine.template(chain, &request).unwrap().unwrap();
        let seal = Seal {
            chain,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        let outcome = self.entry(&seal.encode());
        assert!(matches!(outcome, Outcome::Sealed(Ok(_))));
    }
}

/// Of a chain of bytes.
pub fn constitution(name: &str, keyed: bool) -> Constitution {
    let birth = Birth {
        name: name.into(),
        created_ms: 1,
        salt: [0; 16],
        authority: Authority {
            threshold: 1,
            roots: vec![[1; 32]],
        },
        cluster_id: [2; 16],
    };
    Constitution {
        keyed,
        ..birth.into()
    }
}
