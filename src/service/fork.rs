//! ForkChain: a chain that shares another one's history up to a height. It is made beside its parent, in the parent's group;
//! the group of its name gives it the name, where that is another one. Whatever fails between the two is brought to its end
//! by the node that leads the parent's group.

use std::time::Duration;

use tokio::{sync::watch, time::Instant, time::timeout};
use tonic::{Code, Status};

use super::{
    Service,
    bang::{check_keys, check_timers},
    catalog::Known,
    convert,
    inject::check_request_id,
    leap::told_until,
    route::{elsewhere, of_propose},
    status::{of_name, of_read, of_rejection, of_store, status},
};
use crate::chain::{Birth, ChainName, Constitution, Content, HashAlg};
use crate::consensus::Group;
use crate::engine::{Fork, Forked, Outcome, Reader, Rejection, Settle, Unnamed};
use crate::proto;

/// How often forks that wait for their names are looked for.
const UNNAMED_EVERY: Duration = Duration::from_secs(1);
/// How many of a group are looked at in one round.
const UNNAMED_PER_ROUND: usize = 64;
/// How long one of them is worked on in a round.
const NAMING_MAX: Duration = Duration::from_secs(5);

impl Service {
    pub(super) async fn do_fork(
        &self,
        request: &proto::ForkChainRequest,
        until: Instant,
    ) -> Result<proto::ForkChainResponse, Status> {
        check_request_id(&request.request_id)?;
        let name = ChainName::parse(&request.name).map_err(|error| of_name("name", &error))?;
        let known = self.known_at_leader(&request.chain).await?;
        let group = self.catalog.group(&known)?;
        self.check_parents(&request.name, until).await?;
        // What the leader reads of the parent must be all that was acknowledged.
        self.readable(&group, false, until).await?;
        let constitution = self.fork_constitution(&group, (&known, &name), request)?;
        let forked = self.propose_fork(&group, &known, (request, &name), &constitution);
        let forked = forked.await?;
        if !forked.named {
            let unnamed = Unnamed {
                chain: forked.chain,
                chain_id: forked.chain_id,
                name: name.to_string(),
            };
            self.name_fork(&group, &unnamed, until).await?;
        }
        let genesis = request.at_height.saturating_add(1);
        self.until_final(&request.name, genesis, told_until(until))
            .await?;
        self.forked(&group, name.to_string(), &forked)
    }

    async fn propose_fork(
        &self,
        group: &Group,
        known: &Known,
        (request, name): (&proto::ForkChainRequest, &ChainName),
        constitution: &Constitution,
    ) -> Result<Forked, Status> {
        let made = (constitution, constitution.created_ms);
        let template = group
            .engine()
            .fork_template(known.no, request.at_height, made);
        let template = template.map_err(|error| of_store(&error))?;
        let (header, meta) = template.map_err(|rejection| of_rejection(&rejection))?;
        let command = Fork {
            parent: known.no,
            request_id: request.request_id.as_bytes(),
            unnamed: self.owner(name)? != group.id(),
            header: &header.to_bytes(),
            meta: &meta,
        };
        let outcome = group.propose(command.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Forked(forked) => forked.map_err(|rejection| of_rejection(&rejection)),
            _ => Err(status("INTERNAL", "the answer is not that of a fork", &[])),
        }
    }

    /// What was in force in the parent at the fork, with what the request has in its place.
    fn fork_constitution(
        &self,
        group: &Group,
        (known, name): (&Known, &ChainName),
        request: &proto::ForkChainRequest,
    ) -> Result<Constitution, Status> {
        let snapshot = self.groups.store().snapshot();
        let reader = Reader::new(&snapshot, group.engine().slot());
        let parent = reader.chain_no(known.no).map_err(|error| of_read(&error))?;
        let parent = parent.ok_or_else(elsewhere)?;
        if request.at_height > parent.head.height {
            let (chain, head) = (parent.name.clone(), parent.head.height);
            let height = request.at_height;
            return Err(of_rejection(&Rejection::ForkAbove {
                chain,
                height,
                head,
            }));
        }
        let bytes = reader.in_force_at(&parent, request.at_height);
        let bytes = bytes.map_err(|error| of_read(&error))?;
        let in_force = Constitution::parse(&bytes)
            .map_err(|refused| status("CHAIN_DAMAGED", refused.to_string(), &[]))?;
        let part = in_force.part();
        let asked = request.constitution.clone().unwrap_or_default();
        check_fixed(&asked, &in_force, known.alg)?;
        let Birth {
            name,
            created_ms,
            salt,
            ..
        } = self.birth(name.as_ref())?;
        let forked = Constitution {
            name,
            created_ms,
            salt,
            family_id: None,
            // Of a subchain that keeps a state it has what leads to that place.
            place: part,
            ..in_force
        };
        changed(forked, &asked, request.any_author)
    }

    /// Has a fork named by the group of its name and shown here; where the name is taken, the fork is taken back.
    async fn name_fork(
        &self,
        group: &Group,
        unnamed: &Unnamed,
        until: Instant,
    ) -> Result<(), Status> {
        let name = ChainName::parse(&unnamed.name).map_err(|error| of_name("name", &error))?;
        let of = (unnamed.chain_id, group.id());
        let named = self.name_chain(&name, of, until).await;
        if let Err(refused) = &named
            && refused.code() != Code::AlreadyExists
        {
            return named;
        }
        let settle = Settle {
            chain: unnamed.chain,
            named: named.is_ok(),
        };
        let outcome = group.propose(settle.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Settled(_) => named,
            _ => Err(status("INTERNAL", "the answer is not that of a fork", &[])),
        }
    }

