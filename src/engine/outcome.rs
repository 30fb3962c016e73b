//! What a command came to. A rejection changed nothing.

use crate::chain::{ChainId, Hash, Header};
use crate::store::{ChainNo, RequestRun};

/// The result of one command. Few are alive at a time: boxing the larger ones would cost more than it saves.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a bang.
    Banged(Result<Banged, Rejection>),
    /// Of an inject.
    Injected(Result<Injected, Rejection>),
    /// Of a leap or a close.
    Sealed(Result<Sealed, Rejection>),
    /// Of signatures: how many were wanted, and are kept.
    Signed(u64),
    /// Of a fork.
    Forked(Result<Forked, Rejection>),
    /// Of a fork that waited for its name: it is shown now.
    Settled(bool),
    /// Of a name: it is the chain's.
    Named(Result<(), Rejection>),
    /// Of a tick, or of reports of groups' logs: how many leaves the log got.
    Logged(u64),
    /// Of a command to the meta group.
    Cluster(Result<u64, Rejection>),
    /// Of a step of a split.
    Split(Result<SplitStep, Rejection>),
    /// Of a command about cursors.
    Cursors(Result<CursorsMoved, Rejection>),
}

/// A chain is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Banged {
    /// Its number in the group.
    pub chain: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// The answer to a retry.
    pub duplicate: bool,
}

/// A fork is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forked {
    /// Its number in the group.
    pub chain: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// It has its name; otherwise it waits for it, and is not shown.
    pub named: bool,
    /// The answer to a retry.
    pub duplicate: bool,
}

/// Transactions have their indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// In the order of the request's items.
    pub runs: Vec<RequestRun>,
    /// The time of the new ones.
    pub inject_ms: u64,
}

/// A pool is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The Quant's header.
    pub header: Header,
    /// Its hash.
    pub quant_hash: Hash,
    /// The answer to a retry.
    pub duplicate: bool,
}

/// A step of a split is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitStep {
    /// The chain that it was about, in its group.
    pub chain: ChainNo,
    /// Its identity.
    pub chain_id: ChainId,
    /// It was done before.
    pub duplicate: bool,
}

/// Cursors stand where they should, or are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorsMoved {
    /// How many positions were moved or deleted.
    pub positions: u64,
    /// The command's time.
    pub moved_ms: u64,
}

/// Who must sign a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// One of the authors: it is data or a transfer.
    Author,
    /// One of the admins: it changes the constitution.
    AdminChanging,
    /// One of the admins: it erases.
    AdminErasing,
}

