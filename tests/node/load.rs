//! Clients that write, and the book of all that a node acknowledged to them: what must stand after any fault.
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use qbc::proto::{
    BangRequest, Constitution, GetChainRequest, GetHeadRequest, GetQuantRequest, Head,
    InjectRequest, InjectResponse, InjectStreamRequest, LeapRequest, ReadRequest, Transaction,
    TransactionInput, chain_service_client::ChainServiceClient, constitution::Content,
};
use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::chance::Chance;

pub type Client = ChainServiceClient<Channel>;

const CALL_MAX: Duration = Duration::from_secs(30);
const CHECK_MAX: Duration = Duration::from_secs(120);
/// Messages that a streaming client has on the way at once.
const STREAM_WINDOW: usize = 8;

/// A client of the raw API.
pub async fn connect(url: &str) -> Client {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .expect("the node prints a url")
        .timeout(CALL_MAX);
    ChainServiceClient::new(
        endpoint
            .connect()
            .await
            .expect("the node accepts connections"),
    )
}

/// A chain that takes any bytes and seals on demand.
pub async fn bang(client: &mut Client, name: &str) {
    let constitution = Constitution {
        content: Content::Bytes.into(),
        ..Constitution::default()
    };
    let request = BangRequest {
        name: name.to_owned(),
        constitution: Some(constitution),
        request_id: format!("bang {name}"),
    };
    client.bang(request).await.expect("the chain is new");
}

/// One transaction with a client id, alone in its request.
pub fn single(chain: &str, id: &str, payload: Vec<u8>) -> InjectRequest {
    let item = TransactionInput {
        payload: payload.into(),
        id: Bytes::from(id.to_owned()),
        ..TransactionInput::default()
    };
    InjectRequest {
        chain: chain.to_owned(),
        transactions: vec![item],
        ..InjectRequest::default()
    }
}

/// What clients sent, what they were told, and what has to be true because of it.
#[derive(Default)]
pub struct Book {
    chains: BTreeMap<String, Page>,
    unanswered: BTreeMap<u64, InjectRequest>,
    requests: u64,
    /// From now on an error is the fault's doing, not the node's.
    faulty: bool,
}

/// The book of one chain.
#[derive(Default)]
struct Page {
    /// Payloads by client id, answered or not.
    sent: HashMap<Bytes, Bytes>,
    acknowledged: BTreeMap<u64, Bytes>,
    index_of: HashMap<Bytes, u64>,
    /// Hashes of the Quants that leaps answered with.
    sealed: BTreeMap<u64, Bytes>,
    /// Everything below was read back after an earlier fault.
    checked: u64,
}

/// How much a check reads back.
#[derive(Clone, Copy, PartialEq)]
pub enum Extent {
    SinceLastCheck,
    Everything,
}

/// A book that several clients write in.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Book>>);

impl Shared {
    /// Bangs these chains and opens a page for each.
    pub async fn open(&self, url: &str, chains: &[&str]) {
        let mut client = connect(url).await;
        for name in chains {
            bang(&mut client, name).await;
            self.book()
                .chains
                .insert((*name).to_owned(), Page::default());
        }
    }

    /// Errors are expected from now on.
    pub fn expect_faults(&self, expected: bool) {
        self.book().faulty = expected;
    }

