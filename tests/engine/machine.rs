//! The run: three replicas of one group in one store. The first is asked after every step; the second takes every entry
//! in a batch of its own and forgets its memory often; the third takes many entries in one batch. All must agree.

use proptest::{prelude::*, test_runner::Config};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use qbc::chain::HashAlg;
use qbc::engine::{Outcome, Reader, Rejection};

use crate::operations::{Op, State, Step, op};
use crate::replica::{Replica, check_quants, entry, inject_bytes, open, plain_bang, plain_inject};

/// Entries that the third replica takes in one batch, in turn.
const BATCHES: [usize; 5] = [3, 64, 1, 17, 9];

prop_state_machine! {
    #![proptest_config(Config { cases: 96, max_shrink_iters: 4000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_engine_does_what_the_model_does_and_every_replica_has_the_same_bytes(sequential 1..60 => Trio);
}

struct Trio {
    replicas: Vec<Replica>,
    waiting: Vec<(Vec<u8>, Vec<Outcome>)>,
    turn: usize,
    dir: tempfile::TempDir,
}

impl ReferenceStateMachine for Trio {
    type State = State;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<State> {
        Just(State::new()).boxed()
    }

    fn transitions(_: &State) -> BoxedStrategy<Op> {
        op().boxed()
    }

    fn apply(state: State, op: &Op) -> State {
        state.apply(op)
    }
}

impl StateMachineTest for Trio {
    type SystemUnderTest = Self;
    type Reference = Self;

    fn init_test(_: &State) -> Self {
        let mut trio = Self {
            replicas: Vec::new(),
            waiting: Vec::new(),
            turn: 0,
            dir: tempfile::tempdir().unwrap(),
        };
        trio.open();
        trio
    }

    fn apply(mut trio: Self, state: &State, op: Op) -> Self {
        match &state.last {
            Step::Entries { entries, outcomes } => trio.entries(state, entries, outcomes),
            Step::Tamper { chain, what, entry } => trio.tamper(*chain, what, entry),
            Step::Nothing => {}
        }
        match op {
            Op::Restart => trio.replicas[0].restart(),
            Op::Reopen => {
                trio.open();
                assert!(trio.replicas[0].rows() == trio.replicas[1].rows());
            }
            Op::Entries(_) | Op::Tamper { .. } => {}
        }
        trio.replicas[0].check_view(&state.model, state.now_ms);
        trio
    }

    fn teardown(mut trio: Self, state: State) {
        trio.take(usize::MAX);
        let rows: Vec<_> = trio.replicas.iter().map(Replica::rows).collect();
        assert!(rows[0] == rows[1], "one entry in a batch gives other bytes");
        assert!(
            rows[0] == rows[2],
            "many entries in a batch give other bytes"
        );
        trio.open();
        trio.replicas
            .iter()
            .for_each(|replica| replica.check_all(&state.model));
    }
}

impl Trio {
    /// Closes what is open, then opens all.
    fn open(&mut self) {
        self.replicas.clear();
        let store = open(self.dir.path());
        self.replicas = (1..4).map(|slot| Replica::new(&store, slot)).collect();
    }

    fn entries(&mut self, state: &State, entries: &[Vec<u8>], outcomes: &[Vec<Outcome>]) {
        assert_eq!(self.replicas[0].apply(entries), outcomes);
        self.check_sealed(state, outcomes);
        for (entry, expected) in entries.iter().zip(outcomes) {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                self.replicas[1].restart();
            }
            let own = self.replicas[1].apply(std::slice::from_ref(entry));
            assert_eq!(own[0], *expected);
            self.waiting.push((entry.clone(), expected.clone()));
        }
        self.take(BATCHES[self.turn % BATCHES.len()]);
    }

    fn check_sealed(&self, state: &State, outcomes: &[Vec<Outcome>]) {
        let reader = Reader::new(&self.replicas[0].store, self.replicas[0].slot);
        for outcome in outcomes.iter().flatten() {
            if let Outcome::Sealed(Ok(sealed)) = outcome {
                let mut chains = state.model.chains.iter();
                let chain = chains.find(|chain| chain.id() == sealed.header.chain_id);
                let height = sealed.header.height;
                check_quants(&reader, chain.unwrap(), height);
            }
        }
    }

    /// The third replica takes what waits, once `size` entries do.
    fn take(&mut self, size: usize) {
        let all = size == usize::MAX;
        while !self.waiting.is_empty() && (all || self.waiting.len() >= size) {
            let rest = self.waiting.split_off(size.min(self.waiting.len()));
            let (entries, expected): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
            assert_eq!(self.replicas[2].apply(&entries), expected);
            if self.turn.is_multiple_of(2) {
                self.replicas[2].restart();
            }
            self.waiting = rest;
        }
    }

    fn tamper(&mut self, chain: qbc::store::ChainNo, what: &str, bytes: &[u8]) {
        let before = self.replicas[0].rows();
        let outcomes = self.replicas[0].apply(&[bytes.to_vec()]);
        let differs = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::Sealed(Err(Rejection::SealDiffers(_)))
                    | Outcome::Injected(Err(Rejection::SealDiffers(_)))
            )
        };
        assert!(differs(&outcomes[0][0]), "{what}: {outcomes:?}");
        let inject = inject_bytes(chain, &plain_inject([b"after".to_vec()]));
        let after = self.replicas[0].apply(&[entry(0, &[inject])]);
        assert!(differs(&after[0][0]), "{what}: {after:?}");
        assert!(self.replicas[0].rows() == before, "{what}");
        self.replicas[0].restart();
    }
}

#[test]
fn the_model_test_notices_a_replica_that_lost_one_row() {
    use qbc::store::{Cf, ChainNo, tx_key};
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let replica = Replica::new(&store, 1);
    let mut model = crate::model::Model::default();
    let (bang, inject) = (
        plain_bang("c", HashAlg::Sha3_256),
        plain_inject([vec![1], vec![2]]),
    );
    model.bang(5, &bang);
    model.inject(5, ChainNo(1), &inject);
    model.end_entry(5);
    let commands = [
        crate::replica::bang_bytes(&bang),
        inject_bytes(ChainNo(1), &inject),
    ];
    replica.apply(&[entry(5, &commands)]);
    replica.check_all(&model);
    let mut batch = store.batch();
    batch.delete(Cf::Tx, tx_key(replica.slot, ChainNo(1), 1));
    store.write(batch).unwrap();
    let checked = std::panic::AssertUnwindSafe(|| replica.check_all(&model));
    assert!(std::panic::catch_unwind(checked).is_err());
}
