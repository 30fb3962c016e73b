//! What the node truly says of a chain, and the key that it signs with.
use std::{fs, path::Path};

use qbc::{
    chain::{Certificate, SigningKey},
    proto::{self, chain_service_client::ChainServiceClient},
};
use tonic::{Status, transport::Channel};

use crate::ledger::{Ledger, Signer};

/// A node's chains, with the node's own key.
#[derive(Clone)]
pub struct Source {
    pub chains: ChainServiceClient<Channel>,
    pub key: [u8; 32],
}

impl Source {
    pub async fn fetch(&self, name: &str) -> Result<Ledger, Status> {
        let chain = name.to_owned();
        let mut chains = self.chains.clone();
        let head = chains
            .get_head(proto::GetHeadRequest {
                any_replica: false,
                chain,
            })
            .await?;
        let head = head.into_inner().head.expect("the node gives a head");
        let signed = &head.signatures[0];
        let signer = Signer {
            key: SigningKey::from_seed(self.key),
            certificate: Certificate::parse(&signed.certificate).expect("the node is certified"),
            time_s: signed.time_s,
        };
        let quants = self.quants(name).await?;
        let transactions = self.transactions(name).await?;
        Ok(Ledger::new(&quants, transactions, signer))
    }

    async fn quants(&self, name: &str) -> Result<Vec<proto::Quant>, Status> {
        let request = proto::ListQuantsRequest {
            chain: name.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let answer = self.chains.clone().list_quants(request).await?.into_inner();
        assert!(answer.next_page_token.is_empty(), "the chain is too long");
        Ok(answer.quants)
    }

    async fn transactions(&self, name: &str) -> Result<Vec<proto::Transaction>, Status> {
        let request = proto::ReadRequest {
            chain: name.to_owned(),
            ..Default::default()
        };
        let mut pieces = self.chains.clone().read(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(piece) = pieces.message().await? {
            all.extend(piece.run.transactions().expect("the node is honest here"));
        }
        Ok(all)
    }
}

/// The seed of the key that the node of this data folder signs with.
pub fn node_key(data: &Path) -> [u8; 32] {
    let text = fs::read_to_string(data.join("keys/node.key")).expect("the node has a key");
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key).expect("the key is 64 hex digits");
    key
}