    /// How many transactions were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.book()
            .chains
            .values()
            .map(|page| page.acknowledged.len())
            .sum()
    }

    /// How many leaps were answered.
    pub fn sealed(&self) -> usize {
        self.book()
            .chains
            .values()
            .map(|page| page.sealed.len())
            .sum()
    }

    pub fn names(&self) -> Vec<String> {
        self.book().chains.keys().cloned().collect()
    }

    /// Sends a request and enters the answer.
    pub async fn inject(&self, client: &mut Client, request: InjectRequest) -> Result<(), Status> {
        let number = self.sending(&request);
        let response = client.inject(request).await?.into_inner();
        self.answered(number, &response);
        Ok(())
    }

    /// Seals a chain and enters the answer; false if there was nothing to seal.
    pub async fn leap(&self, client: &mut Client, chain: &str) -> Result<bool, Status> {
        let request = LeapRequest {
            chain: chain.to_owned(),
            ..LeapRequest::default()
        };
        match client.leap(request).await {
            Ok(response) => self.book().leaped(
                chain,
                &response
                    .into_inner()
                    .head
                    .expect("a leap answers with a head"),
            ),
            Err(status) if status.code() == Code::FailedPrecondition => return Ok(false),
            Err(status) => return Err(status),
        }
        Ok(true)
    }

    /// The check after a restart: all acknowledged stands; then the unanswered requests are sent again, and each chain holds
    /// exactly what was acknowledged, once.
    pub async fn recovered(&self, url: &str, extent: Extent) {
        self.expect_faults(false);
        self.stands(url, extent)
            .await
            .expect("all that was acknowledged stands");
        self.send_again(url).await;
        self.counts(url).await.expect("nothing stands twice");
        self.stands(url, Extent::SinceLastCheck)
            .await
            .expect("all that was sent again stands");
    }

    /// Whether all that was acknowledged stands with its bytes at its index, and all answered Quants with their hashes; the
    /// first difference, if not.
    pub async fn stands(&self, url: &str, extent: Extent) -> Result<(), String> {
        time::timeout(CHECK_MAX, self.check(url, extent))
            .await
            .map_err(|_| format!("no answer within {CHECK_MAX:?}"))?
    }

    /// Enters a request that is about to be sent; the number is for its answer.
    pub fn sending(&self, request: &InjectRequest) -> u64 {
        self.book().sending(request)
    }

    pub fn answered(&self, number: u64, response: &InjectResponse) {
        self.book().answered(number, response);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("a client that panics ends its test")
    }

    async fn check(&self, url: &str, extent: Extent) -> Result<(), String> {
        let mut client = connect(url).await;
        for name in self.names() {
            let from = if extent == Extent::Everything {
                0
            } else {
                self.book().page(&name).checked
            };
            let found = read(&mut client, &name, from)
                .await
                .map_err(|status| format!("read of {name}: {status}"))?;
            let heights = self
                .book()
                .page(&name)
                .check_transactions(from, &found, extent)?;
            for (height, hash) in heights {
                check_quant(&mut client, &name, height, &hash).await?;
            }
        }
        Ok(())
    }

    async fn send_again(&self, url: &str) {
        let mut client = connect(url).await;
        let requests = std::mem::take(&mut self.book().unanswered);
        for request in requests.into_values() {
            self.inject(&mut client, request)
                .await
                .expect("a request can be sent again");
        }
    }

    async fn counts(&self, url: &str) -> Result<(), String> {
        let mut client = connect(url).await;
        for name in self.names() {
            let request = GetChainRequest {
                any_replica: false,
                chain: name.clone(),
            };
            let chain = client
                .get_chain(request)
                .await
                .map_err(|status| format!("chain {name}: {status}"))?
                .into_inner();
            let found = chain.chain.map_or(0, |chain| chain.transactions);
            let expected = self.book().page(&name).acknowledged.len() as u64;
            if found != expected {
                return Err(format!(
                    "{name} holds {found} transactions, {expected} were acknowledged"
                ));
            }
        }
        Ok(())
    }
}

impl Book {
    fn page(&mut self, chain: &str) -> &mut Page {
        self.chains.get_mut(chain).expect("the chain was opened")
    }

    fn sending(&mut self, request: &InjectRequest) -> u64 {
        let page = self.page(&request.chain);
        for item in &request.transactions {
            page.sent.insert(item.id.clone(), item.payload.clone());
        }
        self.requests += 1;
        self.unanswered.insert(self.requests, request.clone());
        self.requests
    }

    fn answered(&mut self, number: u64, response: &InjectResponse) {
        let request = self
            .unanswered
            .remove(&number)
            .expect("each request is answered once");
        let indexes = response
            .runs
            .iter()
            .flat_map(|run| run.first_index..run.first_index + u64::from(run.count));
        let indexes: Vec<u64> = indexes.collect();
        assert_eq!(
            indexes.len(),
            request.transactions.len(),
            "the runs add up to the request"
        );
        let page = self.page(&request.chain);
        for (index, item) in indexes.into_iter().zip(&request.transactions) {
            page.acknowledge(index, &item.id);
        }
    }

    fn leaped(&mut self, chain: &str, head: &Head) {
        assert!(
            !head.signatures.is_empty(),
            "a leap answers with a signed head"
        );
        let quant = head.quant.as_ref().expect("a head has a quant");
        let earlier = self
            .page(chain)
            .sealed
            .insert(quant.height, quant.quant_hash.clone());
        assert!(
            earlier.is_none_or(|hash| hash == quant.quant_hash),
            "{chain}: two Quants at height {}",
            quant.height
        );
    }
}

