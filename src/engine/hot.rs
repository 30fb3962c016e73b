//! The chains in use: their rows decoded, the leaf hashes of their pools. Everything here can be dropped and read again.
//!
//! Owned by the engine's lock. A chain is checked when it is loaded: its head must be the stored Quant, its peaks must
//! give the head's history root, its pool must be whole.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    amend::{self, Amended, Law, Place},
    anchor,
    outcome::Rejection,
    pool::PoolParts,
    split,
    state::StateRules,
};
use crate::chain::{
    AnchorBook, ChainId, Constitution, Frontier, Hash, HashAlg, Header, Meta, Systems,
};
use crate::store::{
    Cf, ChainNo, ChainRow, HistoryReader, Lineage, PoolRow, QuantRow, Slot, SplitRow, StoreError,
    SubchainRow, TILE_HASHES, View, chain_key, pool_key, quant_key,
};

/// Chains kept by all groups of a node, some 2 KiB each.
const HOT_CHAINS_MAX: usize = 16_384;
/// A group keeps as many in any case.
const HOT_CHAINS_MIN: usize = 128;
/// Bytes kept of pools by all groups of a node: the leaf hashes of a pool of a million, and some.
const HOT_POOL_BYTES_MAX: usize = 40 << 20;
/// Of them those of small pools, which a leap reads again within milliseconds; a leap of a large one would wait for it.
const HOT_SMALL_POOLS_BYTES_MAX: usize = 16 << 20;
/// A group keeps as many in any case, of pools of either size.
const HOT_POOL_BYTES_MIN: usize = 512 << 10;
/// A pool that takes no more is small: some thousands of leaf hashes.
const SMALL_POOL_BYTES: usize = 256 << 10;

/// A chain weighs as much as so many leaf hashes.
const CHAIN_IN_LEAVES: usize = 64;
/// What is kept is counted when so many leaf hashes came, or 4 for each chain that is looked at to count them. Until then it
/// may grow, in each group.
const COUNTED_EVERY: usize = 4 << 10;

/// What all groups of this process keep. It bounds memory and decides nothing.
static ALL_KEPT: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// What is kept: chains, bytes of their pools, and of these those of small ones.
type Kept = [usize; 3];

/// What the constitution asks of the engine.
#[allow(clippy::struct_field_names)] // the names of the constitution
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SealRules {
    pub leap_count: Option<u32>,
    pub leap_bytes: Option<u64>,
    pub leap_ms: Option<u64>,
}

/// A chain, as the newest applied command left it.
#[derive(Debug)]
pub(super) struct HotChain {
    pub no: ChainNo,
    pub chain_id: ChainId,
    /// Of a fork: whose rows it shares.
    pub lineage: Lineage,
    pub name: String,
    pub alg: HashAlg,
    pub head: Header,
    pub head_hash: Hash,
    /// Over the heights below the head's.
    pub history: Frontier,
    pub pool: PoolRow,
    /// When the constitution in force seals by itself.
    pub rules: SealRules,
    /// Whom the constitution in force lets write.
    pub law: Arc<Law>,
    /// None while the genesis's constitution is in force.
    pub amended: Option<Arc<Amended>>,
    /// What is kept per key and account; fixed at the bang.
    pub keeps: StateRules,
    /// Payloads of data can be erased; fixed at the bang.
    pub erasable: bool,
    /// What the next Quant must show, and how many nodes must sign it.
    pub systems: Systems,
    /// How far it is split; none of most chains.
    pub split: Option<Arc<SplitRow>>,
    /// What it has anchored, once it is split.
    pub anchors: Option<Arc<AnchorBook>>,
    /// What it has as a subchain; none of most chains.
    pub sub: Option<Arc<SubchainRow>>,
    /// Of a fork of a subchain that keeps a state: what that one has.
    pub parted: Option<Arc<SubchainRow>>,
    /// The part of the pool's tree that came since the chain was loaded.
    pub recent: PoolParts,
    /// Payload bytes in all Quants of its own.
    pub sealed_bytes: u64,
    /// Per tile level, the history hashes beyond the last full tile; `None` = read them when needed.
    pub edges: Option<Vec<Vec<Hash>>>,
    used: u64,
}

