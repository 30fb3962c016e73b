//! What the model test does: operations that mean something in any state, so that a failing run shrinks to few of them.

use proptest::prelude::*;
use qbc::chain::{Hash, HashAlg, Work};
use qbc::engine::{Engine, Outcome};
use qbc::store::ChainNo;

use crate::model::{BangAsk, InjectAsk, Item, Model, SealAsk, constitution};
use crate::replica::{bang_bytes, entry, inject_bytes, seal_bytes};
use crate::tampered::tampered;

const NAMES: [&str; 6] = ["a", "ab", "b", "orders/0", "orders/1", "system"];
const DAY_MS: i64 = 24 * 3600 * 1000;

/// One step of a run.
#[derive(Clone, Debug)]
pub enum Op {
    /// Entries in one batch.
    Entries(Vec<EntryOp>),
    /// A seal that no honest leader proposes.
    Tamper { chain: u8, what: u8 },
    /// The engine is dropped, the store stays.
    Restart,
    /// Engine and store are closed and opened.
    Reopen,
}

/// One log entry.
#[derive(Clone, Debug)]
pub struct EntryOp {
    /// How far the leader's clock moved.
    after_ms: i64,
    commands: Vec<CommandOp>,
}

#[derive(Clone, Debug)]
enum CommandOp {
    Bang {
        name: u8,
        sha2: bool,
        rules: u8,
        request: u8,
    },
    Inject {
        chain: u8,
        request: u8,
        index: Expect,
        head: Expect,
        items: Vec<ItemOp>,
    },
    Leap {
        chain: u8,
        request: u8,
        note: u8,
        part: Option<u8>,
        /// Built before the first command of this step, not right before its own.
        early: bool,
        is_final: bool,
    },
    /// The same command that was sent before.
    Again(u8),
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    Nothing,
    Right,
    Wrong,
}

#[derive(Clone, Debug)]
struct ItemOp {
    id: u8,
    body: u8,
    salted: bool,
    keyed: bool,
}

#[derive(Clone, Debug)]
enum Sent {
    Bang(BangAsk),
    Inject(ChainNo, InjectAsk),
    Seal(ChainNo, SealAsk),
}

/// The model, and what the last operation comes to.
#[derive(Clone, Debug)]
pub struct State {
    pub model: Model,
    pub now_ms: u64,
    sent: Vec<Sent>,
    pub last: Step,
}

/// What is to be done with the engine.
#[derive(Clone, Debug)]
pub enum Step {
    Entries {
        entries: Vec<Vec<u8>>,
        outcomes: Vec<Vec<Outcome>>,
    },
    Tamper {
        chain: ChainNo,
        what: &'static str,
        entry: Vec<u8>,
    },
    Nothing,
}

impl State {
    pub fn new() -> Self {
        Self {
            model: Model::default(),
            now_ms: 1_000_000_000,
            sent: Vec::new(),
            last: Step::Nothing,
        }
    }

    pub fn apply(mut self, op: &Op) -> Self {
        self.last = match op {
            Op::Entries(entries) => self.entries(entries),
            Op::Tamper { chain, what } => self.tamper(*chain, *what),
            Op::Restart | Op::Reopen => Step::Nothing,
        };
        self
    }

    fn entries(&mut self, ops: &[EntryOp]) -> Step {
        let before = (self.model.clone(), self.now_ms);
        let (mut entries, mut outcomes) = (Vec::new(), Vec::new());
        for op in ops {
            self.now_ms = self.now_ms.saturating_add_signed(op.after_ms);
            let (mut commands, mut own) = (Vec::new(), Vec::new());
            for command in &op.commands {
                let Some(sent) = self.sent_for(command, &before) else {
                    continue;
                };
                commands.push(sent.bytes());
                own.push(sent.decide(&mut self.model, self.now_ms));
                self.sent.push(sent);
            }
            self.model.end_entry(self.now_ms);
            entries.push(entry(self.now_ms, &commands));
            outcomes.push(own);
        }
        Step::Entries { entries, outcomes }
    }