impl Page {
    fn acknowledge(&mut self, index: u64, id: &Bytes) {
        let before = self.acknowledged.insert(index, id.clone());
        assert!(
            before.as_ref().is_none_or(|other| other == id),
            "two ids were acknowledged at index {index}"
        );
        let before = self.index_of.insert(id.clone(), index);
        assert!(
            before.is_none_or(|other| other == index),
            "an id was acknowledged at two indexes, one is {index}"
        );
    }

    /// Compares what was read from index `from` on; gives the Quants that are still to be compared.
    fn check_transactions(
        &mut self,
        from: u64,
        found: &[Transaction],
        extent: Extent,
    ) -> Result<Vec<(u64, Bytes)>, String> {
        for (offset, transaction) in found.iter().enumerate() {
            self.check_transaction(from + offset as u64, transaction)?;
        }
        let end = from + found.len() as u64;
        match self.acknowledged.last_key_value() {
            Some((&last, _)) if last >= end => {
                return Err(format!(
                    "index {last} was acknowledged, the chain ends at {end}"
                ));
            }
            _ => self.checked = self.acknowledged.len() as u64,
        }
        let skipped = if extent == Extent::Everything {
            0
        } else {
            self.sealed.len().saturating_sub(3)
        };
        Ok(self
            .sealed
            .iter()
            .skip(skipped)
            .map(|(height, hash)| (*height, hash.clone()))
            .collect())
    }

    fn check_transaction(&self, index: u64, found: &Transaction) -> Result<(), String> {
        let id = String::from_utf8_lossy(&found.id).into_owned();
        if found.index != index {
            return Err(format!(
                "index {} was read where {index} was due",
                found.index
            ));
        }
        if self.sent.get(&found.id) != Some(&found.payload) {
            return Err(format!(
                "index {index}: nobody sent these bytes with the id {id:?}"
            ));
        }
        if self
            .acknowledged
            .get(&index)
            .is_some_and(|known| known != &found.id)
        {
            return Err(format!(
                "index {index} was acknowledged to another id than {id:?}"
            ));
        }
        match self.index_of.get(&found.id) {
            Some(&known) if known != index => Err(format!(
                "{id:?} was acknowledged at {known} and stands at {index}"
            )),
            _ => Ok(()),
        }
    }
}

async fn read(
    client: &mut Client,
    chain: &str,
    from_index: u64,
) -> Result<Vec<Transaction>, Status> {
    let request = ReadRequest {
        any_replica: false,
        follow: false,
        chain: chain.to_owned(),
        from_index,
        limit: 0,
    };
    let mut stream = match client.read(request).await {
        Ok(stream) => stream.into_inner(),
        // At the end of the chain there is nothing to read.
        Err(status) if status.code() == Code::OutOfRange => return Ok(Vec::new()),
        Err(status) => return Err(status),
    };
    let mut found = Vec::new();
    while let Some(response) = stream.message().await? {
        found.extend(response.run.transactions().expect("a run that can be read"));
    }
    Ok(found)
}

async fn check_quant(
    client: &mut Client,
    chain: &str,
    height: u64,
    hash: &Bytes,
) -> Result<(), String> {
    let request = GetQuantRequest {
        any_replica: false,
        chain: chain.to_owned(),
        height,
        at_height: None,
    };
    let quant = client
        .get_quant(request)
        .await
        .map_err(|status| format!("{chain} Quant {height}: {status}"))?;
    if quant
        .into_inner()
        .quant
        .map(|quant| quant.quant_hash)
        .as_ref()
        != Some(hash)
    {
        return Err(format!(
            "{chain}: Quant {height} is not the one that was answered"
        ));
    }
    let request = GetHeadRequest {
        any_replica: false,
        chain: chain.to_owned(),
    };
    let head = client
        .get_head(request)
        .await
        .map_err(|status| format!("{chain} head: {status}"))?
        .into_inner();
    let head = head.head.ok_or("an empty head")?;
    match head.quant {
        Some(quant) if quant.height >= height && !head.signatures.is_empty() => Ok(()),
        _ => Err(format!(
            "{chain}: the head is below Quant {height} or not signed"
        )),
    }
}

/// Several clients at work until the node fails them.
pub struct Load {
    clients: JoinSet<()>,
}

