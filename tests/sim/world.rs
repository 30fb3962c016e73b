//! One run: a cluster is founded and grows, things go wrong for a while, everything is healed, and then it must be whole.

use std::{
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use qbc::consensus::Group;
use turmoil::Sim;

use crate::book::Book;
use crate::chance::Rng;
use crate::check;
use crate::faults::{Break, Faults};
use crate::node::{Host, name};

const HOSTS: usize = 3;
const TICK: Duration = Duration::from_millis(1);
/// How long a cluster may take to stand, things go wrong, and a healed cluster may take to be whole.
const FOUND_MAX: Duration = Duration::from_secs(60);
const FAULTS_LAST: Duration = Duration::from_secs(40);
const HEAL_MAX: Duration = Duration::from_secs(120);
/// How long the links of the script are broken, and how long its host is down.
const SCRIPT_LASTS: Duration = Duration::from_secs(8);
const GONE_LASTS: Duration = Duration::from_millis(20);
/// Steps between two looks at who leads, and between two notes of what is applied.
const LOOK_STEPS: u64 = 5;
const NOTE_STEPS: u64 = 500;

struct World<'a> {
    sim: Sim<'a>,
    book: Book,
    data_groups: u32,
    steps: u64,
    /// By host and group.
    leads: Vec<Vec<bool>>,
}

/// Runs a seed; panics where the cluster is not what it must be.
pub fn run(seed: u64, trace: &Path, lies: bool) {
    let (mut world, mut faults) = founded(seed, trace, lies);
    let book = world.book.clone();
    let end = world.sim.elapsed() + FAULTS_LAST;
    while world.sim.elapsed() < end {
        let now = world.sim.elapsed();
        faults.step(&mut world.sim, now);
        world.step();
    }
    faults.end(&mut world.sim);
    book.with(|pages| pages.closing = true);
    book.trace("all is healed");
    world.until(HEAL_MAX, "is whole", World::is_whole);
    check::all(&book, HOSTS, world.data_groups);
    let (wishes, sealed, reads) =
        book.with(|pages| (pages.wishes.len(), pages.sealed, pages.reads));
    let (crashes, cuts) = (faults.crashes, faults.cuts);
    book.trace(format_args!(
        "{wishes} transactions, {sealed} Quants, {reads} reads, {crashes} crashes, {cuts} broken links"
    ));
    let happened = wishes > 100 && reads > 100 && crashes + cuts > 5;
    assert!(happened, "nothing happened");
}

/// One script, in which nothing is written: a leader that only one other host hears loses that one for a moment and is cut
/// off. Who was started again had promised to vote for nobody else, and must not have forgotten it when the third host asks.
/// Then it is written again, and hosts read all the time: an old read ends the run.
pub fn promise(seed: u64, trace: &Path) {
    let (mut world, mut faults) = founded(seed, trace, false);
    world.book.with(|pages| pages.closing = true);
    world.pass(SCRIPT_LASTS, &mut faults);
    let leads = |world: &World<'_>, host: usize| world.leads[host][1];
    let leader = (0..HOSTS).find(|host| leads(&world, *host)).unwrap();
    let (bound, free) = ((leader + 1) % HOSTS, (leader + 2) % HOSTS);
    let now = world.sim.elapsed();
    let over = now + SCRIPT_LASTS * 2;
    faults.break_link(&mut world.sim, Break::Both, (leader, free), over);
    world.pass(SCRIPT_LASTS / 2, &mut faults);
    assert!(leads(&world, leader), "one host answers it");
    let now = world.sim.elapsed();
    faults.break_link(&mut world.sim, Break::Both, (leader, bound), over);
    faults.crash(&mut world.sim, bound, now + GONE_LASTS);
    world.book.with(|pages| pages.closing = false);
    world.pass(SCRIPT_LASTS, &mut faults);
    assert!(
        leads(&world, bound) || leads(&world, free),
        "another one leads"
    );
    world.book.with(|pages| pages.closing = true);
    world.pass(SCRIPT_LASTS, &mut faults);
    world.until(HEAL_MAX, "is whole", World::is_whole);
    check::all(&world.book, HOSTS, world.data_groups);
}

/// A cluster in which every host votes in every group.
fn founded<'a>(seed: u64, trace: &Path, lies: bool) -> (World<'a>, Faults) {
    end_on_panic();
    let mut rng = Rng::of(seed, "world");
    let book = Book::new(HOSTS, trace);
    let mut world = World::new(seed, &mut rng, &book);
    book.with(|pages| pages.lies = lies);
    world.until(FOUND_MAX, "stands", World::stands);
    let faults = Faults::new(rng, HOSTS, book, world.sim.elapsed());
    (world, faults)
}