    fn tamper(&self, chain: u8, what: u8) -> Step {
        let Some(chain) = self.model.chain(self.pick(chain)) else {
            return Step::Nothing;
        };
        if chain.pooled() == 0 || chain.head().is_final {
            return Step::Nothing;
        }
        let honest = chain.next_header(chain.txs.len() as u64, self.now_ms, b"t", false);
        let mut all = tampered(chain, &honest);
        let (what, ask) = all.swap_remove(what as usize % all.len());
        // Time 0: nothing is forgotten, so that the entry changes nothing at all.
        Step::Tamper {
            chain: chain.no,
            what,
            entry: entry(0, &[seal_bytes(chain.no, &ask)]),
        }
    }

    fn pick(&self, chain: u8) -> ChainNo {
        if chain == u8::MAX {
            return ChainNo(1000);
        }
        ChainNo(1 + u64::from(chain) % self.model.chains.len().max(1) as u64)
    }

    fn sent_for(&self, command: &CommandOp, before: &(Model, u64)) -> Option<Sent> {
        Some(match command {
            CommandOp::Bang {
                name,
                sha2,
                rules,
                request,
            } => Sent::Bang(self.bang(*name, *sha2, *rules, *request)),
            CommandOp::Inject {
                chain,
                request,
                index,
                head,
                items,
            } => {
                let no = self.pick(*chain);
                let ask = self.inject(no, (*index, *head), items);
                let request_id = request_id(*request);
                Sent::Inject(no, InjectAsk { request_id, ..ask })
            }
            CommandOp::Leap { chain, .. } => {
                let no = self.pick(*chain);
                Sent::Seal(no, self.leap(no, command, before)?)
            }
            CommandOp::Again(which) => {
                let from = self.sent.len().checked_sub(1 + *which as usize)?;
                self.sent[from].clone()
            }
        })
    }

    fn bang(&self, name: u8, sha2: bool, rules: u8, request: u8) -> BangAsk {
        let mut constitution = constitution(NAMES[name as usize % NAMES.len()], self.now_ms);
        constitution.salt = [request; 16];
        constitution.leap_count = (rules & 1 != 0).then_some(3);
        constitution.leap_bytes = (rules & 2 != 0).then_some(40);
        constitution.leap_ms = (rules & 4 != 0).then_some(25);
        constitution.keyed = rules & 8 != 0;
        constitution.work = (rules & 16 != 0).then_some(Work {
            bits_min: 2,
            target_ms: 4,
        });
        let alg = if sha2 {
            HashAlg::Sha2_256
        } else {
            HashAlg::Sha3_256
        };
        BangAsk {
            request_id: request_id(request),
            alg,
            constitution,
        }
    }

    fn inject(&self, no: ChainNo, (index, head): (Expect, Expect), items: &[ItemOp]) -> InjectAsk {
        let (next, hash) = self.model.chain(no).map_or((0, [0; 32]), |chain| {
            (chain.txs.len() as u64, chain.head().hash())
        });
        let mut other: Hash = hash;
        other[31] ^= 1;
        InjectAsk {
            request_id: Vec::new(),
            expected_next_index: index.choose(next, next + 1),
            expected_head: head.choose(hash, other),
            items: items.iter().map(ItemOp::item).collect(),
        }
    }

    fn leap(&self, no: ChainNo, command: &CommandOp, before: &(Model, u64)) -> Option<SealAsk> {
        let CommandOp::Leap {
            request,
            note,
            part,
            early,
            is_final,
            ..
        } = command
        else {
            return None;
        };
        let early = before.0.chain(no).filter(|_| *early);
        let (chain, time_ms) = match early {
            Some(chain) => (chain, before.1),
            None => (self.model.chain(no)?, self.now_ms),
        };
        let all = chain.txs.len() as u64;
        let cuts = chain.cuts();
        let end = part.filter(|_| !is_final).map_or(all, |part| {
            cuts[part as usize % cuts.len()].max(chain.head().tx_end())
        });
        let note = vec![b'n'; *note as usize % 3];
        Some(SealAsk {
            request_id: request_id(*request),
            body: Engine::seal_body(&note, &[], *is_final),
            ..chain.next_header(end, time_ms, &note, *is_final)
        })
    }
}

