//! What never changes about a chain, found by name: group, number, identity, constitution. Bounded; checked at first use.

use std::sync::{Arc, OnceLock};

use tonic::Status;

use super::{
    below::{Below, names_above},
    convert,
    names::{self, Homes},
    route,
    schemas::Schemas,
    status,
};
use crate::chain::{
    ChainId, ChainName, Constitution, Hash, HashAlg, HeadSignature, Schema, Systems,
};
use crate::consensus::{Group, Groups};
use crate::engine::{ChainView, Finality, GroupId, ReadError, Reader};
use crate::proto;
use crate::store::{ChainNo, Lately, Snapshot};

/// Chains kept since the last change of generation, and as many of the one before it.
const GENERATION_MAX: usize = 8192;

/// A chain's fixed facts.
#[derive(Debug)]
pub struct Known {
    pub no: ChainNo,
    pub chain_id: ChainId,
    pub alg: HashAlg,
    pub constitution: Constitution,
    /// Distinct nodes that must sign a Quant until it is final; 1: whoever answers signs.
    pub signers: usize,
    pub group: GroupId,
    /// How many splits led to it.
    pub above: usize,
    /// The chains that it takes keys and accounts over from, the topmost first: of a subchain that keeps a state, and of
    /// its forks, which lie elsewhere by their names.
    pub takes_from: Vec<String>,
    /// Where its subchains live, once it is known to be split: that never changes.
    pub below: OnceLock<Below>,
    /// Its own first Quant, once a proof showed it.
    genesis: OnceLock<proto::Quant>,
    /// By which the compiled schema of its payloads is found.
    schema: Option<Hash>,
}

/// The chains in use, by name.
pub struct Catalog {
    groups: Groups,
    /// Read by every request, written at a chain's first use.
    known: Lately<String, Known>,
    /// Chains that live in another group than their name.
    pub homes: Homes,
    /// What their payloads must match, and what is about to be banged.
    pub schemas: Schemas,
}

impl Catalog {
    pub fn new(groups: Groups) -> Self {
        Self {
            groups,
            known: Lately::new(GENERATION_MAX),
            homes: Homes::default(),
            schemas: Schemas::default(),
        }
    }

    /// The chain of a name as a client wrote it. One whose group this node holds no more is looked for again: the group of
    /// its name, which may be here, tells where it is.
    pub fn find(&self, name: &str) -> Result<Arc<Known>, Status> {
        if let Some((known, group)) = self.known_here(name) {
            let damage = group.engine().damage(known.no);
            damage.map_or(Ok(()), |damage| Err(status::of_rejection(&damage)))?;
            return asked_there(name, known);
        }
        let known = Arc::new(self.load(name)?);
        self.known.put(name.to_owned(), known.clone());
        asked_there(name, known)
    }

    fn known_here(&self, name: &str) -> Option<(Arc<Known>, Group)> {
        let known = self.known.get(name)?;
        let group = self.groups.get(known.group)?;
        Some((known, group))
    }

    /// The group of a chain in use, wherever it lives; none of others: then it is that of the name, which is hashed for it.
    pub fn home(&self, name: &str) -> Option<GroupId> {
        let known = self.known.get(name).map(|known| known.group);
        known.or_else(|| self.homes.of(name))
    }

    /// This node's replica of the group that the chain lives in.
    pub fn group(&self, known: &Known) -> Result<Group, Status> {
        self.groups.get(known.group).ok_or_else(route::elsewhere)
    }

    /// The compiled schema of a chain; none where its constitution has none.
    pub fn schema(&self, known: &Known) -> Result<Option<Arc<Schema>>, Status> {
        let (Some(hash), Some(bytes)) = (known.schema, &known.constitution.schema) else {
            return Ok(None);
        };
        let schema = self.schemas.get(hash, bytes);
        // It compiled when the chain was banged: another version of this server did that.
        let schema = schema.map_err(|error| {
            let why = format!(
                "this server can't apply the schema of chain {}: {error}",
                known.constitution.name
            );
            status::status(
                "NOT_SUPPORTED",
                why,
                &[("field", "constitution.schema".to_owned())],
            )
        })?;
        Ok(Some(schema))
    }

