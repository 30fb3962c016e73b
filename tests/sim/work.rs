//! What clients want on each host that leads: transactions in the groups' chains, and Quants over them. What is not
//! answered is asked for again with the same request_id, wherever the group is led then.

use std::{future::pending, time::Duration};

use qbc::chain::{Birth, ChainName, Constitution, HashAlg, Meta};
use qbc::consensus::{Group, Groups, ProposeError};
use qbc::engine::{
    Bang, GroupId, InjectHead, InjectItem, Outcome, Reader, Rejection, Seal, TemplateRequest,
};
use qbc::store::ChainNo;
use tokio::time::sleep;

use crate::book::{Book, Wish};
use crate::chance::Rng;
use crate::node::{Host, authority};

/// Clients of a group on each host.
const WRITERS: usize = 4;
const PAYLOAD_BYTES_MAX: u64 = 2000;

/// Makes each data group's chain; the founder leads them all then, or is about to.
pub async fn bang(book: &Book, groups: &Groups) {
    for id in (1..=groups.count().unwrap()).map(GroupId) {
        let mut names = (0..).map(|number| format!("sim-{number}"));
        let of_group = |name: &String| groups.of_name(&ChainName::parse(name).unwrap()) == Some(id);
        let constitution = Constitution::from(Birth {
            name: names.find(of_group).unwrap(),
            created_ms: 1000,
            salt: [3; 16],
            authority: authority(),
            cluster_id: groups.cluster().founded.as_ref().unwrap().cluster_id,
        });
        let meta = Meta {
            constitution: Some(constitution.to_bytes()),
            ..Meta::default()
        };
        let bang = Bang {
            request_id: b"",
            alg: HashAlg::Sha3_256,
            meta: &meta.to_bytes(),
        };
        let group = groups.get(id).unwrap();
        let banged = loop {
            match group.propose(bang.encode()).await {
                Ok(Outcome::Banged(Ok(banged))) => break banged,
                Ok(other) => panic!("{other:?}"),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        book.with(|pages| pages.chains.insert(id.0, banged.chain));
    }
}

/// Runs the clients of a host, until it crashes.
pub async fn run(host: Host, groups: Groups) {
    for id in (1..=host.data_groups).map(GroupId) {
        for number in 0..WRITERS {
            let rng = host.rng(&format!("writer {id:?} {number}"));
            tokio::spawn(write(host.clone(), groups.clone(), id, rng));
        }
        let rng = host.rng(&format!("sealer {id:?}"));
        tokio::spawn(seal(host.clone(), groups.clone(), id, rng));
        let rng = host.rng(&format!("reader {id:?}"));
        tokio::spawn(read(host.clone(), groups.clone(), id, rng));
    }
    pending::<()>().await;
}

fn led(groups: &Groups, id: GroupId) -> Option<Group> {
    groups.get(id).filter(Group::leads)
}

async fn write(host: Host, groups: Groups, id: GroupId, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(rng.between(5, 60))).await;
        let Some(group) = led(&groups, id) else {
            continue;
        };
        let Some((wish, payload, chain)) = take(&host, id, &mut rng) else {
            continue;
        };
        let answer = group.propose(inject(chain, wish, &payload)).await;
        answered(&host, id, wish, answer);
    }
}

/// A wish that nobody is at, or a new one.
fn take(host: &Host, group: GroupId, rng: &mut Rng) -> Option<(u64, Vec<u8>, ChainNo)> {
    host.book.with(|pages| {
        let chain = *pages.chains.get(&group.0)?;
        let free =
            |wish: &Wish| wish.group == group && wish.at.is_none() && wish.acknowledged.is_none();
        let open = pages.wishes.iter().find(|(_, wish)| free(wish));
        let id = match open {
            Some((id, _)) => *id,
            None if pages.closing => return None,
            None => pages.wishes.len() as u64,
        };
        let wish = pages.wishes.entry(id).or_insert_with(|| {
            let mut payload = format!("{id}/").into_bytes();
            let length = rng.below(PAYLOAD_BYTES_MAX);
            payload.extend((0..length).map(|_| rng.next() as u8));
            Wish {
                group,
                payload,
                at: None,
                tries: 0,
                acknowledged: None,
            }
        });
        wish.at = Some(host.index);
        wish.tries += 1;
        Some((id, wish.payload.clone(), chain))
    })
}

