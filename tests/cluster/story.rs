//! A cluster with chains and, if asked for, a load; and the end that every story has: all replicas agree with all that
//! clients saw.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use qbc::proto::{InjectRequest, TransactionInput};
use tokio::{
    sync::{Mutex, MutexGuard},
    time,
};
use tonic::Status;

use crate::{
    book::Book,
    chance::Chance,
    checker::{Extent, check},
    fleet::{Fleet, InPlay, Options, WHOLE_MAX},
    hands::{Ground, Hands, Stop, in_time},
    history::Item,
    last,
    plot::{Plot, plots},
};

const BANG_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// One cluster at a time: the machine is shared enough.
static TURN: Mutex<()> = Mutex::const_new(());

pub struct Story {
    pub fleet: Fleet,
    pub ground: Ground,
    pub chance: Chance,
    hands: Option<Hands>,
    loads: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Story {
    /// A whole cluster of so many nodes, and chains.
    pub async fn of(nodes: usize, test: &str) -> Self {
        Self::with(nodes, Options::default(), test).await
    }

    /// The same where all chains are in one group.
    pub async fn in_one_group(nodes: usize, test: &str) -> Self {
        Self::with(nodes, Options::default().with("QBC_GROUPS", "1"), test).await
    }

    pub async fn with(nodes: usize, options: Options, test: &str) -> Self {
        let turn = TURN.lock().await;
        let mut chance = Chance::seeded(test);
        let fleet = Fleet::of(nodes, options, &mut chance).await;
        let plots = Arc::new(plots(0));
        let ground = Ground {
            doors: fleet.doors.clone(),
            in_play: fleet.in_play.clone(),
            book: Book::of(plots.iter().map(|plot| plot.name.clone()).collect()),
            plots,
            stop: Stop::default(),
        };
        for plot in ground.plots.iter() {
            bang(&ground, plot).await;
        }
        Self {
            fleet,
            ground,
            chance,
            hands: None,
            loads: 0,
            _turn: turn,
        }
    }

    /// All kinds of clients at work on all chains, through all members.
    pub fn load(&mut self) {
        self.load_by(self.fleet.in_play.clone());
    }

    /// The same through one member only.
    pub fn load_through(&mut self, slot: usize) {
        self.load_by(InPlay::only(slot));
    }

    fn load_by(&mut self, in_play: InPlay) {
        assert!(self.hands.is_none(), "one load at a time");
        self.ground.stop = Stop::default();
        let ground = Ground {
            in_play,
            ..self.ground.clone()
        };
        self.loads += 1;
        self.hands = Some(Hands::at_work(&ground, self.loads, &mut self.chance));
    }

    pub async fn load_ends(&mut self) {
        if let Some(hands) = self.hands.take() {
            hands.end().await;
        }
    }

    /// Injects one transaction into the first chain by this member, and enters it like those of a load; its index.
    pub async fn inject(&self, slot: usize, label: &str) -> Result<u64, Status> {
        let item = Item {
            id: label.to_owned().into(),
            payload: label.to_owned().into(),
        };
        let input = TransactionInput {
            payload: item.payload.clone(),
            id: item.id.clone(),
            ..TransactionInput::default()
        };
        let request = InjectRequest {
            chain: self.chain().to_owned(),
            transactions: vec![input],
            ..InjectRequest::default()
        };
        let number = self.ground.book.sending(0, vec![item], &request);
        let answer = self
            .ground
            .doors
            .chains(slot)
            .inject(request)
            .await?
            .into_inner();
        self.ground.book.answered(number, &answer);
        Ok(answer.runs[0].first_index)
    }

    /// The first chain.
    pub fn chain(&self) -> &str {
        &self.ground.plots[0].name
    }

    /// Lets the load work.
    pub async fn for_a_while(&self, seconds: f64) {
        time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    /// Acknowledged transactions per second over this time, from now on.
    pub async fn rate(&self, seconds: f64) -> f64 {
        let before = self.ground.book.acknowledged();
        self.for_a_while(seconds).await;
        (self.ground.book.acknowledged() - before) as f64 / seconds
    }

    /// How long it takes from now on until a request is acknowledged that was sent after now, on each chain.
    pub async fn until_acknowledged(&self, within: Duration) -> Duration {
        let (begun, from) = (Instant::now(), self.ground.book.now());
        let again = |chain: usize| {
            let history = self.ground.book.history();
            let mut writes = history.writes.into_iter().rev();
            writes.any(|write| {
                let after = write.answers.iter().any(|answer| answer.at > from);
                write.chain == chain && write.sent > from && after
            })
        };
        while !(0..self.ground.plots.len()).all(again) {
            assert!(
                begun.elapsed() < within,
                "nothing is acknowledged within {within:?}"
            );
            time::sleep(POLL).await;
        }
        begun.elapsed()
    }

    /// The node that ends by itself, at a point that was named; `what` says which.
    pub async fn one_dies(&mut self, within: Duration, what: &str) -> usize {
        let until = Instant::now() + within;
        loop {
            for slot in self.fleet.slots() {
                if self.fleet.member(slot).ended().is_some() {
                    return slot;
                }
            }
            assert!(Instant::now() < until, "nobody reaches {what}");
            time::sleep(POLL).await;
        }
    }

    /// The slot of the leader of a group, as all members agree.
    pub async fn leader(&self, group: u32) -> usize {
        self.fleet
            .whole(WHOLE_MAX)
            .await
            .expect("the cluster is whole");
        let views = self.fleet.views().await;
        let view = views
            .into_iter()
            .find_map(|(_, view)| view.ok())
            .expect("a view");
        let leader = crate::fleet::leader_of(&view, group);
        self.fleet.slot_of(leader).await.expect("the leader runs")
    }

    /// Ends the load; then the cluster is whole, and every replica holds what clients saw.
    pub async fn ends_well(mut self) {
        self.load_ends().await;
        self.fleet
            .whole(WHOLE_MAX)
            .await
            .expect("the cluster is whole");
        let settled = last::settle(&self.ground, &mut self.chance).await;
        settled.expect("a whole cluster answers");
        let replicas = last::replicas(&self.ground).await;
        let replicas = replicas.expect("replicas come to one height");
        let violations = check(&self.ground.book.history(), &replicas, Extent::Whole);
        assert_eq!(violations, []);
    }
}

/// Creates a chain, by any node, again until it is there.
async fn bang(ground: &Ground, plot: &Plot) {
    let slots = ground.in_play.slots();
    let until = Instant::now() + BANG_MAX;
    for slot in slots.iter().cycle() {
        match ground.doors.chains(*slot).bang(in_time(plot.bang())).await {
            Ok(_) => return,
            Err(status) => assert!(
                Instant::now() < until,
                "{} can't be made: {status}",
                plot.name
            ),
        }
        time::sleep(POLL).await;
    }
}