    fn forked(
        &self,
        group: &Group,
        name: String,
        forked: &Forked,
    ) -> Result<proto::ForkChainResponse, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let chain = reader
            .chain_no(forked.chain)
            .map_err(|error| of_read(&error))?;
        let chain = chain.ok_or_else(|| status("INTERNAL", "the fork is not there", &[]))?;
        let genesis = reader.genesis(&chain).map_err(|error| of_read(&error))?;
        Ok(proto::ForkChainResponse {
            name,
            chain_id: forked.chain_id.0.to_vec().into(),
            genesis: Some(convert::quant(genesis)?),
            duplicate: forked.duplicate,
        })
    }

    /// Brings forks to their end that were begun and not named, because a node or a link failed in between, until `stop`
    /// says so.
    pub async fn name_forks(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            for group in self.groups.held() {
                if group.leads() {
                    self.name_forks_of(&group).await;
                }
            }
            let _ = timeout(UNNAMED_EVERY, stop.changed()).await;
        }
    }

    async fn name_forks_of(&self, group: &Group) {
        let unnamed = match group.engine().unnamed(UNNAMED_PER_ROUND) {
            Ok(unnamed) => unnamed,
            Err(error) => {
                tracing::error!(%error, "forks that wait for their names can't be read");
                return;
            }
        };
        for fork in unnamed {
            let until = Instant::now() + NAMING_MAX;
            if let Err(refused) = self.name_fork(group, &fork, until).await {
                let (name, why) = (fork.name, refused.message());
                tracing::info!(name, why, "a fork is not named yet, or taken back");
            }
        }
    }
}

/// What stays in a fork may be said again, and not otherwise.
fn check_fixed(
    asked: &proto::Constitution,
    parent: &Constitution,
    alg: HashAlg,
) -> Result<(), Status> {
    let work = parent.work.as_ref();
    let limit = parent.mint.as_ref().map(|mint| mint.limit.to_string());
    let account = parent.mint.as_ref().map(|mint| mint.account.as_slice());
    let fields = [
        ("content", same_content(asked, parent.content)),
        (
            "hash_alg",
            asked.hash_alg == 0 || asked.hash_alg == alg as i32,
        ),
        (
            "schema",
            asked.schema.is_empty() || parent.schema.as_deref() == Some(&asked.schema[..]),
        ),
        (
            "work_bits_min",
            kept(
                asked.work_bits_min,
                work.map(|work| u32::from(work.bits_min)),
            ),
        ),
        (
            "work_target_ms",
            kept(asked.work_target_ms, work.map(|work| work.target_ms)),
        ),
        ("quorum", kept(asked.quorum, parent.quorum.map(u32::from))),
        (
            "payload_bytes_max",
            kept(asked.payload_bytes_max, parent.payload_max),
        ),
        ("keyed", !asked.keyed || parent.keyed),
        ("erasable", !asked.erasable || parent.erasable),
        ("rules_ledger", !asked.rules_ledger || parent.ledger),
        (
            "mint_account",
            asked.mint_account.is_empty() || account == Some(&asked.mint_account[..]),
        ),
        (
            "mint_limit",
            asked.mint_limit.is_empty() || limit.as_ref() == Some(&asked.mint_limit),
        ),
    ];
    match fields.into_iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((field, _)) => {
            let why = "it is not the parent's, and stays in a fork: leave it out; authors, admins and leap rules may change";
            let field = format!("constitution.{field}");
            Err(super::status::refused_field("FORK_REFUSED", &field, why))
        }
    }
}

fn kept<T: Copy + PartialEq>(asked: Option<T>, parent: Option<T>) -> bool {
    asked.is_none() || asked == parent
}

fn same_content(asked: &proto::Constitution, parent: Content) -> bool {
    use proto::constitution::Content as Asked;
    let parent = match parent {
        Content::Bytes => Asked::Bytes,
        Content::Text => Asked::Text,
        Content::Json => Asked::Json,
        Content::MsgPack => Asked::Msgpack,
    };
    [Asked::Unspecified as i32, parent as i32].contains(&asked.content)
}

/// Who may write and amend, and when is sealed, as asked.
fn changed(
    mut forked: Constitution,
    asked: &proto::Constitution,
    any_author: bool,
) -> Result<Constitution, Status> {
    check_keys("constitution.authors", &asked.authors)?;
    check_keys("constitution.admins", &asked.admins)?;
    if any_author && !asked.authors.is_empty() {
        let why = "authors are named too; give one of the two";
        return Err(super::status::invalid("any_author", why));
    }
    let named = proto::Constitution {
        leap_count: asked.leap_count.filter(|given| *given > 0),
        leap_bytes: asked.leap_bytes.filter(|given| *given > 0),
        leap_ms: asked.leap_ms.filter(|given| *given > 0),
        ..Default::default()
    };
    check_timers(&named)?;
    if any_author {
        forked.authors.clear();
    }
    if !asked.authors.is_empty() {
        forked.authors = convert::keys("constitution.authors", &asked.authors)?;
    }
    if !asked.admins.is_empty() {
        forked.admins = convert::keys("constitution.admins", &asked.admins)?;
    }
    if asked.leap_count.is_some() {
        forked.leap_count = named.leap_count;
    }
    if asked.leap_bytes.is_some() {
        forked.leap_bytes = named.leap_bytes;
    }
    if asked.leap_ms.is_some() {
        forked.leap_ms = named.leap_ms;
    }
    Ok(forked)
}
