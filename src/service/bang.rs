//! Bang and BatchBang.

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{
    Service, convert,
    edge::Deadline,
    inject::check_request_id,
    leap::told_until,
    ledger::check_ledger,
    limits::{BANG_BATCH_MAX, PAYLOAD_BYTES_MAX},
    route::{self, Method, Route, at_once, elsewhere, of_propose},
    schemas::Schemas,
    status::{invalid, of_name, of_read, of_rejection, status},
};
use crate::chain::{
    Birth, ChainName, Constitution, GENESIS_META_BYTES_MAX, HashAlg, Meta, check_author_key,
};
use crate::consensus::Group;
use crate::engine::{
    AUTHORS_MAX, Bang, Banged, Outcome, POOL_BYTES_MAX, POOL_TRANSACTIONS_MAX, Reader,
};
use crate::proto;

/// Bangs of one batch that are under way: a commit takes all that wait, and each takes some 16 KiB until it is answered.
const BANGS_AT_ONCE: usize = 256;

impl Service {
    pub(super) async fn do_bang(
        &self,
        request: &proto::BangRequest,
        until: Instant,
    ) -> Result<proto::BangResponse, Status> {
        let (group, command) = self.bang_command(request, until).await?;
        let outcome = group.propose(command).await;
        let Outcome::Banged(banged) = outcome.map_err(|error| of_propose(&error))? else {
            return Err(status("INTERNAL", "the answer is not that of a bang", &[]));
        };
        let banged = banged.map_err(|rejection| of_rejection(&rejection))?;
        // One that needs no other node's signature is final at once, and not looked up: most of many chains stay unused.
        if asked_quorum(request) > 1 {
            self.until_final(&request.name, 0, told_until(until))
                .await?;
        }
        self.banged(&group, request.name.clone(), &banged)
    }