impl Load {
    /// Starts them: on each of the chains one that sends singles, one that sends batches or a stream, and one that leaps.
    pub fn start(url: &str, book: &Shared, round: u64, chance: &mut Chance) -> Self {
        let mut clients = JoinSet::new();
        for (at, chain) in book.names().into_iter().enumerate() {
            let mut worker = |role: &str| Worker {
                url: url.to_owned(),
                book: book.clone(),
                chain: chain.clone(),
                label: format!("{round}.{at}{role}"),
                sent: 0,
                chance: chance.split(),
            };
            clients.spawn(worker("s").singles());
            match at % 2 {
                0 => clients.spawn(worker("b").batches()),
                _ => clients.spawn(worker("t").stream()),
            };
            if at < 2 {
                clients.spawn(worker("l").leaps());
            }
        }
        Self { clients }
    }

    /// Waits until every client has met the fault; panics with the first client that panicked.
    pub async fn ended(mut self) {
        while let Some(end) = time::timeout(CALL_MAX * 2, self.clients.join_next())
            .await
            .expect("clients end")
        {
            end.expect("no client finds the node at fault");
        }
    }
}

/// One client of a load.
struct Worker {
    url: String,
    book: Shared,
    chain: String,
    label: String,
    sent: u64,
    chance: Chance,
}

impl Worker {
    async fn singles(mut self) {
        let Some(mut client) = self.connect().await else {
            return;
        };
        loop {
            let request = InjectRequest {
                request_id: String::new(),
                ..self.request(1)
            };
            if let Err(status) = self.book.inject(&mut client, request).await {
                return self.failed(&status);
            }
        }
    }

    async fn batches(mut self) {
        let Some(mut client) = self.connect().await else {
            return;
        };
        loop {
            let count = self.chance.within(2..30);
            let request = self.request(count);
            if let Err(status) = self.book.inject(&mut client, request).await {
                return self.failed(&status);
            }
        }
    }

    async fn leaps(mut self) {
        let Some(mut client) = self.connect().await else {
            return;
        };
        loop {
            time::sleep(Duration::from_millis(self.chance.within(1..40))).await;
            if let Err(status) = self.book.leap(&mut client, &self.chain).await {
                return self.failed(&status);
            }
        }
    }

    async fn stream(mut self) {
        let Some(mut client) = self.connect().await else {
            return;
        };
        let (sender, receiver) = mpsc::channel(STREAM_WINDOW);
        let mut waiting = VecDeque::new();
        self.fill(&sender, &mut waiting);
        let mut answers = match client.inject_stream(ReceiverStream::new(receiver)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.failed(&status),
        };
        loop {
            let response = match answers.message().await {
                Ok(Some(response)) => response.inject.expect("an answer holds a response"),
                Ok(None) => return self.failed(&Status::unavailable("the stream ended")),
                Err(status) => return self.failed(&status),
            };
            let number = waiting.pop_front().expect("no answer without a request");
            self.book.answered(number, &response);
            self.fill(&sender, &mut waiting);
        }
    }

    fn fill(&mut self, sender: &mpsc::Sender<InjectStreamRequest>, waiting: &mut VecDeque<u64>) {
        while waiting.len() < STREAM_WINDOW {
            let Ok(permit) = sender.try_reserve() else {
                return;
            };
            let count = self.chance.within(1..5);
            let request = self.request(count);
            waiting.push_back(self.book.sending(&request));
            permit.send(InjectStreamRequest {
                inject: Some(request),
            });
        }
    }

    /// `None`: the node was gone before it could be reached.
    async fn connect(&self) -> Option<Client> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .expect("the node prints a url")
            .timeout(CALL_MAX);
        match endpoint.connect().await {
            Ok(channel) => Some(ChainServiceClient::new(channel)),
            Err(error) => {
                self.failed(&Status::unavailable(error.to_string()));
                None
            }
        }
    }

    fn request(&mut self, count: u64) -> InjectRequest {
        let transactions: Vec<_> = (0..count).map(|_| self.item()).collect();
        let request_id = format!("{} {}", self.label, self.sent);
        InjectRequest {
            chain: self.chain.clone(),
            transactions,
            request_id,
            ..InjectRequest::default()
        }
    }

    fn item(&mut self) -> TransactionInput {
        self.sent += 1;
        let id = format!("{}-{}", self.label, self.sent);
        let length = self.chance.within(0..300) as usize;
        let payload = [id.as_bytes(), b" ", &self.chance.bytes(length)].concat();
        TransactionInput {
            payload: payload.into(),
            id: id.into(),
            ..TransactionInput::default()
        }
    }

    fn failed(&self, status: &Status) {
        assert!(
            self.book.book().faulty,
            "{}: failed while nothing was wrong: {status}",
            self.label
        );
    }
}
