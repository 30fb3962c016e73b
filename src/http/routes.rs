//! The table of routes: what is served, what it takes and gives. The OpenAPI document is made from it.

use super::{
    answer::{Answering, Handler},
    ask::Ask,
    chains, inject, ops, page,
    path::{Places, matched},
    problem::Problem,
    proof, read, short, tail,
};

/// What a place or a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Bytes as they are, percent-encoded.
    Bytes,
    /// A whole number.
    Number,
    /// true or false.
    Flag,
    /// Bytes in base64, with commas between.
    Tokens,
}

/// A parameter of the query.
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
}

/// A path and a method.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub about: &'static str,
    pub query: &'static [Param],
    /// The message that path, query and body make; empty: none.
    pub request: &'static str,
    /// The message that is answered; or, after a `:`, another type of body.
    pub response: &'static str,
    /// A body is taken.
    pub body: bool,
    /// It changes something, or a stranger's page might make it do so: only who may write.
    pub writes: bool,
    pub handler: Handler,
}

impl Route {
    /// What a place of any path holds.
    pub fn kind_of_place(name: &str) -> Kind {
        match name {
            "index" | "height" => Kind::Number,
            "key" => Kind::Bytes,
            _ => Kind::Text,
        }
    }
}

const fn param(name: &'static str, kind: Kind) -> Param {
    Param { name, kind }
}

const ANY_REPLICA: Param = param("any_replica", Kind::Flag);
const PAGE: Param = param("page_size", Kind::Number);
const PAGE_TOKEN: Param = param("page_token", Kind::Text);
const READ: &[Param] = &[ANY_REPLICA];
const TRANSACTIONS: &[Param] = &[
    param("from_index", Kind::Number),
    param("limit", Kind::Number),
    ANY_REPLICA,
];
const QUANTS: &[Param] = &[
    param("from_height", Kind::Number),
    PAGE,
    PAGE_TOKEN,
    ANY_REPLICA,
];
const CHAINS: &[Param] = &[param("prefix", Kind::Text), PAGE, PAGE_TOKEN, ANY_REPLICA];
const HISTORY: &[Param] = &[
    param("newest_first", Kind::Flag),
    PAGE,
    PAGE_TOKEN,
    ANY_REPLICA,
];
const PROOF: &[Param] = &[param("at_height", Kind::Number), param("alone", Kind::Flag)];
const INJECT: &[Param] = &[
    param("key", Kind::Bytes),
    param("id", Kind::Bytes),
    param("request_id", Kind::Text),
];
const TAIL: &[Param] = &[
    param("unit", Kind::Text),
    param("from_index", Kind::Number),
    param("from_now", Kind::Flag),
    param("resume_tokens", Kind::Tokens),
    param("cursor", Kind::Text),
    param("cursor_chain", Kind::Text),
    param("alone", Kind::Flag),
    param("evidence", Kind::Flag),
    param("without_transactions", Kind::Flag),
    param("heartbeat_ms", Kind::Number),
];
const TAIL_ALL: &[Param] = &[
    param("prefix", Kind::Text),
    param("unit", Kind::Text),
    param("from_now", Kind::Flag),
    param("resume_tokens", Kind::Tokens),
    param("cursor", Kind::Text),
    param("cursor_chain", Kind::Text),
    param("evidence", Kind::Flag),
    param("without_transactions", Kind::Flag),
    param("heartbeat_ms", Kind::Number),
];
const CURSORS: &[Param] = &[param("name", Kind::Text), PAGE, PAGE_TOKEN];
const QUANT: &[Param] = READ;

/// A route that reads.
const fn get(
    path: &'static str,
    (request, response): (&'static str, &'static str),
    query: &'static [Param],
    handler: Handler,
    about: &'static str,
) -> Route {
    Route {
        method: "GET",
        path,
        about,
        query,
        request,
        response,
        body: false,
        writes: false,
        handler,
    }
}

/// A route that changes something.
const fn post(
    path: &'static str,
    (request, response): (&'static str, &'static str),
    query: &'static [Param],
    handler: Handler,
    about: &'static str,
) -> Route {
    Route {
        method: "POST",
        path,
        about,
        query,
        request,
        response,
        body: true,
        writes: true,
        handler,
    }
}

