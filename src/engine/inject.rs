//! Inject: transactions get their indexes. Order of the checks: request_id seen? -> ids seen? -> preconditions -> limits ->
//! who may write.

use std::collections::BTreeMap;

use super::{
    POOL_BYTES_MAX, POOL_TRANSACTIONS_MAX,
    amend::{self, Amendment},
    apply::Work,
    command::{Command, Inject, InjectHead, InjectItem, body_hash},
    cursor,
    erase::{self, Erasures},
    hot::HotChain,
    outcome::{Injected, Rejection},
    pool::PoolPart,
    relay, request, routing,
    split::Before,
    state::{self, Moved},
};
use crate::chain::{
    ENVELOPE_BYTES, Envelope, Hash, HashAlg, TYPE_CONSTITUTION_CHANGE, TYPE_DATA, attributes_hash,
    payload_hash,
};
use crate::store::{
    Cf, ChainNo, IdRow, PoolLeavesRow, RequestRow, RequestRun, StoreError, TxRow, id_key, pool_key,
    pool_leaves_key, request_key, tx_key,
};

/// An accepted transaction on its way into the pool's tree.
pub(super) struct Accepted {
    chain: ChainNo,
    index: u64,
    alg: HashAlg,
    payload_bytes: u64,
    envelope: [u8; ENVELOPE_BYTES],
}