    pub(super) async fn do_batch_bang(
        &self,
        request: proto::BatchBangRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::BatchBangResponse, Status> {
        let count = request.requests.len();
        if count == 0 || count > BANG_BATCH_MAX {
            return Err(invalid(
                "requests",
                format!("there are {count}, give 1 to {BANG_BATCH_MAX}"),
            ));
        }
        let mut results = Vec::with_capacity(count);
        for some in request.requests.chunks(BANGS_AT_ONCE) {
            let bangs = some.iter().map(|request| self.bang_at(request, deadline));
            let banged = futures::future::join_all(bangs).await;
            results.extend(banged.into_iter().map(batch_result));
        }
        Ok(proto::BatchBangResponse { results })
    }

    /// Bangs on whichever node leads the group of the name.
    pub(super) async fn bang_at(
        &self,
        request: &proto::BangRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::BangResponse, Status> {
        let name = ChainName::parse(&request.name).map_err(|error| of_name("name", &error))?;
        let route = Route {
            method: Method::Bang,
            group: self.owner(&name)?,
            until: route::until(deadline),
            repeatable: !request.request_id.is_empty(),
        };
        self.at_leader(route, request, |service, request| {
            Box::pin(service.do_bang(request, route.until))
        })
        .await
    }

    async fn bang_command(
        &self,
        request: &proto::BangRequest,
        until: Instant,
    ) -> Result<(Group, Vec<u8>), Status> {
        check_request_id(&request.request_id)?;
        let name = ChainName::parse(&request.name).map_err(|error| of_name("name", &error))?;
        self.check_parents(&request.name, until).await?;
        let asked = request.constitution.clone().unwrap_or_default();
        check_rules(&asked)?;
        self.check_schema(&asked)?;
        self.check_quorum(&name, asked.quorum)?;
        let alg = convert::hash_alg(&asked)?;
        let meta = genesis_meta(
            alg,
            &convert::constitution(&asked, self.birth(&request.name)?)?,
        )?;
        let bang = Bang {
            request_id: request.request_id.as_bytes(),
            alg,
            meta: &meta,
        };
        let group = self
            .groups
            .of_name(&name)
            .and_then(|id| self.groups.get(id));
        Ok((group.ok_or_else(elsewhere)?, bang.encode()))
    }

    /// A schema that can't be applied is none of a chain's: it would take no payload, or any.
    fn check_schema(&self, asked: &proto::Constitution) -> Result<(), Status> {
        let schema = &asked.schema[..];
        if schema.is_empty() {
            return Ok(());
        }
        if asked.content != proto::constitution::Content::Json as i32 {
            let why = "a schema is for JSON content only; ask for content json, or leave it out";
            return Err(invalid("constitution.schema", why));
        }
        let compiled =
            tokio::task::block_in_place(|| self.catalog.schemas.get(Schemas::hash(schema), schema));
        compiled
            .map(drop)
            .map_err(|error| invalid("constitution.schema", error.to_string()))
    }

    /// More signatures than the group has replicas would never stand.
    fn check_quorum(&self, name: &ChainName, asked: Option<u32>) -> Result<(), Status> {
        let Some(quorum) = asked else {
            return Ok(());
        };
        let group = self.owner(name)?;
        let cluster = self.groups.cluster();
        let seats = cluster.seats.get(&group.0).ok_or_else(elsewhere)?;
        let most = u32::from(seats.class);
        if (1..=most).contains(&quorum) {
            return Ok(());
        }
        let why = format!(
            "{quorum} is refused, the replication factor of this cluster is {most}: give 1 to {most}, or leave it out: one node's signature is enough then"
        );
        Err(invalid("constitution.quorum", why))
    }

    /// Names below an existing chain are for its subchains.
    pub(super) async fn check_parents(&self, name: &str, until: Instant) -> Result<(), Status> {
        for (at, _) in name.match_indices('/') {
            if self.exists(&name[..at], until).await? {
                let why = format!(
                    "names below the chain {} are reserved for its subchains; use another name",
                    &name[..at]
                );
                return Err(super::status::refused_field("NAME_RESERVED", "name", why));
            }
        }
        Ok(())
    }

    /// True when a chain of that name exists, in whichever group.
    pub(super) async fn exists(&self, name: &str, until: Instant) -> Result<bool, Status> {
        let route = Route {
            until,
            ..self.route(Method::GetChain, name, None)?
        };
        let request = proto::GetChainRequest {
            chain: name.to_owned(),
            any_replica: false,
        };
        let found = self
            .at_reader(route, false, &request, |service, request| {
                at_once(service.do_get_chain(request))
            })
            .await;
        match found {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    pub(super) fn birth(&self, name: &str) -> Result<Birth, Status> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| {
            status(
                "INTERNAL",
                format!("the system gives no randomness: {error}"),
                &[],
            )
        })?;
        let created_ms = self.groups.now_ms();
        let cluster = self.groups.cluster();
        let founded = cluster.founded.as_ref().ok_or_else(elsewhere)?;
        let (authority, cluster_id) = (founded.authority.clone(), founded.cluster_id);
        Ok(Birth {
            name: name.to_owned(),
            created_ms,
            salt,
            authority,
            cluster_id,
        })
    }

    fn banged(
        &self,
        group: &Group,
        name: String,
        banged: &Banged,
    ) -> Result<proto::BangResponse, Status> {
        let reader = Reader::new(self.groups.store(), group.engine().slot());
        let chain = reader
            .chain_no(banged.chain)
            .map_err(|error| of_read(&error))?;
        let chain =
            chain.ok_or_else(|| status("INTERNAL", "the banged chain is not there", &[]))?;
        let genesis = convert::quant(reader.genesis(&chain).map_err(|error| of_read(&error))?)?;
        Ok(proto::BangResponse {
            name,
            chain_id: banged.chain_id.0.to_vec().into(),
            genesis: Some(genesis),
            duplicate: banged.duplicate,
        })
    }
}

/// How many nodes must sign a Quant of the chain that is asked for.
fn asked_quorum(request: &proto::BangRequest) -> u32 {
    let asked = request.constitution.as_ref();
    asked.and_then(|asked| asked.quorum).unwrap_or(1)
}

fn genesis_meta(alg: HashAlg, constitution: &Constitution) -> Result<Vec<u8>, Status> {
    let bytes = constitution.to_bytes();
    // What can't be read back can't be verified: the parser's rules are the rules of bang.
    Constitution::parse(&bytes).map_err(|refused| invalid("constitution", refused.to_string()))?;
    let in_force = Some((Constitution::hash(alg, &bytes), 0));
    let meta = Meta {
        constitution: Some(bytes),
        constitution_in_force: in_force,
        ..Meta::default()
    }
    .to_bytes();
    if meta.len() > GENESIS_META_BYTES_MAX {
        return Err(invalid(
            "constitution",
            format!(
                "it has {} bytes, give at most {GENESIS_META_BYTES_MAX}",
                meta.len()
            ),
        ));
    }
    Ok(meta)
}

/// What can't be kept is not promised: such a chain would not be what its constitution says.
fn check_rules(asked: &proto::Constitution) -> Result<(), Status> {
    check_erasable(asked)?;
    check_ledger(asked)?;
    check_keys("constitution.authors", &asked.authors)?;
    check_keys("constitution.admins", &asked.admins)?;
    let max = asked.payload_bytes_max.unwrap_or(1);
    if max == 0 || max as usize > PAYLOAD_BYTES_MAX {
        return Err(invalid(
            "constitution.payload_bytes_max",
            format!("{max} is refused, give 1 to {PAYLOAD_BYTES_MAX}"),
        ));
    }
    check_timers(asked)
}

/// Only admins erase, and who they are never changes: a chain without any would promise what nobody can do.
fn check_erasable(asked: &proto::Constitution) -> Result<(), Status> {
    if asked.erasable && asked.rules_ledger {
        let why = "a ledger is not erasable: its transfers are what its balances rest on; leave one of the two out";
        return Err(invalid("constitution.erasable", why));
    }
    if asked.erasable && asked.admins.is_empty() {
        let why = "nobody could erase: an erasure is signed by one of the admins, and there are none; name one, as with --admin PUBKEY of qbc keygen";
        return Err(invalid("constitution.erasable", why));
    }
    Ok(())
}

/// A pool that reaches its limit takes no more: a chain that waits for more than that would never seal by itself.
pub(super) fn check_timers(asked: &proto::Constitution) -> Result<(), Status> {
    let timers = [
        (
            "leap_count",
            asked.leap_count.map(u64::from),
            POOL_TRANSACTIONS_MAX,
        ),
        ("leap_bytes", asked.leap_bytes, POOL_BYTES_MAX),
        ("leap_ms", asked.leap_ms, u64::MAX),
    ];
    for (field, given, max) in timers {
        if let Some(given) = given.filter(|given| !(1..=max).contains(given)) {
            let most = if max == u64::MAX {
                "1 or more".to_owned()
            } else {
                format!("1 to {max}")
            };
            let why = format!(
                "{given} is refused, give {most}, or leave it out: the chain is sealed when told then"
            );
            return Err(invalid(&format!("constitution.{field}"), why));
        }
    }
    Ok(())
}

/// Keys by which signatures can hold, each named once; their length is checked where they are converted.
pub(super) fn check_keys(field: &str, keys: &[bytes::Bytes]) -> Result<(), Status> {
    if keys.len() > AUTHORS_MAX {
        let why = format!("there are {}, give at most {AUTHORS_MAX}", keys.len());
        return Err(invalid(field, why));
    }
    for (at, key) in keys.iter().enumerate() {
        let field = format!("{field}[{at}]");
        check_author_key(&convert::bytes32(&field, key)?).map_err(|refused| {
            let why = format!("{}; give the one that qbc keygen printed", refused.why);
            invalid(&field, why)
        })?;
        if keys[..at].contains(key) {
            return Err(invalid(&field, "it is named before; name each key once"));
        }
    }
    Ok(())
}

fn batch_result(result: Result<proto::BangResponse, Status>) -> proto::BangResult {
    use tonic_types::StatusExt;
    let result = match result {
        Ok(bang) => proto::bang_result::Result::Bang(bang),
        Err(status) => proto::bang_result::Result::Failure(proto::BangFailure {
            code: status.code() as i32,
            reason: status
                .get_details_error_info()
                .map_or_else(String::new, |info| info.reason),
            message: status.message().to_owned(),
        }),
    };
    proto::BangResult {
        result: Some(result),
    }
}