/// Everything that is served but gRPC.
pub static ROUTES: &[Route] = &[
    get(
        "/",
        ("", ":text/html"),
        &[],
        page::index,
        "The explorer, a page for browsers.",
    ),
    get(
        "/page/{*file}",
        ("", ":*/*"),
        &[],
        page::part,
        "Files of the explorer.",
    ),
    get(
        "/v1/info",
        ("GetServerInfoRequest", "GetServerInfoResponse"),
        &[],
        chains::info,
        "The node: version, cluster, limits.",
    ),
    get(
        "/v1/chains",
        ("ListChainsRequest", "ListChainsResponse"),
        CHAINS,
        chains::list,
        "Chains by name, ascending.",
    ),
    post(
        "/v1/chains",
        ("BangRequest", "BangResponse"),
        &[],
        chains::bang,
        "Creates a chain.",
    ),
    get(
        "/v1/chains/{chain}",
        ("GetChainRequest", "GetChainResponse"),
        READ,
        chains::chain,
        "A chain: its head, its pool, its constitution.",
    ),
    get(
        "/v1/chains/{chain}/head",
        ("GetHeadRequest", "GetHeadResponse"),
        READ,
        chains::head,
        "The newest Quant, signed.",
    ),
    get(
        "/v1/chains/{chain}/quants",
        ("ListQuantsRequest", "ListQuantsResponse"),
        QUANTS,
        chains::quants,
        "Quants by height, ascending.",
    ),
    get(
        "/v1/chains/{chain}/quants/{height}",
        ("GetQuantRequest", "Quant"),
        QUANT,
        read::quant,
        "A Quant. It never changes: its tag is its hash.",
    ),
    get(
        "/v1/chains/{chain}/transactions",
        ("ReadRequest", "TransactionPage"),
        TRANSACTIONS,
        read::page,
        "Transactions from an index on.",
    ),
    post(
        "/v1/chains/{chain}/transactions",
        ("InjectRequest", "InjectResponse"),
        INJECT,
        inject::inject,
        "Injects: an InjectRequest, {\"data\": ...}, a form with data=..., or the payload itself as text/plain or application/octet-stream.",
    ),
    get(
        "/v1/chains/{chain}/transactions/{index}",
        ("GetTransactionRequest", "Transaction"),
        READ,
        read::transaction,
        "A transaction.",
    ),
    get(
        "/v1/chains/{chain}/transactions/{index}/payload",
        ("GetTransactionRequest", ":application/octet-stream"),
        READ,
        read::payload,
        "The payload of a transaction as it was injected.",
    ),
    get(
        "/v1/chains/{chain}/transactions/{index}/proof",
        ("ProveInclusionRequest", ":application/json"),
        PROOF,
        proof::proof,
        "A proof file as qbc prove writes it, for qbc verify; of a subchain up to the topmost chain above it, unless alone.",
    ),
    post(
        "/v1/chains/{chain}/leap",
        ("LeapRequest", "LeapResponse"),
        &[],
        chains::leap,
        "Seals the pool into the next Quant.",
    ),
    post(
        "/v1/chains/{chain}/fork",
        ("ForkChainRequest", "ForkChainResponse"),
        &[],
        chains::fork,
        "Creates a chain that shares this one's history up to at_height.",
    ),
    post(
        "/v1/chains/{chain}/split",
        ("SplitChainRequest", "SplitChainResponse"),
        &[],
        chains::split,
        "Makes subchains.",
    ),
    post(
        "/v1/chains/{chain}/close",
        ("CloseRequest", "CloseResponse"),
        &[],
        chains::close,
        "Seals the pool into a final Quant.",
    ),
    get(
        "/v1/chains/{chain}/latest/{*key}",
        ("GetLatestRequest", "GetLatestResponse"),
        READ,
        chains::latest,
        "The newest transaction of a key.",
    ),
    get(
        "/v1/chains/{chain}/history/{*key}",
        ("ListHistoryRequest", "ListHistoryResponse"),
        HISTORY,
        chains::history,
        "The transactions of a key.",
    ),
    get(
        "/v1/chains/{chain}/balance/{*account}",
        ("GetBalanceRequest", "GetBalanceResponse"),
        READ,
        chains::balance,
        "What an account of a ledger has.",
    ),
    get(
        "/v1/chains/{chain}/transfers/{*account}",
        ("ListHistoryRequest", "ListHistoryResponse"),
        HISTORY,
        chains::history,
        "The transfers of an account of a ledger.",
    ),
    get(
        "/v1/chains/{chain}/tail",
        ("TailRequest", ":text/event-stream"),
        TAIL,
        tail::tail,
        "Follows a chain by Server-Sent Events, each a TailResponse; resumes by Last-Event-ID. With Upgrade: websocket both ways: injects are taken too.",
    ),
    get(
        "/v1/chains/{chain}/cursors",
        ("ListCursorsRequest", "ListCursorsResponse"),
        CURSORS,
        chains::cursors,
        "The cursors that a chain keeps.",
    ),
    post(
        "/v1/chains/{chain}/cursors",
        ("MoveCursorRequest", "MoveCursorResponse"),
        &[],
        chains::move_cursor,
        "Moves cursors that a chain keeps, or makes them.",
    ),
    Route {
        method: "DELETE",
        body: false,
        ..post(
            "/v1/chains/{chain}/cursors/{*name}",
            ("DeleteCursorRequest", "DeleteCursorResponse"),
            &[],
            chains::delete_cursor,
            "Deletes a cursor.",
        )
    },
    get(
        "/v1/tail",
        ("TailRequest", ":text/event-stream"),
        TAIL_ALL,
        tail::tail,
        "Follows all chains whose names begin with prefix.",
    ),
    get(
        "/v1/cluster",
        ("DiscoverRequest", "DiscoverResponse"),
        &[],
        chains::discover,
        "Nodes, groups, leaders, as this node knows them.",
    ),
    get(
        "/v1/openapi.json",
        ("", ":application/json"),
        &[],
        ops::openapi,
        "This document.",
    ),
    get(
        "/checkpoint",
        ("", ":text/plain"),
        &[],
        ops::checkpoint,
        "The newest checkpoint of the log of all chains, a signed note.",
    ),
    get(
        "/tile/{*rest}",
        ("", ":application/octet-stream"),
        &[],
        ops::tile,
        "Tiles of the log of all chains (c2sp.org/tlog-tiles).",
    ),
    get(
        "/livez",
        ("", ":application/json"),
        &[],
        ops::livez,
        "The process answers.",
    ),
    get(
        "/readyz",
        ("", ":application/json"),
        &[],
        ops::readyz,
        "The node takes requests; 503 with reasons where it does not.",
    ),
    get(
        "/metrics",
        ("", ":application/openmetrics-text"),
        &[],
        ops::metrics,
        "Counters for Prometheus.",
    ),
    post(
        "/inject",
        ("InjectRequest", "InjectResponse"),
        INJECT,
        short::inject,
        "Injects to the chain main, which the first inject creates.",
    ),
    post(
        "/leap",
        ("LeapRequest", "LeapResponse"),
        &[],
        short::leap,
        "Seals the pool of the chain main.",
    ),
    Route {
        writes: true,
        ..get(
            "/leap",
            ("LeapRequest", "LeapResponse"),
            &[],
            short::leap,
            "The same.",
        )
    },
    get(
        "/chain",
        ("", "ChainView"),
        &[],
        short::chain,
        "The chain main with its newest Quants and transactions.",
    ),
    get(
        "/discover",
        ("DiscoverRequest", "DiscoverResponse"),
        &[],
        chains::discover,
        "The same as /v1/cluster.",
    ),
    post(
        "/discover",
        ("InviteRequest", "InviteResponse"),
        &[],
        chains::invite,
        "Invites a node that holds nothing yet into the cluster.",
    ),
];

/// The route of a method and a path, with what stands in its places; HEAD is a GET whose body is not sent.
pub fn find(method: &str, path: &str) -> Result<(&'static Route, Places), Problem> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(places) = matched(route.path, path)? else {
            continue;
        };
        if route.method == method || (method == "HEAD" && route.method == "GET" && !route.writes) {
            return Ok((route, places));
        }
        allowed.push(route);
    }
    if allowed.is_empty() {
        let why = format!(
            "nothing is at {path:?}; /v1/openapi.json tells what is here, and gRPC is proto/qbc/v1"
        );
        return Err(Problem::new("ROUTE_UNKNOWN", why));
    }
    Err(Problem::method(method, path, allow(&allowed)))
}

/// The methods of some routes as the header Allow has them.
fn allow(routes: &[&Route]) -> String {
    let mut methods: Vec<&str> = routes.iter().map(|route| route.method).collect();
    if routes
        .iter()
        .any(|route| route.method == "GET" && !route.writes)
    {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.sort_unstable();
    methods.join(", ")
}

/// Calls the handler.
pub fn answer(ask: Ask) -> Answering {
    (ask.route.handler)(ask)
}