    fn load(&self, text: &str) -> Result<Known, Status> {
        let name = ChainName::parse(text).map_err(|error| status::of_name("chain", &error))?;
        let (group, view) = self.look(&name)?;
        let (id, engine) = (group.id(), group.engine());
        let reader = Reader::new(self.groups.store(), engine.slot());
        let (_, constitution) = reader
            .constitution(&view)
            .map_err(|error| status::of_read(&error))?;
        let sub = reader.subchain(&view);
        let sub = sub.map_err(|error| status::of_read(&error))?;
        let heir = reader.heir(&view);
        let heir = heir.map_err(|error| status::of_read(&error))?;
        let heir = heir.filter(|_| constitution.part().is_some());
        let known = Known {
            no: view.no,
            chain_id: view.chain_id,
            alg: view.alg(),
            schema: constitution.schema.as_deref().map(Schemas::hash),
            signers: Systems::of(&constitution).signers(),
            constitution,
            group: id,
            above: sub.map_or(0, |row| row.above.len()),
            takes_from: heir
                .map_or_else(Vec::new, |(name, row)| names_above(&name, row.above.len())),
            below: OnceLock::new(),
            genesis: OnceLock::new(),
        };
        let checked = engine
            .check_chain(view.no)
            .map_err(|error| status::of_store(&error))?;
        checked.map_err(|rejection| status::of_rejection(&rejection))?;
        Ok(known)
    }
}

impl Catalog {
    /// The replica on this node that has the chain: of the group that was asked, or whichever it is.
    fn look(&self, name: &ChainName) -> Result<(Group, ChainView), Status> {
        let owner = self.groups.of_name(name).ok_or_else(route::elsewhere)?;
        let Some(asked) = names::asked() else {
            return self.look_everywhere(name, owner);
        };
        let group = self.groups.get(asked).ok_or_else(route::elsewhere)?;
        match self.chain_in(&group, name) {
            // It is named before it is shown where it lives: it comes in a moment.
            Err(ReadError::UnknownChain(_)) if asked != owner => Err(route::elsewhere()),
            found => Ok((group, found.map_err(|error| refused(&error))?)),
        }
    }

    fn look_everywhere(
        &self,
        name: &ChainName,
        owner: GroupId,
    ) -> Result<(Group, ChainView), Status> {
        let mut told = None;
        let held = self.groups.held();
        // The owner of the name first: mostly the chain is there.
        let (first, rest): (Vec<Group>, Vec<Group>) =
            held.into_iter().partition(|group| group.id() == owner);
        for group in first.into_iter().chain(rest) {
            match self.chain_in(&group, name) {
                Ok(view) => return Ok((group, view)),
                Err(error) if group.id() == owner => told = Some(error),
                Err(ReadError::UnknownChain(_)) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Err(told.map_or_else(route::elsewhere, |error| refused(&error)))
    }

    fn chain_in(&self, group: &Group, name: &ChainName) -> Result<ChainView, ReadError> {
        let slot = group.engine().slot();
        Reader::new(self.groups.store(), slot).chain(name.as_ref())
    }
}

/// A call that was brought to one group is answered by that one: by no other has it waited for its leader.
fn asked_there(name: &str, known: Arc<Known>) -> Result<Arc<Known>, Status> {
    match names::asked() {
        Some(asked) if asked != known.group => Err(names::moved(name, known.group)),
        _ => Ok(known),
    }
}

fn refused(error: &ReadError) -> Status {
    match error {
        ReadError::Elsewhere { chain, group } => names::moved(chain, *group),
        error => status::of_read(error),
    }
}

/// One consistent view of one chain.
pub struct ChainReads<'a> {
    snapshot: Snapshot<'a>,
    slot: crate::store::Slot,
    /// The replica that shows it.
    pub replica: u64,
    /// The chain as the view shows it.
    pub chain: Arc<ChainView>,
    /// Its fixed facts.
    pub known: Arc<Known>,
}

impl super::Service {
    /// Opens a consistent view of a chain.
    pub(super) fn reads(&self, name: &str) -> Result<ChainReads<'_>, Status> {
        let known = self.catalog.find(name)?;
        let group = self.catalog.group(&known)?;
        self.reads_of(name, known, &group)
    }