impl HotChain {
    /// A chain that was just banged.
    pub fn new(no: ChainNo, head: Header, constitution: &Constitution) -> Self {
        let head_hash = head.hash();
        let pool = PoolRow {
            last_inject_ms: constitution.created_ms,
            ..PoolRow::default()
        };
        Self {
            no,
            chain_id: ChainId(head_hash),
            lineage: Lineage::new(no, ChainId(head_hash), Vec::new()),
            name: constitution.name.clone(),
            alg: head.hash_alg,
            systems: Systems::begin(constitution, &head),
            head,
            head_hash,
            history: Frontier::new(),
            pool,
            rules: rules_of(constitution),
            law: Arc::new(Law::of(constitution)),
            amended: None,
            keeps: StateRules::of(constitution),
            erasable: constitution.erasable,
            split: None,
            anchors: None,
            sub: None,
            parted: None,
            recent: PoolParts::default(),
            sealed_bytes: 0,
            edges: Some(vec![vec![head_hash]]),
            used: 0,
        }
    }

    /// A fork that just began: what it shares with its ancestors is theirs.
    pub fn forked(
        lineage: Lineage,
        head: Header,
        constitution: &Constitution,
        (history, edges): (Frontier, Vec<Vec<Hash>>),
    ) -> Self {
        let pool = PoolRow {
            next_index: head.tx_start,
            last_inject_ms: head.time_ms,
            ..PoolRow::default()
        };
        Self {
            history,
            pool,
            edges: Some(edges),
            ..Self::new(lineage.no, head, constitution)
        }
        .of(lineage)
    }

    fn of(self, lineage: Lineage) -> Self {
        Self { lineage, ..self }
    }

    /// The first part of the pool that lies in memory.
    pub fn recent_from(&self) -> u64 {
        self.recent
            .parts
            .first()
            .map_or(self.pool.next_index, |part| part.first)
    }

    /// Payload bytes in the pool.
    pub fn pooled_bytes(&self) -> u64 {
        self.pool.bytes - self.sealed_bytes
    }

    /// A copy that is cheap: without the hashes of its pool.
    pub fn without_pool(&self) -> Self {
        Self {
            lineage: self.lineage.clone(),
            name: self.name.clone(),
            head: self.head.clone(),
            history: self.history.clone(),
            law: self.law.clone(),
            amended: self.amended.clone(),
            keeps: self.keeps.clone(),
            systems: self.systems.clone(),
            split: self.split.clone(),
            anchors: self.anchors.clone(),
            sub: self.sub.clone(),
            parted: self.parted.clone(),
            recent: PoolParts::default(),
            edges: None,
            ..*self
        }
    }

    /// The Quant that seals the last change of the constitution; 0: none does.
    pub fn amended_height(&self) -> u64 {
        let sealed_at = self.amended.as_ref().and_then(|amended| amended.sealed_at);
        sealed_at.map_or(0, |(height, _)| height)
    }

    /// What it takes keys and accounts over from: of a subchain that keeps a state, and of its forks.
    pub fn heir(&self) -> Option<&Arc<SubchainRow>> {
        let row = self.sub.as_ref().or(self.parted.as_ref());
        row.filter(|_| self.keeps.any())
    }

    /// Another constitution is in force from now on.
    pub fn obey(&mut self, constitution: &Constitution) {
        self.rules = rules_of(constitution);
        self.law = Arc::new(Law::of(constitution));
    }

    /// Transactions in the pool.
    pub fn pooled(&self) -> u64 {
        self.pool.next_index - self.head.tx_end()
    }