impl SignedBy {
    fn what(self) -> &'static str {
        match self {
            Self::Author => "transactions signed by one of its authors",
            Self::AdminChanging => "constitution changes signed by one of its admins",
            Self::AdminErasing => "erasures signed by one of its admins",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Author => "inject",
            Self::AdminChanging => "amend",
            Self::AdminErasing => "erase",
        }
    }

    fn only(self, any: bool) -> &'static str {
        match (self, any) {
            (Self::AdminErasing, true) => ": only they erase; sign with the key of one of them",
            (Self::AdminErasing, false) => ", which has none: nothing in it can be erased",
            (_, true) => ": only they change its constitution; sign with the key of one of them",
            (_, false) => ", which has none: its constitution never changes",
        }
    }
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// A bang's name stands for another chain already.
    #[error("the name {name} is taken by chain {chain_id}, {}; use another name", if *same { "which has the same constitution" } else { "which has another constitution" })]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        chain_id: ChainId,
        /// Whether a retry without request_id is the likely cause.
        same: bool,
    },
    /// The genesis that the leader made is not one.
    #[error("the genesis is refused: {0}")]
    BadGenesis(String),
    /// No such chain in this group.
    #[error("chain number {0} is unknown in this group")]
    UnknownChain(u64),
    /// The chain has a final Quant.
    #[error("chain {0} is closed: nothing can be added to it")]
    Closed(String),
    /// A fork of a chain that is closed.
    #[error("chain {0} is closed: a fork of a closed chain is not made; bang a new chain")]
    ForkOfClosed(String),
    /// A fork above the head.
    #[error(
        "at_height {height} is above the head of chain {chain}, which is at {head}; give 0 to {head}, or leap first"
    )]
    ForkAbove {
        /// The chain that was to be forked.
        chain: String,
        /// Asked.
        height: u64,
        /// The newest Quant.
        head: u64,
    },
    /// Forks of forks are at their limit.
    #[error(
        "chain {0} is a fork of forks already, {limit} deep, which is the limit; fork one of the chains that it came from",
        limit = super::FORK_DEPTH_MAX
    )]
    ForkTooDeep(String),
    /// A fork's constitution changes what stays.
    #[error("constitution: {0}; authors, admins and leap rules may change in a fork, nothing else")]
    ForkRules(String),
    /// The request_id was used for something else.
    #[error("request_id was used before with another body; use a new request_id for a new request")]
    RequestReused,
    /// A client's id was used for something else.
    #[error(
        "transactions[{item}].id was used before with another body, at index {index}; use a new id for a new transaction"
    )]
    IdReused {
        /// Which item of the request.
        item: usize,
        /// Where the first one stands.
        index: u64,
    },
    /// A precondition on the index does not hold.
    #[error(
        "expected_next_index is {expected}, the next index is {actual}; read from there and decide anew"
    )]
    IndexConflict {
        /// What the client expected.
        expected: u64,
        /// What is.
        actual: u64,
    },
    /// A precondition on the head does not hold.
    #[error(
        "expected_head is {}, the head at height {height} is {}; read from there and decide anew",
        hex::encode(expected),
        hex::encode(actual)
    )]
    HeadConflict {
        /// What the client expected.
        expected: Hash,
        /// What is.
        actual: Hash,
        /// Its height.
        height: u64,
    },
    /// A transaction that must be signed is not.
    #[error(
        "transactions[{item}].author is missing: chain {chain} takes {} only; sign it, as with qbc {} --sign KEYFILE",
        by.what(),
        by.verb()
    )]
    Unsigned {
        /// Which item of the request.
        item: usize,
        /// Whose rule it is.
        chain: String,
        /// Who must sign it.
        by: SignedBy,
    },
    /// The author is none of the chain's, now.
    #[error(
        "transactions[{item}].author {} is none of the authors of chain {chain} now; sign with the key of one who is, or have an admin add this one (qbc amend)",
        hex::encode(author)
    )]
    AuthorUnknown {
        /// Which item of the request.
        item: usize,
        /// Whose authors.
        chain: String,
        /// Who signed.
        author: [u8; 32],
    },
    /// A signed transaction could be sent again.
    #[error(
        "transactions[{item}].id is missing: a signed transaction without one could be sent again by whoever saw it; give it 1 to 64 bytes of its own and sign them too"
    )]
    IdMissing {
        /// Which item of the request.
        item: usize,
    },
    /// A constitution change or an erasure by one who may not.
    #[error(
        "transactions[{item}].author {} is none of the admins of chain {chain}{}",
        hex::encode(author),
        by.only(*any)
    )]
    NotAdmin {
        /// Which item of the request.
        item: usize,
        /// Whose admins.
        chain: String,
        /// Who signed.
        author: [u8; 32],
        /// The chain has admins.
        any: bool,
        /// What only they do.
        by: SignedBy,
    },
    /// What it would make is no constitution.
    #[error("transactions[{item}].payload: {why}")]
    BadChange {
        /// Which item of the request.
        item: usize,
        /// What is wrong.
        why: String,
    },
    /// An erasure on a chain whose constitution knows none.
    #[error(
        "transactions[{item}].type: chain {chain} is not erasable: its constitution promised at its bang that nothing in it ever goes; bang a chain with --erasable for data that may have to"
    )]
    NotErasable {
        /// Which item of the request.
        item: usize,
        /// Whose constitution.
        chain: String,
    },
    /// What a tombstone names can't be erased, or it is none.
    #[error("transactions[{item}].payload: {why}")]
    BadErasure {
        /// Which item of the request.
        item: usize,
        /// What is wrong.
        why: String,
    },
    /// The pool is at a limit.
    #[error("the pool of chain {chain} is full ({limit}); leap first, then inject again")]
    PoolFull {
        /// Whose.
        chain: String,
        /// Which limit.
        limit: String,
    },
    /// A transfer moves more than its sender has.
    #[error(
        "transactions[{item}]: account {account} has {balance}, the transfer moves {amount}; move at most that, or fund the account first"
    )]
    Overdraft {
        /// Which item of the request.
        item: usize,
        /// The sender.
        account: String,
        /// What it has when the item's turn comes.
        balance: u128,
        /// What was to move.
        amount: u128,
    },
    /// Nothing to seal.
    #[error("chain {0} has nothing to seal: its pool is empty; inject first")]
    NothingToSeal(String),
    /// Another Quant came first: build it anew.
    #[error(
        "the head moved from height {expected} to {actual} while the Quant was built; leap again"
    )]
    HeadMoved {
        /// Built upon.
        expected: u64,
        /// What is.
        actual: u64,
    },
    /// Transactions came while the last Quant was built: build it anew.
    #[error(
        "transactions up to {next} came while the last Quant was built, which ends at {sealed}; stop injecting, then close again"
    )]
    PoolGrew {
        /// Where the proposed Quant ends.
        sealed: u64,
        /// What is.
        next: u64,
    },
    /// This replica computes something else than the leader proposed.
    #[error(
        "the proposed Quant differs from what this replica computes ({0}); the chain is stopped on this node"
    )]
    SealDiffers(String),
    /// Stored data of the chain is damaged here.
    #[error(
        "chain {chain} is damaged on this node ({why}); it is not served from here until it is repaired"
    )]
    Damaged {
        /// Which.
        chain: String,
        /// What was found.
        why: String,
    },
    /// A chain that is split takes nothing itself.
    #[error(
        "chain {chain} is split into {into} subchains, {chain}/0 to {chain}/{}: {what}",
        into - 1
    )]
    Split {
        /// Which.
        chain: String,
        /// How many subchains it has.
        into: u32,
        /// What that means for what was asked.
        what: &'static str,
    },
    /// A split is under way: what was asked must wait.
    #[error("chain {0} is being split; wait a moment and send the request again")]
    Splitting(String),
    /// A transaction of another subchain.
    #[error(
        "transactions[{item}]: {routed} of chain {chain}; inject to the chain that was split, it is routed from there"
    )]
    Misrouted {
        /// Which item of the request.
        item: usize,
        /// The subchain.
        chain: String,
        /// What its routing key says.
        routed: &'static str,
    },
    /// A transfer whose key is of another subchain than its sender.
    #[error(
        "transactions[{item}]: its key leads to another subchain than {chain}, where its sender's account is; a transfer of a chain that is split goes to its sender's subchain, and takes a key only of that one: the sender's name as the key, or none"
    )]
    KeyElsewhere {
        /// Which item of the request.
        item: usize,
        /// The sender's subchain.
        chain: String,
    },
    /// This chain can't be split, or not so.
    #[error("chain {chain} can't be split: {why}")]
    NotSplittable {
        /// Which.
        chain: String,
        /// Why, and what to do.
        why: String,
    },
    /// A subchain's constitution is its parent's.
    #[error(
        "the constitution of chain {0} is that of the chain that was split into it, and changes with it; amend the topmost chain: its subchains follow"
    )]
    Inherited(String),
    /// Keys or accounts of which a subchain has not taken over what the chains above it had, by their state keys. Who
    /// proposed it claims them, and proposes it again.
    #[error(
        "chain {chain} takes over what the chains above it had of {} keys or accounts first; send the request again",
        state_keys.len()
    )]
    Unclaimed {
        /// The subchain.
        chain: String,
        /// Each once.
        state_keys: Vec<Vec<u8>>,
    },
    /// A subchain of a ledger was to be closed.
    #[error(
        "chain {0} is a part of a ledger: amounts may be on their way to its accounts, so it stays open"
    )]
    PartOfLedger(String),
    /// A fork of a subchain that keeps a state, below the Quant that holds what it takes over from.
    #[error(
        "chain {0} is a part of a chain with a state, and takes that over by what its Quant 1 holds; fork it at height 1 or above, after a leap if need be"
    )]
    ForkOfPart(String),
    /// A fork of a subchain that keeps a state has only that one's keys and accounts.
    #[error(
        "transactions[{item}]: its {what} is of another subchain than the one that {chain} was forked from; a fork of a part has the keys and accounts of that part alone"
    )]
    OtherPart {
        /// Which item of the request.
        item: usize,
        /// The fork.
        chain: String,
        /// What is elsewhere.
        what: &'static str,
    },
    /// A precondition on a cursor does not hold.
    #[error(
        "cursor {name} stands {} in chain {chain_id}, not where cursor_moves[].expected says; go on from there",
        place(*actual)
    )]
    CursorConflict {
        /// The cursor.
        name: String,
        /// The chain that it stands in.
        chain_id: ChainId,
        /// The next transaction and Quant; none: it has no position there.
        actual: Option<(u64, u64)>,
    },
    /// Cursors are at their limit.
    #[error(
        "chain {chain} keeps {limit} positions of cursors, which is the limit; delete cursors that nobody uses",
        limit = super::CURSOR_POSITIONS_MAX
    )]
    CursorsFull {
        /// The chain that keeps them.
        chain: String,
    },
    /// What one group says to another about a split does not hold.
    #[error("the evidence of a split is refused: {0}")]
    BadEvidence(String),
    /// The cluster is founded already, or the node known.
    #[error("the cluster refuses: {0}")]
    Cluster(String),
}

fn place(actual: Option<(u64, u64)>) -> String {
    actual.map_or_else(
        || "nowhere".to_owned(),
        |(index, height)| format!("at transaction {index}, Quant {height},"),
    )
}