    /// The same of the replica that a stream began on: another one that took its place may not have reached as much.
    pub(super) fn reads_on(&self, name: &str, replica: u64) -> Result<ChainReads<'_>, Status> {
        let known = self.catalog.find(name)?;
        let group = self.groups.replica(known.group, replica);
        self.reads_of(name, known, &group.ok_or_else(route::elsewhere)?)
    }

    fn reads_of(
        &self,
        name: &str,
        known: Arc<Known>,
        group: &Group,
    ) -> Result<ChainReads<'_>, Status> {
        let engine = group.engine();
        let moment = engine.moment();
        let snapshot = self.groups.store().snapshot();
        let chain = engine
            .chain_at(&snapshot, known.no, moment)
            .map_err(|error| status::of_read(&error))?;
        let chain = chain.ok_or_else(|| {
            status::status(
                "CHAIN_DAMAGED",
                format!("the row of chain {name} is missing"),
                &[],
            )
        })?;
        Ok(ChainReads {
            snapshot,
            slot: engine.slot(),
            replica: group.replica(),
            chain,
            known,
        })
    }
}

impl ChainReads<'_> {
    /// For reading much of a chain once: what others read often stays in the block cache.
    #[must_use]
    pub fn passing(self) -> Self {
        Self {
            snapshot: self.snapshot.passing(),
            ..self
        }
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.snapshot, self.slot)
    }

    /// The chain's own first Quant. It never changes, and every proof shows it.
    pub fn genesis(&self) -> Result<proto::Quant, Status> {
        if let Some(genesis) = self.known.genesis.get() {
            return Ok(genesis.clone());
        }
        let genesis = self.reader().genesis(&self.chain);
        let genesis = convert::quant(genesis.map_err(|error| status::of_read(&error))?)?;
        Ok(self.known.genesis.get_or_init(|| genesis).clone())
    }

    /// How far a quorum chain is signed; none of others.
    pub fn finality(&self) -> Result<Option<Finality>, Status> {
        let quorum = self.known.signers;
        let found = (quorum > 1).then(|| self.reader().finality(&self.chain, quorum));
        found.transpose().map_err(|error| status::of_read(&error))
    }

    /// The newest Quant that a client may take for final. Where none is, the genesis, or of a fork
    /// the fork-genesis, stands for what there is.
    pub fn newest(&self) -> Result<u64, Status> {
        let head = self.chain.head.height;
        let finality = self.finality()?;
        let first = self.chain.lineage.first_height();
        Ok(finality.map_or(head, |found| {
            found.height().unwrap_or(0).max(first).min(head)
        }))
    }

    /// The signatures that stand on a Quant of a quorum chain; none of others.
    pub fn signatures(&self, height: u64) -> Result<Option<Vec<HeadSignature>>, Status> {
        if self.known.signers <= 1 {
            return Ok(None);
        }
        let rows = self.reader().signatures(&self.chain, height);
        let rows = rows.map_err(|error| status::of_read(&error))?;
        let parsed = rows.iter().map(|row| HeadSignature::parse(row));
        let parsed = parsed.collect::<Result<_, _>>();
        parsed.map(Some).map_err(|refused| {
            let why = format!("a signature of Quant {height} can't be read: {refused}");
            status::status("CHAIN_DAMAGED", why, &[])
        })
    }
}
