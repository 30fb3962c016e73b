//! Trees: roots, inclusion, consistency, and their corruptions.

use qbc::chain::{
    Frontier, Hash, HashAlg, LeafReader, Refused, consistency_path, inclusion_path, tree_root,
    verify_consistency, verify_inclusion,
};
use serde_json::Value;

use super::attack::{Attack, hash_flips, path_corruptions};
use super::vectors::{V1, alg, bytes, hash, hashes, list, number};

#[test]
fn every_tree_of_the_vectors_has_its_root() {
    let mut trees = 0;
    for tree in list(&V1["trees"]) {
        let (alg, leaves) = (alg(tree), tree_leaves(tree));
        assert_eq!(tree_root(alg, &leaves), hash(&tree["root"]));
        let mut frontier = Frontier::new();
        for leaf in &leaves {
            frontier.push(alg, *leaf);
        }
        assert_eq!(frontier.root(alg), hash(&tree["root"]));
        trees += 1;
    }
    assert_eq!(trees, 38);
}

#[test]
fn every_inclusion_of_the_vectors_holds_and_no_corruption_of_it_does() {
    for tree in list(&V1["trees"]) {
        let (alg, leaves, size, root) = (
            alg(tree),
            tree_leaves(tree),
            number(&tree["size"]),
            hash(&tree["root"]),
        );
        for case in list(&tree["inclusion"]) {
            let (index, leaf, path) = (
                number(&case["index"]),
                hash(&case["leaf"]),
                hashes(&case["path"]),
            );
            assert_eq!(leaf, leaves[index as usize]);
            let Ok(made) = inclusion_path(
                alg,
                &LeafReader {
                    alg,
                    leaves: &leaves,
                },
                index,
                size,
            );
            assert_eq!(made, path);
            let good = Inclusion {
                alg,
                leaf,
                index,
                size,
                path,
                root,
            };
            good.verify().unwrap();
            attack_inclusion(&good);
        }
    }
}

#[test]
fn every_consistency_of_the_vectors_holds_and_no_corruption_of_it_does() {
    for tree in list(&V1["trees"]) {
        let (alg, leaves, second) = (alg(tree), tree_leaves(tree), number(&tree["size"]));
        for case in list(&tree["consistency"]) {
            let (first, path, first_root) = (
                number(&case["first"]),
                hashes(&case["path"]),
                hash(&case["first_root"]),
            );
            assert_eq!(tree_root(alg, &leaves[..first as usize]), first_root);
            let Ok(made) = consistency_path(
                alg,
                &LeafReader {
                    alg,
                    leaves: &leaves,
                },
                first,
                second,
            );
            assert_eq!(made, path);
            let good = Consistency {
                alg,
                first,
                second,
                path,
                first_root,
                second_root: hash(&tree["root"]),
            };
            good.verify().unwrap();
            attack_consistency(&good);
        }
    }
}