impl Expect {
    fn choose<T>(self, right: T, wrong: T) -> Option<T> {
        match self {
            Expect::Nothing => None,
            Expect::Right => Some(right),
            Expect::Wrong => Some(wrong),
        }
    }
}

impl ItemOp {
    fn item(&self) -> Item {
        Item {
            // Type 1 is signed by an admin: `amend` has those.
            kind: 4 * (self.body % 2),
            id: if self.id < 6 {
                vec![b'i', self.id]
            } else {
                Vec::new()
            },
            key: self.keyed.then(|| vec![b'k', self.body]),
            salt: self.salted.then_some([self.body; 32]),
            payload: vec![self.body; 3 * self.body as usize],
        }
    }
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Sent::Bang(ask) => bang_bytes(ask),
            Sent::Inject(no, ask) => inject_bytes(*no, ask),
            Sent::Seal(no, ask) => seal_bytes(*no, ask),
        }
    }

    fn decide(&self, model: &mut Model, time_ms: u64) -> Outcome {
        match self {
            Sent::Bang(ask) => model.bang(time_ms, ask),
            Sent::Inject(no, ask) => model.inject(time_ms, *no, ask),
            Sent::Seal(no, ask) => model.seal(time_ms, *no, ask),
        }
    }
}

/// A few ids, so that they meet; most requests have none.
fn request_id(request: u8) -> Vec<u8> {
    if request < 4 {
        vec![b'r', request]
    } else {
        Vec::new()
    }
}

/// Any operation, the common ones often.
pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        24 => prop::collection::vec(entry_op(), 1..5).prop_map(Op::Entries),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(chain, what)| Op::Tamper { chain, what }),
        2 => Just(Op::Restart),
        1 => Just(Op::Reopen),
    ]
}

fn entry_op() -> impl Strategy<Value = EntryOp> {
    let after_ms = prop_oneof![
        12 => 0i64..30,
        1 => Just(DAY_MS + 7),
        1 => -400i64..0,
    ];
    (after_ms, prop::collection::vec(command_op(), 0..5))
        .prop_map(|(after_ms, commands)| EntryOp { after_ms, commands })
}

fn command_op() -> impl Strategy<Value = CommandOp> {
    prop_oneof![
        2 => (any::<u8>(), any::<bool>(), any::<u8>(), 0u8..8)
            .prop_map(|(name, sha2, rules, request)| CommandOp::Bang { name, sha2, rules, request }),
        8 => (any::<u8>(), 0u8..16, expect(), expect(), prop::collection::vec(item_op(), 1..6))
            .prop_map(|(chain, request, index, head, items)| CommandOp::Inject { chain, request, index, head, items }),
        4 => (any::<u8>(), 0u8..8, any::<u8>(), any::<Option<u8>>(), any::<bool>(), 0u8..40)
            .prop_map(|(chain, request, note, part, early, end)| CommandOp::Leap {
                chain, request, note, part, early, is_final: end == 0,
            }),
        3 => (0u8..12).prop_map(CommandOp::Again),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        6 => Just(Expect::Nothing),
        2 => Just(Expect::Right),
        1 => Just(Expect::Wrong),
    ]
}

fn item_op() -> impl Strategy<Value = ItemOp> {
    (0u8..20, 0u8..8, prop::bool::weighted(0.2), any::<bool>()).prop_map(
        |(id, body, salted, keyed)| ItemOp {
            id,
            body: if id < 6 { body % 2 } else { body },
            salted,
            keyed,
        },
    )
}