/// The payload hashes of all injects of an entry, in order, computed together.
pub(super) fn payload_hashes(
    work: &mut Work<'_>,
    commands: &[Command<'_>],
) -> Result<Vec<Hash>, StoreError> {
    let mut all = Vec::new();
    let mut algs = Vec::new();
    for command in commands {
        let Command::Inject(inject) = command else {
            continue;
        };
        let no = inject.head.chain;
        // What can't be read is told when the command is decided.
        let alg = match work.chain(no) {
            Err(StoreError::Io(why)) => return Err(StoreError::Io(why)),
            found => found.ok().and_then(Result::ok).map(|chain| chain.alg),
        };
        if alg.is_none() {
            work.unknown.insert(no);
        }
        let alg = alg.unwrap_or(HashAlg::Sha3_256);
        algs.extend(inject.items.iter().map(|item| (alg, item)));
    }
    let plain =
        |(alg, item): &(HashAlg, &InjectItem<'_>)| item.salt.is_none() && *alg == HashAlg::Sha3_256;
    let batch: Vec<&[u8]> = algs
        .iter()
        .filter(|entry| plain(entry))
        .map(|(_, item)| item.payload)
        .collect();
    let mut batched = HashAlg::Sha3_256.hash_each(&batch).into_iter();
    for entry in &algs {
        let hash = if plain(entry) { batched.next() } else { None };
        all.push(hash.unwrap_or_else(|| payload_hash(entry.0, entry.1.payload, entry.1.salt)));
    }
    Ok(all)
}

pub(super) fn apply(
    work: &mut Work<'_>,
    command: &Inject<'_>,
    hashes: &[Hash],
) -> Result<Result<Injected, Rejection>, StoreError> {
    let no = command.head.chain;
    let (alg, erasable) = match work.chain(no)? {
        Ok(chain) => (chain.alg, chain.erasable),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let own;
    let hashes = if work.unknown.contains(&no) {
        own = hashes_with(alg, &command.items);
        &own
    } else {
        hashes
    };
    let request = Request::of(command, (alg, erasable), hashes);
    if let Some(answer) = request.seen(work)? {
        return Ok(answer);
    }
    let places = match request.places(work)? {
        Ok(places) => places,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let (mut amendment, mut erasures) = (None, Erasures::new());
    let any = places.iter().any(Option::is_none);
    if any {
        if let Err(rejection) = request.allowed(work, &places)? {
            return Ok(Err(rejection));
        }
        amendment = match amend::judge(work, command, &places)? {
            Ok(amendment) => amendment,
            Err(rejection) => return Ok(Err(rejection)),
        };
        erasures = match erase::judge(work, command, &places)? {
            Ok(erasures) => erasures,
            Err(rejection) => return Ok(Err(rejection)),
        };
    }
    let mut moved = match state::moves(work, command, &places)? {
        Ok(moved) => moved,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let cursors = match cursor::judge(work, no, &command.moves)? {
        Ok(cursors) => cursors,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let injected = request.add(work, &places, (&mut moved, &erasures), amendment)?;
    cursor::enact(work, no, &command.moves, cursors);
    request.remember(work, &injected);
    Ok(Ok(injected))
}

/// What a chain has of a request already: its answer, or per item the index where its id stands.
pub(super) fn before(
    work: &mut Work<'_>,
    command: &Inject<'_>,
) -> Result<Result<Before, Rejection>, StoreError> {
    let (alg, erasable) = match work.chain(command.head.chain)? {
        Ok(chain) => (chain.alg, chain.erasable),
        Err(rejection) => return Ok(Err(rejection)),
    };
    let hashes = hashes_with(alg, &command.items);
    let request = Request::of(command, (alg, erasable), &hashes);
    if let Some(answer) = request.seen(work)? {
        return Ok(answer.map(|answer| Before::Answered(answer.runs)));
    }
    Ok(request.places(work)?.map(Before::Standing))
}

/// Adds what the group's own leader wrote, by types and payloads; nothing but its place is checked.
pub(super) fn add_own(
    work: &mut Work<'_>,
    no: ChainNo,
    items: Vec<(u8, &[u8])>,
) -> Result<(), StoreError> {
    let (alg, erasable) = match work.chain(no)? {
        Ok(chain) => (chain.alg, chain.erasable),
        Err(_) => return Ok(()),
    };
    let head = InjectHead {
        chain: no,
        request_id: b"",
        expected_next_index: None,
        expected_head: None,
    };
    let items = items.into_iter().map(|(kind, payload)| InjectItem {
        kind,
        attributes: b"",
        id: b"",
        salt: None,
        transfer: None,
        payload,
    });
    let command = Inject {
        head,
        items: items.collect(),
        moves: Vec::new(),
    };
    let hashes = hashes_with(alg, &command.items);
    let request = Request::of(&command, (alg, erasable), &hashes);
    let places = vec![None; command.items.len()];
    let (mut moved, erasures) = (Moved::default(), Erasures::new());
    request.add(work, &places, (&mut moved, &erasures), None)?;
    Ok(())
}

/// Adds a change of the constitution that a subchain has from its parent, and that was judged.
pub(super) fn add_change(
    work: &mut Work<'_>,
    command: &Inject<'_>,
    amendment: Option<Amendment>,
) -> Result<(), StoreError> {
    let (alg, erasable) = match work.chain(command.head.chain)? {
        Ok(chain) => (chain.alg, chain.erasable),
        Err(_) => return Ok(()),
    };
    let hashes = hashes_with(alg, &command.items);
    let request = Request::of(command, (alg, erasable), &hashes);
    let (mut moved, erasures) = (Moved::default(), Erasures::new());
    request.add(work, &[None], (&mut moved, &erasures), amendment)?;
    Ok(())
}

fn hashes_with(alg: HashAlg, items: &[InjectItem<'_>]) -> Vec<Hash> {
    let hash = |item: &InjectItem<'_>| payload_hash(alg, item.payload, item.salt);
    items.iter().map(hash).collect()
}

/// One inject with its hashes.
struct Request<'a> {
    command: &'a Inject<'a>,
    alg: HashAlg,
    /// The chain's payloads are salted, and may be erased.
    erasable: bool,
    payload_hashes: &'a [Hash],
    attribute_hashes: Vec<Hash>,
    /// Of the whole request; only where a request_id asks for it.
    body: Hash,
}

impl<'a> Request<'a> {
    fn of(
        command: &'a Inject<'a>,
        (alg, erasable): (HashAlg, bool),
        payload_hashes: &'a [Hash],
    ) -> Self {
        let attribute_hashes = command
            .items
            .iter()
            .map(|item| attributes_hash(alg, item.attributes))
            .collect();
        let mut request = Self {
            command,
            alg,
            erasable,
            payload_hashes,
            attribute_hashes,
            body: [0; 32],
        };
        if !command.head.request_id.is_empty() {
            request.body = request.whole_body();
        }
        request
    }

    fn whole_body(&self) -> Hash {
        let head = &self.command.head;
        let index = head.expected_next_index.map(u64::to_be_bytes);
        let items: Vec<Hash> = (0..self.command.items.len())
            .map(|item| self.item_body(item))
            .collect();
        let mut moves = Vec::new();
        let mut parts = vec![
            index.as_ref().map_or(&[][..], |bytes| bytes.as_slice()),
            head.expected_head
                .as_ref()
                .map_or(&[], |hash| hash.as_slice()),
            items.as_flattened(),
        ];
        if !self.command.moves.is_empty() {
            cursor::put_moves(&mut moves, &self.command.moves);
            parts.push(&moves);
        }
        body_hash("inject", &parts)
    }

    /// Type, payload and attributes of an item in one hash.
    fn item_body(&self, item: usize) -> Hash {
        let kind = [self.command.items[item].kind];
        self.alg.hash(&[
            &kind,
            &self.payload_hashes[item],
            &self.attribute_hashes[item],
        ])
    }

    fn seen(&self, work: &mut Work<'_>) -> Result<Option<Result<Injected, Rejection>>, StoreError> {
        let head = &self.command.head;
        if head.request_id.is_empty() {
            return Ok(None);
        }
        let key = request_key(work.engine.slot, head.chain, head.request_id);
        let own = request::seen(&work.state.pending, &work.engine.store, &key, &self.body)?;
        let seen = match own {
            None => self.seen_before_fork(work)?.map(Ok),
            own => own,
        };
        Ok(seen.map(|seen| {
            seen.map(|runs| {
                let runs = runs
                    .into_iter()
                    .map(|run| RequestRun {
                        duplicate: true,
                        ..run
                    })
                    .collect();
                Injected { runs, inject_ms: 0 }
            })
        }))
    }

    /// The first answer of an ancestor, where all that it says lies below the fork. What an ancestor was asked otherwise is
    /// nothing to this chain.
    fn seen_before_fork(&self, work: &mut Work<'_>) -> Result<Option<Vec<RequestRun>>, StoreError> {
        let head = &self.command.head;
        let Ok(chain) = work.chain(head.chain)? else {
            return Ok(None);
        };
        let lineage = chain.lineage.clone();
        for ancestor in lineage.ancestors().iter().rev() {
            let key = request_key(work.engine.slot, ancestor.no, head.request_id);
            let row = work.state.pending.get(&work.engine.store, &key)?;
            let Some(row) = row else { continue };
            let row = RequestRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
            let end = |run: &RequestRun| run.first.saturating_add(u64::from(run.count));
            if row.body == self.body && row.runs.iter().all(|run| end(run) <= ancestor.index_end) {
                return Ok(Some(row.runs));
            }
        }
        Ok(None)
    }

    /// Per item: the index where its id stands already, or none.
    fn places(
        &self,
        work: &mut Work<'_>,
    ) -> Result<Result<Vec<Option<u64>>, Rejection>, StoreError> {
        let mut own: BTreeMap<&[u8], (usize, u64)> = BTreeMap::new();
        let mut targets = BTreeMap::new();
        let mut next = work
            .chain(self.command.head.chain)?
            .map_or(0, |chain| chain.pool.next_index);
        let mut places = Vec::with_capacity(self.command.items.len());
        for (number, item) in self.command.items.iter().enumerate() {
            let place = match self.known(work, number, item, &own)? {
                Ok(None) => {
                    erase::place(work, self.command.head.chain, item, (&mut targets, next))?
                }
                Ok(place) => place,
                Err(rejection) => return Ok(Err(rejection)),
            };
            if place.is_none() {
                if !item.id.is_empty() {
                    own.insert(item.id, (number, next));
                }
                next += 1;
            }
            places.push(place);
        }
        Ok(Ok(places))
    }

    fn known(
        &self,
        work: &mut Work<'_>,
        number: usize,
        item: &InjectItem<'_>,
        own: &BTreeMap<&[u8], (usize, u64)>,
    ) -> Result<Result<Option<u64>, Rejection>, StoreError> {
        if item.id.is_empty() {
            return Ok(Ok(None));
        }
        let (index, same) = if let Some((first, index)) = own.get(item.id) {
            (*index, self.same_items(*first, number))
        } else {
            let Some(first) = self.place_of(work, item.id)? else {
                return Ok(Ok(None));
            };
            (first.index, self.repeats(work, number, &first)?)
        };
        if same {
            return Ok(Ok(Some(index)));
        }
        Ok(Err(Rejection::IdReused {
            item: number,
            index,
        }))
    }

    /// Where an id stands: in this chain, or below the fork.
    fn place_of(&self, work: &mut Work<'_>, id: &[u8]) -> Result<Option<IdRow>, StoreError> {
        let Ok(chain) = work.chain(self.command.head.chain)? else {
            return Ok(None);
        };
        let lineage = chain.lineage.clone();
        let ancestors = lineage.ancestors().iter().rev();
        let ancestors = ancestors.map(|one| (one.no, one.index_end));
        for (no, end) in std::iter::once((lineage.no, u64::MAX)).chain(ancestors) {
            let key = id_key(work.engine.slot, no, id);
            let row = work.state.pending.get(&work.engine.store, &key)?;
            let Some(row) = row else { continue };
            let row = IdRow::decode(&row).ok_or_else(|| StoreError::row("index"))?;
            if row.index < end {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn same_items(&self, one: usize, other: usize) -> bool {
        if self.item_body(one) == self.item_body(other) {
            return true;
        }
        let [one, other] = [one, other].map(|item| &self.command.items[item]);
        self.erasable
            && [one.kind, other.kind] == [TYPE_DATA; 2]
            && one.payload == other.payload
            && erase::same_attributes(one.attributes, other.attributes)
    }

    /// The same as what stands under its id.
    fn repeats(
        &self,
        work: &mut Work<'_>,
        number: usize,
        first: &IdRow,
    ) -> Result<bool, StoreError> {
        let item = &self.command.items[number];
        if first.body == self.item_body(number) {
            return Ok(true);
        }
        if !self.erasable || item.kind != TYPE_DATA {
            return Ok(false);
        }
        erase::repeats(work, self.command.head.chain, item, first.index)
    }

    fn allowed(
        &self,
        work: &mut Work<'_>,
        places: &[Option<u64>],
    ) -> Result<Result<(), Rejection>, StoreError> {
        let new = self.command.items.iter().zip(places);
        let new = new
            .filter(|(_, place)| place.is_none())
            .map(|(item, _)| item.payload.len() as u64);
        let (fresh, bytes) = new.fold((0, 0), |(count, bytes), length| (count + 1, bytes + length));
        let head = self.command.head;
        Ok(work.chain(head.chain)?.and_then(|chain| {
            if chain.head.is_final {
                return Err(Rejection::Closed(chain.name.clone()));
            }
            routing::takes(chain, self.command, places)?;
            preconditions(chain, head.expected_next_index, head.expected_head)?;
            room(chain, fresh, bytes)
        }))
    }

    fn add(
        &self,
        work: &mut Work<'_>,
        places: &[Option<u64>],
        (moved, erasures): (&mut Moved<'_>, &Erasures),
        amendment: Option<Amendment>,
    ) -> Result<Injected, StoreError> {
        let (no, time_ms) = (self.command.head.chain, work.time_ms);
        let Ok(chain) = work.chain(no)? else {
            unreachable!("the chain was there when the request was checked")
        };
        let inject_ms = time_ms.max(chain.pool.last_inject_ms);
        let (chain_id, first, was_empty) =
            (chain.chain_id, chain.pool.next_index, chain.pooled() == 0);
        let (mut runs, mut changes) = (Runs::default(), Vec::new());
        let (mut next, mut bytes) = (first, 0);
        work.accepted.reserve(places.len());
        for (number, place) in places.iter().enumerate() {
            if let Some(index) = place {
                runs.push(*index, true);
                continue;
            }
            self.write(work, number, (chain_id, next, inject_ms));
            let item = &self.command.items[number];
            state::note(work, (no, next), (number, item), moved);
            if let Some((index, row)) = erasures.get(&number) {
                erase::enact(work, no, (*index, row), next)?;
            }
            bytes += item.payload.len() as u64;
            changes.extend((item.kind == TYPE_CONSTITUTION_CHANGE).then_some(next));
            runs.push(next, false);
            next += 1;
        }
        if let (Some(amendment), Ok(chain)) = (amendment, work.engine.hot_chain(work.state, no)?) {
            amendment.enact(work.batch, work.engine.slot, chain, &changes);
            relay::note(work, no, &changes)?;
        }
        if next > first {
            self.move_pool(work, (next, bytes, inject_ms), was_empty)?;
        }
        Ok(Injected {
            runs: runs.0,
            inject_ms,
        })
    }

    fn write(
        &self,
        work: &mut Work<'_>,
        number: usize,
        (chain_id, index, inject_ms): (crate::chain::ChainId, u64, u64),
    ) {
        let (slot, chain, item) = (
            work.engine.slot,
            self.command.head.chain,
            &self.command.items[number],
        );
        let row = TxRow {
            kind: item.kind,
            inject_ms,
            payload_hash: self.payload_hashes[number],
            attributes: item.attributes,
            salt: item.salt,
            payload: item.payload,
            erased: None,
        };
        if self.erasable {
            let key = tx_key(slot, chain, index);
            work.state.pending.put_tx(work.batch, key, row.encode());
        } else {
            let place = ((slot, chain), index);
            work.transactions.push(work.batch, place, &row);
        }
        if !item.id.is_empty() {
            let id = IdRow {
                index,
                body: self.item_body(number),
            };
            work.state
                .pending
                .put(work.batch, id_key(slot, chain, item.id), id.encode());
        }
        let envelope = Envelope {
            kind: item.kind,
            salted: item.salt.is_some(),
            chain_id,
            index,
            inject_ms,
            payload_len: item.payload.len() as u64,
            payload_hash: self.payload_hashes[number],
            attributes_hash: self.attribute_hashes[number],
        };
        let payload_bytes = item.payload.len() as u64;
        work.accepted.push(Accepted {
            chain,
            index,
            alg: self.alg,
            payload_bytes,
            envelope: envelope.to_bytes(),
        });
    }

    fn move_pool(
        &self,
        work: &mut Work<'_>,
        (next, bytes, inject_ms): (u64, u64, u64),
        was_empty: bool,
    ) -> Result<(), StoreError> {
        let Ok(chain) = work.engine.hot_chain(work.state, self.command.head.chain)? else {
            return Ok(());
        };
        chain.pool.next_index = next;
        chain.pool.bytes += bytes;
        chain.pool.last_inject_ms = inject_ms;
        if was_empty {
            chain.pool.first_ms = inject_ms;
        }
        work.engine.note_due(work.batch, chain);
        Ok(())
    }

    fn remember(&self, work: &mut Work<'_>, injected: &Injected) {
        let head = &self.command.head;
        let row = RequestRow {
            time_ms: work.time_ms,
            body: self.body,
            runs: injected.runs.clone(),
        };
        let place = (work.engine.slot, head.chain);
        request::remember(
            &mut work.state.pending,
            work.batch,
            place,
            head.request_id,
            &row,
        );
    }
}

fn preconditions(chain: &HotChain, next: Option<u64>, head: Option<Hash>) -> Result<(), Rejection> {
    if let Some(expected) = next
        && expected != chain.pool.next_index
    {
        return Err(Rejection::IndexConflict {
            expected,
            actual: chain.pool.next_index,
        });
    }
    if let Some(expected) = head
        && expected != chain.head_hash
    {
        return Err(Rejection::HeadConflict {
            expected,
            actual: chain.head_hash,
            height: chain.head.height,
        });
    }
    Ok(())
}

pub(super) fn room(chain: &HotChain, fresh: u64, bytes: u64) -> Result<(), Rejection> {
    let full = |limit: String| {
        Err(Rejection::PoolFull {
            chain: chain.name.clone(),
            limit,
        })
    };
    if chain.pooled() + fresh > POOL_TRANSACTIONS_MAX {
        return full(format!("{POOL_TRANSACTIONS_MAX} transactions"));
    }
    if chain.pooled_bytes() + bytes > POOL_BYTES_MAX {
        return full(format!("{POOL_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// Results in as few runs as they allow.
#[derive(Default)]
struct Runs(Vec<RequestRun>);

impl Runs {
    fn push(&mut self, index: u64, duplicate: bool) {
        match self.0.last_mut() {
            Some(run)
                if run.duplicate == duplicate && run.first + u64::from(run.count) == index =>
            {
                run.count += 1;
            }
            _ => self.0.push(RequestRun {
                first: index,
                count: 1,
                duplicate,
            }),
        }
    }
}

/// Hashes what was accepted, many at a time, and adds it to the pools: one row of leaf hashes and one pool row per chain.
pub(super) fn finish(work: &mut Work<'_>) {
    work.transactions.close(work.batch);
    let accepted = std::mem::take(&mut work.accepted);
    state::put_rows(work);
    let mut changes = state::changes(work);
    let mut by_chain: BTreeMap<ChainNo, (Vec<(u64, Hash)>, u64)> = BTreeMap::new();
    for alg in [HashAlg::Sha3_256, HashAlg::Sha2_256] {
        let own: Vec<&Accepted> = accepted.iter().filter(|one| one.alg == alg).collect();
        let envelopes: Vec<&[u8]> = own.iter().map(|one| one.envelope.as_slice()).collect();
        for (one, leaf) in own.iter().zip(alg.leaf_each(&envelopes)) {
            let (leaves, bytes) = by_chain.entry(one.chain).or_default();
            leaves.push((one.index, leaf));
            *bytes += one.payload_bytes;
        }
    }
    for (chain, (leaves, bytes)) in by_chain {
        let writes = changes.remove(&chain).unwrap_or_default();
        add_leaves(work, chain, &leaves, bytes);
        state::add(work, chain, leaves[0].0, &writes);
    }
}

fn add_leaves(work: &mut Work<'_>, no: ChainNo, leaves: &[(u64, Hash)], bytes: u64) {
    let slot = work.engine.slot;
    let Some(chain) = work.state.hot.peek(no) else {
        return;
    };
    let hashes: Vec<Hash> = leaves.iter().map(|(_, leaf)| *leaf).collect();
    let (inject_ms, bytes_before) = (chain.pool.last_inject_ms, chain.pool.bytes - bytes);
    let row = PoolLeavesRow {
        inject_ms,
        bytes_before,
        hashes: &hashes,
    };
    for (first, row) in row.rows(leaves[0].0) {
        let key = pool_leaves_key(slot, no, first);
        work.batch.put(Cf::Tree, key, row);
    }
    work.batch
        .put(Cf::Chain, pool_key(slot, no), chain.pool.encode());
    chain.recent.push(
        PoolPart {
            first: leaves[0].0,
            inject_ms,
            bytes_before,
        },
        &hashes,
    );
    work.state.hot.grew(hashes.len());
}
