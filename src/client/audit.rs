//! The full audit: every Quant and transaction of a chain, fetched through the API and recomputed here.
use bytes::Bytes;
use tonic::Streaming;

use crate::{
    chain::{AnchorBook, Auditor, ChainId, Hash, Header, Meta},
    client::{
        Client, ClientError, ReceiptCheck, Trusted, contact::equivocation, convert, erase,
        whole::check_reached,
    },
    proto,
};

/// Quants asked for at once; a page may be shorter.
const PAGE_QUANTS: u32 = 500;

/// What an audit found.
#[derive(Clone, Debug)]
pub struct AuditReport {
    /// Quants recomputed, Quant 0 included.
    pub quants: u64,
    /// Transactions recomputed.
    pub transactions: u64,
    /// Of these, how many are signed; each signature was checked.
    pub signed: u64,
    /// Of these, how many changed the constitution, each by one of its admins.
    pub changes: u64,
    /// Of these, how many are erased, each by a tombstone that one of its admins signed.
    pub erased: u64,
    /// Where it is split: the Quant that split it, and the ids of its subchains.
    pub route: Option<(Hash, Vec<ChainId>)>,
    /// Of a subchain of which something is sealed: the Quant of its parent by which it begins.
    pub begins: Option<Hash>,
    /// The heads of its subchains that it has anchored.
    pub anchored: Option<AnchorBook>,
    /// Kept receipts held against the chain.
    pub receipts: ReceiptCheck,
    /// One sentence per thing that was checked, or that was left out.
    pub steps: Vec<String>,
}

/// A transaction on its way through an audit: not proved before the audit ends well.
#[derive(Clone, Copy, Debug)]
pub struct AuditedTransaction<'a> {
    /// Its index.
    pub index: u64,
    /// The Quant that seals it.
    pub height: u64,
    /// Its content.
    pub payload: &'a Bytes,
}

/// Transactions one by one from a stream of pages.
struct Transactions<'a> {
    client: &'a Client,
    stream: Option<Streaming<proto::ReadResponse>>,
    page: std::vec::IntoIter<proto::Transaction>,
}

impl Client {
    /// Recomputes the chain up to the trusted head, shows every transaction to `visit`, and checks kept receipts.
    pub async fn audit(
        &self,
        trusted: &Trusted,
        mut visit: impl FnMut(AuditedTransaction<'_>),
    ) -> Result<AuditReport, ClientError> {
        let mut auditor = Auditor::new();
        let mut transactions = self.all_transactions(trusted).await?;
        let (mut height, mut route) = (0, None);
        while height <= trusted.header.height {
            for quant in self.quants_from(trusted, height).await? {
                if height > trusted.header.height {
                    break;
                }
                let header = check_quant(&mut auditor, &quant, height)?;
                let split = Meta::parse(&quant.meta)?.route;
                route = split.map(|ids| (header.hash(), ids)).or(route);
                transactions
                    .audit(trusted, &header, &mut auditor, &mut visit)
                    .await?;
                auditor.finish_quant()?;
                check_top(trusted, &header)?;
                height += 1;
            }
        }
        let audited = auditor.finish()?;
        Ok(AuditReport {
            signed: audited.signed,
            changes: audited.changes,
            erased: audited.erased,
            anchored: audited.anchored,
            begins: audited.begins,
            quants: height,
            route,
            transactions: trusted.sealed(),
            receipts: self.check_receipts(trusted).await?,
            steps: audited.steps,
        })
    }

    /// Checks that a subchain begins with the Quant that split its parent, and that the head which that has anchored is the
    /// subchain's own: the newest head then extends it.
    pub async fn check_below(
        &self,
        trusted: &Trusted,
        (split, anchored): (&Hash, Option<(u64, Hash)>),
        report: &AuditReport,
    ) -> Result<(), ClientError> {
        if let Some(other) = report.begins.filter(|begins| begins != split) {
            let why = format!(
                "subchain {} begins with Quant {}, its parent was split by {}",
                trusted.chain_id,
                hex::encode(other),
                hex::encode(split)
            );
            return Err(ClientError::refused("whole-claim", why));
        }
        match anchored {
            Some(anchored) => self.check_anchor(trusted, anchored).await,
            None => Ok(()),
        }
    }

    /// Checks that the head which a parent has anchored is the chain's own.
    pub async fn check_anchor(
        &self,
        trusted: &Trusted,
        (height, hash): (u64, Hash),
    ) -> Result<(), ClientError> {
        check_reached(trusted, height)?;
        let (own, _) = self.quant(trusted, height).await?;
        if own.hash() == hash {
            return Ok(());
        }
        let why = format!(
            "the parent of chain {} has anchored {} as its height {height}, which is {}: two histories, keep both as evidence",
            trusted.chain_id,
            hex::encode(hash),
            hex::encode(own.hash())
        );
        Err(ClientError::refused("head-equivocation", why))
    }

    async fn all_transactions(&self, trusted: &Trusted) -> Result<Transactions<'_>, ClientError> {
        let stream = match trusted.sealed() {
            0 => None,
            sealed => Some(self.sealed_stream(trusted, 0, sealed).await?),
        };
        Ok(Transactions {
            client: self,
            stream,
            page: Vec::new().into_iter(),
        })
    }