#[test]
fn classic_roots_hold() {
    let mut seen = 0;
    for case in list(&V1["classic_roots"]) {
        let alg = alg(case);
        let data = classic_leaves();
        let leaves: Vec<Hash> = data[..number(&case["size"]) as usize]
            .iter()
            .map(|d| alg.leaf(d))
            .collect();
        assert_eq!(tree_root(alg, &leaves), hash(&case["root"]));
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[derive(Clone)]
struct Inclusion {
    alg: HashAlg,
    leaf: Hash,
    index: u64,
    size: u64,
    path: Vec<Hash>,
    root: Hash,
}

impl Inclusion {
    fn verify(&self) -> Result<(), Refused> {
        verify_inclusion(
            self.alg, &self.leaf, self.index, self.size, &self.path, &self.root,
        )
    }
}

fn attack_inclusion(good: &Inclusion) {
    let mut attack = Attack::on(format!("inclusion {} of {}", good.index, good.size));
    for leaf in hash_flips(&good.leaf)
        .into_iter()
        .chain([[0; 32], [0xff; 32]])
    {
        attack.refuses_by(
            "inclusion-root",
            "leaf",
            Inclusion {
                leaf,
                ..good.clone()
            }
            .verify(),
        );
    }
    for root in hash_flips(&good.root)
        .into_iter()
        .chain([[0; 32], good.alg.empty()])
    {
        attack.refuses_by(
            "inclusion-root",
            "root",
            Inclusion {
                root,
                ..good.clone()
            }
            .verify(),
        );
    }
    for (what, path) in path_corruptions(&good.path) {
        attack.refuses(
            &what,
            Inclusion {
                path,
                ..good.clone()
            }
            .verify(),
        );
    }
    for index in [good.index + 1, good.index ^ 1, good.index ^ 2, u64::MAX] {
        attack.refuses(
            "index",
            Inclusion {
                index,
                ..good.clone()
            }
            .verify(),
        );
    }
    let deep = good.size.next_power_of_two();
    for size in [0, good.index] {
        attack.refuses_by(
            "inclusion-index",
            "size",
            Inclusion {
                size,
                ..good.clone()
            }
            .verify(),
        );
    }
    for size in [deep * 2, deep * 8, u64::MAX] {
        attack.refuses_by(
            "inclusion-path",
            "size",
            Inclusion {
                size,
                ..good.clone()
            }
            .verify(),
        );
    }
    if good.size > 1 {
        attack.refuses(
            "alg",
            Inclusion {
                alg: other(good.alg),
                ..good.clone()
            }
            .verify(),
        );
    }
    attack.at_least_twenty();
}

#[derive(Clone)]
struct Consistency {
    alg: HashAlg,
    first: u64,
    second: u64,
    path: Vec<Hash>,
    first_root: Hash,
    second_root: Hash,
}

impl Consistency {
    fn verify(&self) -> Result<(), Refused> {
        verify_consistency(
            self.alg,
            self.first,
            self.second,
            &self.path,
            &self.first_root,
            &self.second_root,
        )
    }
}

fn attack_consistency(good: &Consistency) {
    let mut attack = Attack::on(format!("consistency {} to {}", good.first, good.second));
    for first_root in hash_flips(&good.first_root)
        .into_iter()
        .chain([[0; 32], [0xff; 32]])
    {
        attack.refuses(
            "first root",
            Consistency {
                first_root,
                ..good.clone()
            }
            .verify(),
        );
    }
    for second_root in hash_flips(&good.second_root)
        .into_iter()
        .chain([[0; 32], [0xff; 32]])
    {
        attack.refuses_by(
            "consistency-second-root",
            "second root",
            Consistency {
                second_root,
                ..good.clone()
            }
            .verify(),
        );
    }
    for (what, path) in path_corruptions(&good.path) {
        attack.refuses(
            &what,
            Consistency {
                path,
                ..good.clone()
            }
            .verify(),
        );
    }
    let beyond = good.second + 1;
    attack.refuses_by(
        "consistency-size",
        "first beyond",
        Consistency {
            first: beyond,
            ..good.clone()
        }
        .verify(),
    );
    let deep = good.second.next_power_of_two();
    for second in [deep * 2, deep * 8, u64::MAX] {
        attack.refuses(
            "second",
            Consistency {
                second,
                ..good.clone()
            }
            .verify(),
        );
    }
    if good.first < good.second {
        attack.refuses(
            "alg",
            Consistency {
                alg: other(good.alg),
                ..good.clone()
            }
            .verify(),
        );
    }
    attack.at_least_twenty();
}

fn tree_leaves(tree: &Value) -> Vec<Hash> {
    let data: Vec<Vec<u8>> = list(&tree["leaf_data"]).iter().map(bytes).collect();
    let leaf = |i: u64| alg(tree).hash(&[&[0], &data[i as usize % data.len()], &i.to_be_bytes()]);
    (0..number(&tree["size"])).map(leaf).collect()
}

/// The leaves of the Certificate Transparency reference tests.
fn classic_leaves() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    texts.iter().map(|t| hex::decode(t).unwrap()).collect()
}

fn other(alg: HashAlg) -> HashAlg {
    match alg {
        HashAlg::Sha3_256 => HashAlg::Sha2_256,
        HashAlg::Sha2_256 => HashAlg::Sha3_256,
    }
}