fn inject(chain: ChainNo, wish: u64, payload: &[u8]) -> Vec<u8> {
    let item = InjectItem {
        kind: 0,
        attributes: &[],
        id: &[],
        salt: None,
        transfer: None,
        payload,
    };
    InjectHead {
        chain,
        request_id: &Wish::request_id(wish),
        expected_next_index: None,
        expected_head: None,
    }
    .encode([item].into_iter(), payload.len())
}

fn answered(host: &Host, group: GroupId, wish: u64, answer: Result<Outcome, ProposeError>) {
    let index = match answer {
        Ok(Outcome::Injected(Ok(injected))) => Some(injected.runs[0].first),
        Ok(other) => panic!("wish {wish}: {other:?}"),
        Err(_) => None,
    };
    let tries = host.book.with(|pages| {
        let wish = pages.wishes.get_mut(&wish).unwrap();
        wish.at = None;
        assert!(wish.acknowledged.is_none() || wish.acknowledged == index);
        wish.acknowledged = index;
        wish.tries
    });
    let told = match index {
        Some(index) => format!("is {index} ({tries})"),
        None => "is not answered".to_owned(),
    };
    let at = host.index;
    host.book
        .trace(format_args!("n{at} group {}: wish {wish} {told}", group.0));
}

/// Reads under the lease where the host believes that it leads: what was acknowledged before must be there.
async fn read(host: Host, groups: Groups, id: GroupId, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(rng.between(5, 60))).await;
        let chain = host.book.with(|pages| pages.chains.get(&id.0).copied());
        let (Some(group), Some(chain)) = (led(&groups, id), chain) else {
            continue;
        };
        let before = host.book.newest_acknowledged(id);
        let Ok(index) = group.read_index().await else {
            continue;
        };
        if group.applied(index).await.is_err() {
            continue;
        }
        let reader = Reader::new(groups.store(), group.engine().slot());
        let next = reader.chain_no(chain).unwrap().unwrap().pool.next_index;
        assert!(
            before.is_none_or(|newest| newest < next),
            "n{} group {}: a read ends before index {next}, and {before:?} was acknowledged",
            host.index,
            id.0
        );
        host.book.with(|pages| pages.reads += 1);
    }
}

async fn seal(host: Host, groups: Groups, id: GroupId, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(rng.between(500, 2500))).await;
        let chain = host.book.with(|pages| pages.chains.get(&id.0).copied());
        let (Some(group), Some(chain)) = (led(&groups, id), chain) else {
            continue;
        };
        let asked = TemplateRequest {
            time_ms: groups.now_ms(),
            node_id: groups.node_id(),
            note: b"",
            is_final: false,
        };
        let Ok(template) = group.engine().template(chain, &asked).unwrap() else {
            continue;
        };
        let height = template.header.height;
        let seal = Seal {
            chain,
            request_id: b"",
            request_body: [0; 32],
            header: &template.header.to_bytes(),
            meta: &template.meta,
        };
        match group.propose(seal.encode()).await {
            Ok(Outcome::Sealed(Err(Rejection::SealDiffers(why)))) => panic!("{why}"),
            Ok(Outcome::Sealed(Ok(_))) => {
                host.book.with(|pages| pages.sealed += 1);
                let at = host.index;
                host.book
                    .trace(format_args!("n{at} group {}: height {height}", id.0));
            }
            Ok(_) | Err(_) => {}
        }
    }
}