    async fn quants_from(
        &self,
        trusted: &Trusted,
        height: u64,
    ) -> Result<Vec<proto::Quant>, ClientError> {
        let request = proto::ListQuantsRequest {
            any_replica: false,
            chain: trusted.name().to_owned(),
            from_height: height,
            page_size: PAGE_QUANTS,
            page_token: String::new(),
        };
        let list = |r| async { self.chains.clone().list_quants(r).await };
        let quants = self.call(request, list).await?.quants;
        if quants.is_empty() {
            let why = format!(
                "the trusted head is at height {}, the node's list of Quants ends before {height}",
                trusted.header.height
            );
            return Err(ClientError::refused("head-went-back", why));
        }
        Ok(quants)
    }
}

impl Transactions<'_> {
    /// Feeds the transactions of one Quant.
    async fn audit(
        &mut self,
        trusted: &Trusted,
        header: &Header,
        auditor: &mut Auditor,
        visit: &mut impl FnMut(AuditedTransaction<'_>),
    ) -> Result<(), ClientError> {
        for index in header.tx_start..header.tx_end() {
            let given = self.next(index).await?;
            let envelope = convert::envelope(trusted.alg(), trusted.owner_of(index).0, &given)?;
            let (bytes, attributes) = (envelope.to_bytes(), &given.attributes);
            match &given.erasure {
                None => {
                    let salt = convert::salt(&given)?;
                    auditor.transaction(&bytes, attributes, Some(&given.payload), salt.as_ref())?;
                }
                Some(erasure) => {
                    erase::check(trusted, index, &bytes, erasure)?;
                    auditor.transaction(&bytes, attributes, None, None)?;
                }
            }
            visit(AuditedTransaction {
                index,
                height: header.height,
                payload: &given.payload,
            });
        }
        Ok(())
    }

    async fn next(&mut self, index: u64) -> Result<proto::Transaction, ClientError> {
        loop {
            if let Some(given) = self.page.next() {
                if given.index == index {
                    return Ok(given);
                }
                let why = format!("transaction {index} should follow, {} came", given.index);
                return Err(ClientError::refused("read-gap", why));
            }
            let page = match &mut self.stream {
                Some(stream) => self.client.in_time(stream.message()).await?,
                None => None,
            };
            let Some(page) = page else {
                let why = format!("the node's transactions end before {index}, which is sealed");
                return Err(ClientError::refused("read-gap", why));
            };
            self.page = convert::transactions(page.run)?.into_iter();
        }
    }
}

fn check_quant(
    auditor: &mut Auditor,
    quant: &proto::Quant,
    height: u64,
) -> Result<Header, ClientError> {
    let header = Header::parse(&quant.header)?;
    if header.height != height {
        let why = format!("Quant {height} should follow, {} came", header.height);
        return Err(ClientError::refused("read-gap", why));
    }
    auditor.quant(&quant.header, &quant.meta)?;
    if header.anchor_count > 0 {
        auditor.anchors(&quant.anchors)?;
    }
    Ok(header)
}

/// What was recomputed is what is trusted.
fn check_top(trusted: &Trusted, header: &Header) -> Result<(), ClientError> {
    if header.height != trusted.header.height || header.hash() == trusted.hash {
        return Ok(());
    }
    Err(equivocation(trusted, header).into())
}
