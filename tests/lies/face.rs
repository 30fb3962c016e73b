//! The services of the proxy: what only reads is answered from the bent ledger, what writes is handed on to the node.
use std::{path::PathBuf, pin::Pin};

use qbc::{
    chain::{ChainId, Receipt},
    proto::{
        self, chain_service_server::ChainService, constitution::Content,
        node_service_client::NodeServiceClient, node_service_server::NodeService,
        proof_service_client::ProofServiceClient, proof_service_server::ProofService,
    },
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{
    ledger::{Ledger, nodes, wire},
    lie::{Lie, rewrite},
    source::Source,
};

pub type Answer<T> = Result<Response<T>, Status>;
pub type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a cut stream holds back, in transactions or frames.
const CUT: usize = 3;
/// What a proxy that denies knows nothing of: the Quants from here to the head.
const DENIED_FROM_HEIGHT: usize = 2;
/// And the transactions from here on.
const DENIED_FROM_INDEX: u64 = 4;

/// The proxy: it lies while the switch is there.
#[derive(Clone)]
pub struct Face {
    pub source: Source,
    pub node: Channel,
    pub proofs: ProofServiceClient<Channel>,
    pub nodes: NodeServiceClient<Channel>,
    pub lie: Lie,
    pub switch: PathBuf,
}

impl Face {
    /// The chain as it is told; none while the truth is told.
    async fn told(&self, name: &str) -> Result<Option<Ledger>, Status> {
        if !self.switch.exists() || self.lie.spares(name) {
            return Ok(None);
        }
        if self.lies(Lie::HiddenChild) {
            return Err(Status::not_found("no such chain"));
        }
        let mut ledger = self.source.fetch(self.lie.source(name)).await?;
        self.lie.bend(&mut ledger);
        if self.lies(Lie::LateChild) && name == "s" {
            let mut child = self.source.fetch("s/0").await?;
            self.lie.bend(&mut child);
            ledger.anchor_instead(&child);
        }
        Ok(Some(ledger))
    }

    fn lies(&self, lie: Lie) -> bool {
        self.lie == lie
    }

    fn head(&self, ledger: &Ledger, height: usize) -> Result<proto::Head, Status> {
        let mut head = ledger.head(height)?;
        if self.lies(Lie::Unsigned) {
            head.signatures.clear();
        }
        Ok(head)
    }

    fn quant(&self, ledger: &Ledger, height: usize) -> Result<proto::Quant, Status> {
        if self.lies(Lie::Denied) && (DENIED_FROM_HEIGHT..ledger.top()).contains(&height) {
            return Err(Status::not_found("no such height"));
        }
        let mut quant = ledger.quant(height)?;
        if self.lies(Lie::AnotherQuant) && height == 1 {
            let mut header = ledger.headers[1].clone();
            header.nonce += 1;
            quant.header = header.to_bytes().to_vec().into();
            quant.quant_hash = header.hash().to_vec().into();
        }
        Ok(quant)
    }

    fn transaction(&self, ledger: &Ledger, index: usize) -> Result<proto::Transaction, Status> {
        let mut given = ledger.transaction(index)?;
        match self.lie {
            Lie::SealedAsPooled => (given.height, given.proven) = (None, false),
            Lie::PooledAsSealed => {
                given.height = given.height.or(Some(ledger.top() as u64));
                given.proven = true;
            }
            _ => {}
        }
        Ok(given)
    }

    fn index(&self, asked: u64) -> Result<usize, Status> {
        if self.lies(Lie::Denied) && asked >= DENIED_FROM_INDEX {
            return Err(Status::not_found("no such transaction"));
        }
        Ok(asked as usize + usize::from(self.lies(Lie::AnotherTransaction)))
    }

    fn height(&self, asked: usize) -> usize {
        asked - usize::from(self.lies(Lie::AnotherHeight))
    }

    /// Signs a receipt over something else.
    async fn spoil(&self, answer: &mut proto::InjectResponse) -> Result<(), Status> {
        if !self.lies(Lie::FalseReceipt) || !self.switch.exists() {
            return Ok(());
        }
        let signer = self.source.fetch("a").await?.signer;
        for given in &mut answer.receipts {
            let receipt = Receipt {
                cluster_id: signer.certificate.cluster_id,
                node_id: given.node_id,
                chain_id: ChainId(given.chain_id.as_ref().try_into().expect("an id")),
                first_index: given.first_index,
                count: given.count,
                root: [7; 32],
                time_s: signer.time_s,
            };
            given.root = receipt.root.to_vec().into();
            given.time_s = receipt.time_s;
            given.signature = Some(wire(&signer.sign(&receipt.message())));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl ChainService for Face {
    type InjectStreamStream = Pieces<proto::InjectStreamResponse>;
    type ReadStream = Pieces<proto::ReadResponse>;
    type ExportStream = Pieces<proto::ExportResponse>;

    async fn fork_chain(
        &self,
        _: Request<proto::ForkChainRequest>,
    ) -> Answer<proto::ForkChainResponse> {
        Err(Status::unimplemented("this node forks nothing"))
    }

    async fn split_chain(
        &self,
        _: Request<proto::SplitChainRequest>,
    ) -> Answer<proto::SplitChainResponse> {
        Err(Status::unimplemented("this node splits nothing"))
    }

    async fn list_history(
        &self,
        _: Request<proto::ListHistoryRequest>,
    ) -> Answer<proto::ListHistoryResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_latest(
        &self,
        _: Request<proto::GetLatestRequest>,
    ) -> Answer<proto::GetLatestResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_balance(
        &self,
        _: Request<proto::GetBalanceRequest>,
    ) -> Answer<proto::GetBalanceResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_head(&self, r: Request<proto::GetHeadRequest>) -> Answer<proto::GetHeadResponse> {
        let Some(ledger) = self.told(&r.get_ref().chain).await? else {
            return self.source.chains.clone().get_head(r.into_inner()).await;
        };
        let head = Some(self.head(&ledger, ledger.top())?);
        Ok(Response::new(proto::GetHeadResponse {
            head,
            pending: None,
        }))
    }

    async fn get_quant(
        &self,
        r: Request<proto::GetQuantRequest>,
    ) -> Answer<proto::GetQuantResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.source.chains.clone().get_quant(r).await;
        };
        let height = r.height as usize;
        let path = match r.at_height {
            Some(at) => nodes(&ledger.history_path(height, at as usize)?),
            None => Vec::new(),
        };
        let quant = Some(self.quant(&ledger, height)?);
        Ok(Response::new(proto::GetQuantResponse {
            head_height: 0,
            quant,
            path,
        }))
    }

    async fn list_quants(
        &self,
        r: Request<proto::ListQuantsRequest>,
    ) -> Answer<proto::ListQuantsResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.source.chains.clone().list_quants(r).await;
        };
        let heights = r.from_height as usize..ledger.headers.len();
        let quants = heights.map(|height| self.quant(&ledger, height));
        Ok(Response::new(proto::ListQuantsResponse {
            head_height: 0,
            quants: quants.collect::<Result<_, _>>()?,
            next_page_token: String::new(),
        }))
    }

    async fn get_transaction(
        &self,
        r: Request<proto::GetTransactionRequest>,
    ) -> Answer<proto::GetTransactionResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.source.chains.clone().get_transaction(r).await;
        };
        let transaction = Some(self.transaction(&ledger, self.index(r.index)?)?);
        Ok(Response::new(proto::GetTransactionResponse {
            head_height: 0,
            transaction,
        }))
    }

    async fn read(&self, r: Request<proto::ReadRequest>) -> Answer<Self::ReadStream> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            let answer = self.source.chains.clone().read(r).await?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        };
        self.index(r.from_index)?;
        let limit = if r.limit == 0 { u64::MAX } else { r.limit };
        let asked = r.from_index.saturating_add(limit);
        let mut end = usize::try_from(asked).unwrap_or(usize::MAX);
        end = end.min(ledger.transactions.len());
        if self.lies(Lie::CutStream) {
            end = end.saturating_sub(CUT);
        }
        let given = (r.from_index as usize..end).map(|index| self.transaction(&ledger, index));
        let pieces: Vec<_> = given
            .map(|given| {
                Ok(proto::ReadResponse {
                    head_height: 0,
                    run: vec![given?].into(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn export(&self, r: Request<proto::ExportRequest>) -> Answer<Self::ExportStream> {
        let r = r.into_inner();
        let Some(mut ledger) = self.told(&r.chain).await? else {
            let answer = self.source.chains.clone().export(r).await?;
            return Ok(Response::new(Box::pin(answer.into_inner())));
        };
        if self.lies(Lie::RewrittenExport) {
            rewrite(&mut ledger);
        }
        let mut frames = ledger.export();
        if self.lies(Lie::CutStream) {
            frames.truncate(frames.len() - CUT);
        }
        let pieces = frames.into_iter().map(|frame| {
            let data = frame.into();
            Ok(proto::ExportResponse { data })
        });
        let pieces: Vec<_> = pieces.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn get_chain(
        &self,
        r: Request<proto::GetChainRequest>,
    ) -> Answer<proto::GetChainResponse> {
        let r = r.into_inner();
        let told = self.told(&r.chain).await?;
        let mut answer = self.source.chains.clone().get_chain(r).await?.into_inner();
        if let (Some(ledger), Some(chain)) = (told, &mut answer.chain) {
            let top = &ledger.headers[ledger.top()];
            chain.chain_id = top.id().0.to_vec().into();
            chain.height = top.height;
            chain.quant_hash = top.hash().to_vec().into();
            chain.transactions = ledger.transactions.len() as u64;
            chain.pool = chain.transactions - top.tx_end();
        }
        Ok(Response::new(answer))
    }

    async fn inject(&self, r: Request<proto::InjectRequest>) -> Answer<proto::InjectResponse> {
        let answer = self.source.chains.clone().inject(r.into_inner()).await?;
        let mut answer = answer.into_inner();
        self.spoil(&mut answer).await?;
        Ok(Response::new(answer))
    }

    async fn inject_stream(
        &self,
        r: Request<Streaming<proto::InjectStreamRequest>>,
    ) -> Answer<Self::InjectStreamStream> {
        let requests = r.into_inner().map_while(Result::ok);
        let answers = self.source.chains.clone().inject_stream(requests).await?;
        let face = self.clone();
        let spoilt = answers.into_inner().then(move |answer| {
            let face = face.clone();
            async move {
                let mut answer = answer?;
                if let Some(inject) = &mut answer.inject {
                    face.spoil(inject).await?;
                }
                Ok(answer)
            }
        });
        Ok(Response::new(Box::pin(spoilt)))
    }

    async fn bang(&self, r: Request<proto::BangRequest>) -> Answer<proto::BangResponse> {
        let mut r = r.into_inner();
        let lying = self.switch.exists();
        if let Some(asked) = &mut r.constitution
            && self.lies(Lie::AlteredBang)
            && lying
        {
            asked.set_content(Content::Bytes);
        }
        let mut answer = self.source.chains.clone().bang(r).await?;
        if self.lies(Lie::FalseBang) && lying {
            let other = self.source.fetch("b").await?;
            answer.get_mut().chain_id = other.id().0.to_vec().into();
            answer.get_mut().genesis = Some(other.quant(0)?);
        }
        Ok(answer)
    }

    async fn batch_bang(
        &self,
        r: Request<proto::BatchBangRequest>,
    ) -> Answer<proto::BatchBangResponse> {
        self.source.chains.clone().batch_bang(r.into_inner()).await
    }

    async fn leap(&self, r: Request<proto::LeapRequest>) -> Answer<proto::LeapResponse> {
        let mut answer = self.source.chains.clone().leap(r.into_inner()).await?;
        if self.lies(Lie::FalseLeap) && self.switch.exists() {
            let mut ledger = self.source.fetch("a").await?;
            rewrite(&mut ledger);
            answer.get_mut().head = Some(ledger.head(ledger.top())?);
        }
        Ok(answer)
    }

    async fn close(&self, r: Request<proto::CloseRequest>) -> Answer<proto::CloseResponse> {
        self.source.chains.clone().close(r.into_inner()).await
    }

    async fn list_chains(
        &self,
        r: Request<proto::ListChainsRequest>,
    ) -> Answer<proto::ListChainsResponse> {
        self.source.chains.clone().list_chains(r.into_inner()).await
    }
}

#[tonic::async_trait]
impl ProofService for Face {
    async fn prove_inclusion(
        &self,
        r: Request<proto::ProveInclusionRequest>,
    ) -> Answer<proto::ProveInclusionResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.proofs.clone().prove_inclusion(r).await;
        };
        let at = r.at_height.map_or(ledger.top(), |at| at as usize);
        let at = self.height(at);
        let mut answer = ledger.inclusion(self.index(r.index)?, at)?;
        answer.head = Some(self.head(&ledger, at)?);
        Ok(Response::new(answer))
    }

    async fn prove_extension(
        &self,
        r: Request<proto::ProveExtensionRequest>,
    ) -> Answer<proto::ProveExtensionResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.proofs.clone().prove_extension(r).await;
        };
        let to = r.to_height.map_or(ledger.top(), |to| to as usize);
        let mut answer = ledger.extension(self.height(r.from_height as usize), to)?;
        answer.head = Some(self.head(&ledger, to)?);
        Ok(Response::new(answer))
    }

    async fn prove_state(
        &self,
        _: Request<proto::ProveStateRequest>,
    ) -> Answer<proto::ProveStateResponse> {
        Err(Status::unimplemented("this node keeps no keys"))
    }

    async fn get_checkpoint(
        &self,
        r: Request<proto::GetCheckpointRequest>,
    ) -> Answer<proto::GetCheckpointResponse> {
        self.proofs.clone().get_checkpoint(r.into_inner()).await
    }

    async fn prove_logged(
        &self,
        r: Request<proto::ProveLoggedRequest>,
    ) -> Answer<proto::ProveLoggedResponse> {
        self.proofs.clone().prove_logged(r.into_inner()).await
    }

    async fn prove_anchor(
        &self,
        r: Request<proto::ProveAnchorRequest>,
    ) -> Answer<proto::ProveAnchorResponse> {
        let r = r.into_inner();
        match self.told(&r.chain).await? {
            Some(ledger) => Ok(Response::new(ledger.newest_anchor(&r.child_id)?)),
            None => self.proofs.clone().prove_anchor(r).await,
        }
    }

    async fn get_bundle(
        &self,
        r: Request<proto::GetBundleRequest>,
    ) -> Answer<proto::GetBundleResponse> {
        let r = r.into_inner();
        let Some(ledger) = self.told(&r.chain).await? else {
            return self.proofs.clone().get_bundle(r).await;
        };
        let mut answer = ledger.bundle()?;
        answer.head = Some(self.head(&ledger, ledger.top())?);
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl NodeService for Face {
    async fn get_server_info(
        &self,
        r: Request<proto::GetServerInfoRequest>,
    ) -> Answer<proto::GetServerInfoResponse> {
        self.nodes.clone().get_server_info(r.into_inner()).await
    }
}