    pub fn damaged(&self, why: impl Into<String>) -> Rejection {
        Rejection::Damaged {
            chain: self.name.clone(),
            why: why.into(),
        }
    }
}

/// The chains in use. How many there are is bounded over all groups of the process.
#[derive(Default)]
pub(super) struct HotChains {
    /// Boxed: a map keeps up to twice as many places as it has chains.
    chains: HashMap<ChainNo, Box<HotChain>>,
    clock: u64,
    /// What `ALL_KEPT` knows of.
    told: Kept,
    /// Leaf hashes, and chains by their weight, that came since.
    uncounted: usize,
}

impl Drop for HotChains {
    fn drop(&mut self) {
        self.tell(Kept::default());
    }
}

/// The pools of the chains in use, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// Chains whose pool is not empty.
    pub chains: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// When the oldest of them came, Unix milliseconds.
    pub first_ms: Option<u64>,
}

impl HotChains {
    /// All pools together.
    pub fn pools(&self) -> Pools {
        let mut all = Pools::default();
        for chain in self.chains.values().filter(|chain| chain.pooled() > 0) {
            all.chains += 1;
            all.transactions += chain.pooled();
            all.bytes += chain.pooled_bytes();
            let first = chain.pool.first_ms;
            all.first_ms = Some(all.first_ms.map_or(first, |oldest| oldest.min(first)));
        }
        all
    }

    /// The chain, loaded and checked if need be.
    pub fn get(
        &mut self,
        view: &dyn View,
        slot: Slot,
        no: ChainNo,
    ) -> Result<Result<&mut HotChain, Rejection>, StoreError> {
        self.clock += 1;
        if !self.chains.contains_key(&no) {
            match load(view, slot, no)? {
                Ok(chain) => self.insert(chain),
                Err(rejection) => return Ok(Err(rejection)),
            }
        }
        let chain = self
            .chains
            .get_mut(&no)
            .expect("it was there or was just loaded");
        chain.used = self.clock;
        Ok(Ok(chain.as_mut()))
    }

    /// The chain if it is in memory.
    pub fn peek(&mut self, no: ChainNo) -> Option<&mut HotChain> {
        self.chains.get_mut(&no).map(Box::as_mut)
    }

    /// So many leaf hashes were added to a chain.
    pub fn grew(&mut self, leaves: usize) {
        self.uncounted += leaves;
    }

    /// Adds a chain.
    pub fn insert(&mut self, chain: HotChain) {
        self.uncounted += CHAIN_IN_LEAVES;
        self.chains.insert(chain.no, Box::new(chain));
    }

    /// Forgets a chain.
    pub fn remove(&mut self, no: ChainNo) {
        self.chains.remove(&no);
    }

    /// Drops what was used least once the bounds are passed. Only when all decisions so far are in the store.
    pub fn trim(&mut self) {
        if self.uncounted < COUNTED_EVERY.max(4 * self.chains.len()) {
            return;
        }
        self.uncounted = 0;
        let [chains, bytes, small_bytes] = self.kept();
        let [all_chains, all_bytes, all_small_bytes] = self.tell([chains, bytes, small_bytes]);
        let many = all_chains > HOT_CHAINS_MAX && chains > HOT_CHAINS_MIN;
        let all = all_bytes > HOT_POOL_BYTES_MAX && bytes > HOT_POOL_BYTES_MIN;
        let small = all_small_bytes > HOT_SMALL_POOLS_BYTES_MAX && small_bytes > HOT_POOL_BYTES_MIN;
        if many {
            self.drop_older_half();
        }
        if all {
            self.drop_pools(usize::MAX);
        } else if small {
            self.drop_pools(SMALL_POOL_BYTES);
        }
        if many || all || small {
            self.tell(self.kept());
        }
    }

    /// Those that take so many bytes or less.
    fn drop_pools(&mut self, most: usize) {
        let chains = self.chains.values_mut();
        for chain in chains.filter(|chain| chain.recent.bytes() <= most) {
            chain.recent = PoolParts::default();
        }
    }

