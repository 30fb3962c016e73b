//! What an audit found, in sentences.

use super::{Auditor, Current, StateAudit};
use crate::chain::constitution::Work;
use crate::chain::quant::Header;

impl Auditor {
    /// All that was checked, and all that could not be; `nodes` signed the head.
    pub(super) fn sentences(&self, current: &Current, nodes: &[u64]) -> Vec<String> {
        let constitution = &current.rules.constitution;
        let mut steps = vec![
            format!(
                "chain {} was banged under the name {:?}",
                current.rules.chain_id, constitution.name
            ),
            format!(
                "{} Quants: each follows the one before, with the history root of all of them",
                self.quants
            ),
            format!(
                "{} transactions: each at its index, all roots recomputed",
                self.transactions
            ),
        ];
        if let Some(work) = constitution.work {
            steps.push(say_work(work, &current.header));
        }
        self.say_payloads(&mut steps);
        self.say_authors(&mut steps);
        self.say_state(constitution.keyed, &mut steps);
        if self.subchain.is_some() {
            steps.push(
                "a subchain: it begins with the signed Quant that split its parent, and each key and id in it is routed to it"
                    .to_owned(),
            );
        }
        let (claims, credits) = self.state.as_ref().map_or((0, 0), StateAudit::taken_over);
        if claims > 0 {
            steps.push(format!(
                "{claims} keys and accounts are taken over from the chains above, each once, as their states at the split have them"
            ));
        }
        if credits > 0 {
            steps.push(format!(
                "{credits} amounts came from other subchains, each once, by the signed Quant that sealed its debit"
            ));
        }
        if self.anchored > 0 {
            steps.push(format!(
                "{} heads of its subchains are anchored, each above the one before",
                self.anchored
            ));
        }
        if !nodes.is_empty() {
            steps.push(format!(
                "the head is signed by nodes {nodes:?}, certified by the chain's authority"
            ));
        }
        steps
    }

    fn say_payloads(&self, steps: &mut Vec<String>) {
        if self.erased > 0 {
            steps.push(format!(
                "{} payloads are erased: their hashes stand, their content is unknown",
                self.erased
            ));
        }
        if !self.unexplained.is_empty() {
            steps.push(format!(
                "of {} of them no tombstone is sealed up to this head: it is younger, or the payload was only left out",
                self.unexplained.len()
            ));
        }
        if self.matched > 0 {
            steps.push(format!("{} payloads match the JSON schema", self.matched));
        }
        if self.unmatched > 0 {
            steps.push(format!(
                "{} payloads were not checked against the JSON schema: {}",
                self.unmatched, self.unmatched_why
            ));
        }
    }

    fn say_authors(&self, steps: &mut Vec<String>) {
        if self.signed > 0 {
            steps.push(format!(
                "{} transactions are signed: each signature holds",
                self.signed
            ));
        }
        if self.changes > 0 {
            steps.push(format!(
                "the constitution was changed {} times, each time by an admin; each transaction was held against the one in force",
                self.changes
            ));
        }
    }

    fn say_state(&self, keyed: bool, steps: &mut Vec<String>) {
        if keyed {
            steps.push("the state root of each Quant: recomputed from the keys".to_owned());
        }
        if self.state.as_ref().is_some_and(StateAudit::is_ledger) {
            steps.push(
                "each transfer had its sender's money behind it; the state root of each Quant: recomputed from the balances"
                    .to_owned(),
            );
        }
        if self.unruled > 0 {
            steps.push(format!(
                "{} transactions of other types: hashes checked, their rules not",
                self.unruled
            ));
        }
    }
}

fn say_work(work: Work, head: &Header) -> String {
    let rule = match work.target_ms {
        0 => String::new(),
        target_ms => format!(", retargeted to {target_ms} ms per Quant"),
    };
    format!(
        "work: each Quant has the zero bits that the constitution asks for (minimum {}{rule}); of the head {} were asked for, {} found",
        work.bits_min,
        head.pow_bits,
        head.zero_bits()
    )
}
