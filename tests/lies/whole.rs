//! Lies about subchains: one that is hidden, begins late, lost its newest Quant, has another history or stands in for
//! another is refused by `prove --whole` and by `audit`, and the same proxy is believed without the lie.
use crate::stage::{KNOWING, NEWCOMER, Stage};

const WHOLE: &str = "prove s --whole -o FILE";
const AUDIT: &str = "audit s";

#[test]
fn a_hidden_subchain_is_found() {
    let stage = Stage::split("hidden-child");
    stage.as_client(KNOWING, AUDIT).well("the first audit");
    for client in [KNOWING, NEWCOMER] {
        stage.refuses(client, "read-gap", &[WHOLE]);
    }
    stage.refuses(KNOWING, "read-gap", &[AUDIT]);
    stage.proxy.lie();
    stage.fails_by(NEWCOMER, AUDIT, "read-gap");
}

/// Whoever seals both chains can make the one begin late and anchor it so: who was there before sees a rewritten history,
/// who was not sees what no subchain begins with.
#[test]
fn a_subchain_that_starts_late_is_found() {
    let stage = Stage::split("late-child");
    stage.as_client(KNOWING, AUDIT).well("the first audit");
    stage.proxy.lie();
    stage.refused(NEWCOMER, WHOLE, "whole-start");
    stage.fails_by(NEWCOMER, AUDIT, "audit-claim");
    stage.refused(KNOWING, WHOLE, "head-equivocation");
    stage.refused(KNOWING, AUDIT, "head-equivocation");
}

#[test]
fn a_subchain_without_its_anchored_head_is_found() {
    let stage = Stage::split("old-child");
    stage.proxy.lie();
    stage.refused(NEWCOMER, WHOLE, "head-went-back");
    stage.fails_by(NEWCOMER, AUDIT, "head-went-back");
}

#[test]
fn a_subchain_with_another_history_than_the_anchored_one_is_found() {
    let stage = Stage::split("rewritten-child");
    stage.proxy.lie();
    stage.refused(NEWCOMER, WHOLE, "inclusion-root");
    stage.fails_by(NEWCOMER, AUDIT, "head-equivocation");
}

#[test]
fn a_subchain_in_place_of_another_is_found() {
    let stage = Stage::split("swapped-child");
    stage.proxy.lie();
    stage.refused(NEWCOMER, WHOLE, "chain-name");
    stage.fails_by(NEWCOMER, AUDIT, "chain-name");
}