    fn drop_older_half(&mut self) {
        let mut ages: Vec<u64> = self.chains.values().map(|chain| chain.used).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        self.chains.retain(|_, chain| chain.used >= median);
        self.chains.shrink_to_fit();
    }

    fn kept(&self) -> Kept {
        let pools = self.chains.values().map(|chain| chain.recent.bytes());
        pools.fold([self.chains.len(), 0, 0], |[chains, all, small], bytes| {
            let own_small = if bytes <= SMALL_POOL_BYTES { bytes } else { 0 };
            [chains, all + bytes, small + own_small]
        })
    }

    /// Tells what is kept here, and learns what all keep.
    fn tell(&mut self, now: Kept) -> Kept {
        let told = std::mem::replace(&mut self.told, now);
        std::array::from_fn(|of| {
            let grown = now[of].wrapping_sub(told[of]);
            let before = ALL_KEPT[of].fetch_add(grown, Ordering::Relaxed);
            before.wrapping_add(grown)
        })
    }
}

/// Reads the edge of a chain's history tree over `size` Quants: per tile level, the hashes beyond the last full tile.
pub(super) fn history_edges(
    view: &dyn View,
    slot: Slot,
    (lineage, alg): (&Lineage, HashAlg),
    size: u64,
) -> Result<Vec<Vec<Hash>>, StoreError> {
    let reader = HistoryReader {
        view,
        alg,
        slot,
        lineage: lineage.clone(),
    };
    let tile = TILE_HASHES as u64;
    let (mut edges, mut size) = (Vec::new(), size);
    loop {
        let level = edges.len() as u8;
        let hashes = reader.hashes(level, (size / tile * tile, size))?;
        let edge = hashes.as_chunks::<32>().0.to_vec();
        if edge.len() as u64 != size % tile {
            return Err(StoreError::Corrupt(format!(
                "the edge of a history tree has {} hashes for {size} Quants",
                edge.len()
            )));
        }
        edges.push(edge);
        size /= tile;
        if size == 0 {
            return Ok(edges);
        }
    }
}

fn load(
    view: &dyn View,
    slot: Slot,
    no: ChainNo,
) -> Result<Result<HotChain, Rejection>, StoreError> {
    let Some(row) = view.get(Cf::Chain, &chain_key(slot, no))? else {
        return Ok(Err(Rejection::UnknownChain(no.0)));
    };
    let row = ChainRow::decode(&row).ok_or_else(|| StoreError::row("chain"))?;
    let lineage = Lineage::new(no, row.chain_id, row.ancestors.clone());
    let pool = view
        .get(Cf::Chain, &pool_key(slot, no))?
        .and_then(|row| PoolRow::decode(&row));
    let genesis = view
        .get(Cf::Quant, &quant_key(slot, no, lineage.first_height()))?
        .and_then(|row| QuantRow::decode(&row));
    let first = genesis.as_ref().and_then(|genesis| genesis.parse().ok());
    let genesis = genesis.and_then(|genesis| Meta::parse(&genesis.meta).ok()?.constitution);
    let parts = pool
        .zip(genesis)
        .zip(first)
        .and_then(|((pool, constitution), first)| {
            let chain = assemble(lineage, &row, (pool, &first), &constitution)?;
            Some((chain, first, constitution))
        });
    let Some((mut chain, first, constitution)) = parts else {
        return Ok(Err(Rejection::Damaged {
            chain: row.name,
            why: "its rows cannot be decoded".into(),
        }));
    };
    if let Some(rejection) = check(view, slot, &chain, &row)? {
        return Ok(Err(rejection));
    }
    if !resume(view, slot, &mut chain, &first)? {
        return Ok(Err(chain.damaged(
            "the Quant that its proof system counts from is missing",
        )));
    }
    if let Some(why) = split::load(view, slot, &mut chain)? {
        return Ok(Err(chain.damaged(why)));
    }
    if let Some(why) = anchor::load(view, slot, &mut chain)? {
        return Ok(Err(chain.damaged(why)));
    }
    let place = Place {
        slot,
        no,
        alg: chain.alg,
        amended_height: row.amended_height,
        pool: (chain.head.tx_end(), chain.pool),
    };
    match amended(view, place, &mut chain, &constitution) {
        Err(StoreError::Corrupt(why)) => Ok(Err(chain.damaged(why))),
        read => read.map(|()| Ok(chain)),
    }
}