/// A panic of any task is the end: the runtime alone would swallow it.
fn end_on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::exit(101);
    }));
}

impl World<'_> {
    /// Lets time go by, and what is over end.
    fn pass(&mut self, lasts: Duration, faults: &mut Faults) {
        let end = self.sim.elapsed() + lasts;
        while self.sim.elapsed() < end {
            let now = self.sim.elapsed();
            faults.mend(&mut self.sim, now);
            self.step();
        }
    }

    fn new(seed: u64, rng: &mut Rng, book: &Book) -> Self {
        let data_groups = rng.between(1, 2) as u32;
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH)
            .tick_duration(TICK)
            .simulation_duration(FOUND_MAX + FAULTS_LAST + HEAL_MAX + FOUND_MAX)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(rng.between(2, 40)))
            .tcp_capacity(4096)
            .enable_random_order()
            .build();
        for index in 0..HOSTS {
            let book = book.clone();
            let starts = std::cell::Cell::new(0);
            sim.host(name(index), move || {
                let host = Host {
                    seed,
                    index,
                    start: starts.replace(starts.get() + 1),
                    data_groups,
                    book: book.clone(),
                };
                host.run()
            });
        }
        book.trace(format_args!("seed {seed}: {data_groups} data groups"));
        Self {
            sim,
            book: book.clone(),
            data_groups,
            steps: 0,
            leads: vec![vec![false; data_groups as usize + 1]; HOSTS],
        }
    }

    fn step(&mut self) {
        self.sim.step().unwrap();
        self.steps += 1;
        self.book.at(self.sim.elapsed());
        if self.steps.is_multiple_of(LOOK_STEPS) {
            self.look();
        }
        if self.steps.is_multiple_of(NOTE_STEPS) {
            let applied: Vec<_> = (0..HOSTS).map(|host| self.applied(host)).collect();
            self.book.trace(format_args!("applied {applied:?}"));
            self.book.with(|pages| {
                let copies = pages.disks.iter().map(|disk| disk.crash(0));
                pages.old_disks = copies.collect();
            });
        }
    }

    /// Notes who begins and who ceases to lead.
    fn look(&mut self) {
        for host in 0..HOSTS {
            for id in 0..=self.data_groups {
                let group = self.group(host, id);
                let leads = group.as_ref().is_some_and(Group::leads);
                let known = &mut self.leads[host][id as usize];
                if *known != leads {
                    *known = leads;
                    let term = group.and_then(|group| group.leader()).map(|(_, term)| term);
                    let what = if leads { "leads" } else { "leads no more" };
                    self.book
                        .trace(format_args!("n{host} {what} group {id}, term {term:?}"));
                }
            }
        }
    }

    fn group(&self, host: usize, id: u32) -> Option<Group> {
        let groups = self.book.groups(host)?;
        groups.get(qbc::engine::GroupId(id))
    }

    /// By group; none where the host is down or has no replica.
    fn applied(&self, host: usize) -> Vec<Option<u64>> {
        let of_group = |id| self.group(host, id).map(|group| *group.reached().borrow());
        (0..=self.data_groups).map(of_group).collect()
    }

    fn until(&mut self, within: Duration, what: &str, reached: impl Fn(&Self) -> bool) {
        let late = self.sim.elapsed() + within;
        while !(self.steps.is_multiple_of(LOOK_STEPS) && reached(self)) {
            if self.sim.elapsed() >= late {
                let applied: Vec<_> = (0..HOSTS).map(|host| self.applied(host)).collect();
                let open = self.book.open_wishes();
                panic!("the cluster {what} not in time: applied {applied:?}, {open} wishes open");
            }
            self.step();
        }
        self.book.trace(format_args!("the cluster {what}"));
    }

    /// True once every host votes in every group.
    fn stands(&self) -> bool {
        let settled = |host| {
            let Some(groups) = self.book.groups(host) else {
                return false;
            };
            let cluster = groups.cluster();
            let whole = |id: &u32| {
                let row = cluster.seats.get(id);
                row.is_some_and(|row| row.settled && row.seats.iter().all(|seat| seat.votes))
                    && row.is_some_and(|row| row.seats.len() == HOSTS)
            };
            (0..=self.data_groups).all(|id| whole(&id))
        };
        (0..HOSTS).all(settled)
    }

    /// True once nothing is open and all replicas have applied the same.
    fn is_whole(&self) -> bool {
        let first = self.applied(0);
        self.book.open_wishes() == 0
            && first.iter().all(Option::is_some)
            && (1..HOSTS).all(|host| self.applied(host) == first)
    }
}
