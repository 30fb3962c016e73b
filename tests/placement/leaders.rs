//! Who leads: handing over while running and at a stop.

use std::collections::BTreeMap;

use qbc::consensus::placement::{Follower, Led, handover, successor};
use qbc::engine::GroupId;

/// Groups led by node 1, 2, 3; what node 1 may hand over; what it does.
type Case = ([usize; 3], &'static [Ready], Option<(u32, u64)>);
/// A group and who is ready to lead it.
type Ready = (u32, &'static [u64]);

fn led(group: u32, ready: &[u64]) -> Led {
    Led {
        group: GroupId(group),
        ready: ready.to_vec(),
    }
}

#[test]
fn a_group_goes_to_the_voter_that_leads_the_fewest_if_that_is_two_fewer() {
    let cases: [Case; 8] = [
        ([4, 0, 0], &[(7, &[2, 3]), (5, &[2, 3])], Some((5, 2))),
        ([4, 1, 0], &[(5, &[2, 3])], Some((5, 3))),
        ([4, 1, 0], &[(5, &[2]), (6, &[3])], Some((6, 3))),
        ([4, 3, 0], &[(5, &[2])], None),
        ([2, 1, 1], &[(5, &[2, 3])], None),
        ([4, 0, 0], &[(5, &[])], None),
        ([4, 0, 0], &[(5, &[1])], None),
        ([4, 0, 0], &[], None),
    ];
    for (counts, mine, expected) in cases {
        let counts: BTreeMap<u64, usize> = (1..).zip(counts).collect();
        let expected = expected.map(|(group, node)| (GroupId(group), node));
        let mine: Vec<Led> = mine
            .iter()
            .map(|(group, ready)| led(*group, ready))
            .collect();
        assert_eq!(handover(1, &counts, &mine), expected, "{counts:?} {mine:?}");
    }
    // A node that nobody counted leads nothing.
    assert_eq!(
        handover(1, &BTreeMap::from([(1, 2)]), &[led(5, &[9])]),
        Some((GroupId(5), 9))
    );
}

#[test]
fn handing_over_ends_with_every_node_leading_as_many_as_any_other() {
    for nodes in 2..=5u64 {
        let mut leaders: BTreeMap<u32, u64> = (1..=64).map(|group| (group, 1)).collect();
        let all: Vec<u64> = (1..=nodes).collect();
        let counts = |leaders: &BTreeMap<u32, u64>| {
            let count = |node| leaders.values().filter(|leader| **leader == node).count();
            let counts = all.iter().map(|node| (*node, count(*node)));
            counts.collect::<BTreeMap<u64, usize>>()
        };
        loop {
            let seen = counts(&leaders);
            // All nodes decide on the same sight, at once.
            let moves: Vec<_> = all
                .iter()
                .filter_map(|me| {
                    let mine = leaders.iter().filter(|(_, leader)| *leader == me);
                    let mine: Vec<Led> = mine.map(|(group, _)| led(*group, &all)).collect();
                    handover(*me, &seen, &mine)
                })
                .collect();
            if moves.is_empty() {
                break;
            }
            leaders.extend(moves.into_iter().map(|(group, node)| (group.0, node)));
        }
        let counts = counts(&leaders);
        let (least, most) = (counts.values().min(), counts.values().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
    }
}

#[test]
fn at_a_stop_the_living_voter_that_lacks_the_least_takes_over() {
    let voter = |node, matched, alive| Follower {
        node,
        matched,
        alive,
    };
    let cases = [
        (vec![voter(2, 9, true), voter(3, 10, true)], Some(3)),
        (vec![voter(2, 9, true), voter(3, 10, false)], Some(2)),
        (vec![voter(3, 9, true), voter(2, 9, true)], Some(2)),
        (vec![voter(2, 9, false)], None),
        (vec![], None),
    ];
    for (voters, expected) in cases {
        assert_eq!(successor(&voters), expected, "{voters:?}");
    }
}