/// What the next Quant must show follows from earlier ones: false where one of them is missing. All rows of a chain that is
/// loaded are in the store.
fn resume(
    view: &dyn View,
    slot: Slot,
    chain: &mut HotChain,
    first: &Header,
) -> Result<bool, StoreError> {
    let no = chain.no;
    chain.systems.resume(&chain.head, |height| {
        if height == first.height {
            return Ok(Some(first.clone()));
        }
        let row = view.get(Cf::Quant, &quant_key(slot, no, height))?;
        Ok(row.and_then(|row| QuantRow::decode(&row)?.parse().ok()))
    })
}

fn assemble(
    lineage: Lineage,
    row: &ChainRow,
    (pool, first): (PoolRow, &Header),
    constitution: &[u8],
) -> Option<HotChain> {
    let head = Header::parse(&row.head).ok()?;
    let constitution = Constitution::parse(constitution).ok()?;
    Some(HotChain {
        no: lineage.no,
        chain_id: row.chain_id,
        lineage,
        name: row.name.clone(),
        alg: head.hash_alg,
        head_hash: head.hash(),
        history: Frontier::from_parts(head.height, row.peaks.clone())?,
        head,
        pool,
        rules: rules_of(&constitution),
        law: Arc::new(Law::of(&constitution)),
        amended: None,
        keeps: StateRules::of(&constitution),
        erasable: constitution.erasable,
        systems: Systems::begin(&constitution, first),
        split: None,
        anchors: None,
        sub: None,
        parted: None,
        recent: PoolParts::default(),
        sealed_bytes: row.sealed_bytes,
        edges: None,
        used: 0,
    })
}

/// Reads what became of the genesis's constitution.
fn amended(
    view: &dyn View,
    place: Place,
    chain: &mut HotChain,
    genesis: &[u8],
) -> Result<(), StoreError> {
    let Some(amended) = amend::stored(view, place, genesis)? else {
        return Ok(());
    };
    let constitution = Constitution::parse(&amended.current)
        .map_err(|refused| StoreError::Corrupt(refused.to_string()))?;
    chain.obey(&constitution);
    chain.amended = Some(Arc::new(amended));
    Ok(())
}

fn rules_of(constitution: &Constitution) -> SealRules {
    SealRules {
        leap_count: constitution.leap_count,
        leap_bytes: constitution.leap_bytes,
        leap_ms: constitution.leap_ms,
    }
}

fn check(
    view: &dyn View,
    slot: Slot,
    chain: &HotChain,
    row: &ChainRow,
) -> Result<Option<Rejection>, StoreError> {
    let stored = view.get(Cf::Quant, &quant_key(slot, chain.no, chain.head.height))?;
    let stored = stored.and_then(|stored| QuantRow::decode(&stored));
    if stored.is_none_or(|stored| stored.header != row.head) {
        return Ok(Some(chain.damaged("its head is not the stored Quant")));
    }
    if chain.head.id() != chain.chain_id {
        return Ok(Some(chain.damaged("its head is another chain's")));
    }
    if chain.history.root(chain.alg) != chain.head.hist_root {
        return Ok(Some(
            chain.damaged("its peaks do not give the head's history root"),
        ));
    }
    if chain.pool.next_index < chain.head.tx_end() {
        return Ok(Some(chain.damaged("its pool ends before its head")));
    }
    Ok(None)
}
