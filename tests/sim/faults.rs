//! What goes wrong, when, and for how long, as the seed says. Links are cut, cut in one direction, or hold back what is
//! sent; hosts lose power, one or all, and with it a part of what was written and not synced.

use std::{collections::BTreeSet, time::Duration};

use turmoil::Sim;

use crate::book::Book;
use crate::chance::Rng;
use crate::node::name;

/// How long nothing new goes wrong, and how long what does lasts.
const PAUSE_MS: (u64, u64) = (100, 3000);
const LASTS_MS: (u64, u64) = (50, 5000);

/// What a link does while it is broken.
#[derive(Clone, Copy, Debug)]
pub enum Break {
    Both,
    OneWay,
    /// What is sent waits until the end of the fault.
    Hold,
}

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
enum Heal {
    Start(usize),
    Repair(usize, usize),
    Release(usize, usize),
}

pub struct Faults {
    rng: Rng,
    hosts: usize,
    book: Book,
    next: Duration,
    heals: Vec<(Duration, Heal)>,
    down: BTreeSet<usize>,
    /// Links with a fault: they get no second one.
    broken: BTreeSet<(usize, usize)>,
    pub crashes: u32,
    pub cuts: u32,
}

impl Faults {
    pub fn new(rng: Rng, hosts: usize, book: Book, now: Duration) -> Self {
        Self {
            rng,
            hosts,
            book,
            next: now,
            heals: Vec::new(),
            down: BTreeSet::new(),
            broken: BTreeSet::new(),
            crashes: 0,
            cuts: 0,
        }
    }

    /// Ends what is over, and begins what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.mend(sim, now);
        if now >= self.next {
            let (from, to) = PAUSE_MS;
            self.next = now + Duration::from_millis(self.rng.between(from, to));
            self.strike(sim, now);
        }
    }

    /// Ends what is over.
    pub fn mend(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (over, left) = self.heals.drain(..).partition(|(at, _)| *at <= now);
        self.heals = left;
        let over: Vec<(Duration, Heal)> = over;
        for (_, heal) in over {
            self.heal(sim, heal);
        }
    }

    /// Ends everything.
    pub fn end(&mut self, sim: &mut Sim<'_>) {
        for (_, heal) in std::mem::take(&mut self.heals) {
            self.heal(sim, heal);
        }
    }

    fn strike(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let host = self.rng.below(self.hosts as u64) as usize;
        let other = (host + 1 + self.rng.below(self.hosts as u64 - 1) as usize) % self.hosts;
        match self.rng.below(12) {
            0..4 => self.crash_for_a_while(sim, host, now),
            4 => (0..self.hosts).for_each(|host| self.crash_for_a_while(sim, host, now)),
            5..7 => self.break_for_a_while(sim, Break::Both, (host, other), now),
            7..9 => {
                for other in (0..self.hosts).filter(|other| *other != host) {
                    self.break_for_a_while(sim, Break::Both, (host, other), now);
                }
            }
            9 => self.break_for_a_while(sim, Break::OneWay, (host, other), now),
            _ => self.break_for_a_while(sim, Break::Hold, (host, other), now),
        }
    }

    fn crash_for_a_while(&mut self, sim: &mut Sim<'_>, host: usize, now: Duration) {
        if !self.down.contains(&host) {
            let until = self.lasts(now);
            self.crash(sim, host, until);
        }
    }

    fn break_for_a_while(
        &mut self,
        sim: &mut Sim<'_>,
        how: Break,
        (a, b): (usize, usize),
        now: Duration,
    ) {
        if !self.broken.contains(&(a.min(b), a.max(b))) {
            let until = self.lasts(now);
            self.break_link(sim, how, (a, b), until);
        }
    }

    fn lasts(&mut self, now: Duration) -> Duration {
        let (from, to) = LASTS_MS;
        now + Duration::from_millis(self.rng.between(from, to))
    }

    /// Takes a host's power until then, unless it has none.
    pub fn crash(&mut self, sim: &mut Sim<'_>, host: usize, until: Duration) {
        if !self.down.insert(host) {
            return;
        }
        sim.crash(name(host));
        let running = self.book.with(|pages| pages.running[host].take());
        drop(running);
        self.book.forget_asked(host);
        let (unsynced, keep) = self.book.with(|pages| {
            let unsynced = pages.disks[host].unsynced();
            let keep = self.rng.below(unsynced as u64 + 1) as usize;
            pages.disks[host] = if pages.lies {
                pages.old_disks[host].crash(0)
            } else {
                pages.disks[host].crash(keep)
            };
            (unsynced, keep)
        });
        self.crashes += 1;
        self.book.trace(format_args!(
            "n{host} crashes: {keep} of {unsynced} unsynced batches stay"
        ));
        self.heals.push((until, Heal::Start(host)));
    }

    /// Breaks a link until then, if no other fault has it.
    pub fn break_link(
        &mut self,
        sim: &mut Sim<'_>,
        how: Break,
        (a, b): (usize, usize),
        until: Duration,
    ) {
        if !self.broken.insert((a.min(b), a.max(b))) {
            return;
        }
        self.cuts += 1;
        let (told, heal) = match how {
            Break::Both => {
                sim.partition(name(a), name(b));
                (format!("n{a} and n{b} are cut"), Heal::Repair(a, b))
            }
            Break::OneWay => {
                sim.partition_oneway(name(a), name(b));
                (format!("n{a} to n{b} is cut"), Heal::Repair(a, b))
            }
            Break::Hold => {
                sim.hold(name(a), name(b));
                (format!("n{a} and n{b} are held"), Heal::Release(a, b))
            }
        };
        self.book.trace(told);
        self.heals.push((until, heal));
    }

    fn heal(&mut self, sim: &mut Sim<'_>, heal: Heal) {
        self.book.trace(format_args!("{heal:?}"));
        match heal {
            Heal::Start(host) => {
                self.down.remove(&host);
                sim.bounce(name(host));
            }
            Heal::Repair(a, b) => {
                self.broken.remove(&(a.min(b), a.max(b)));
                sim.repair(name(a), name(b));
            }
            Heal::Release(a, b) => {
                self.broken.remove(&(a.min(b), a.max(b)));
                sim.release(name(a), name(b));
            }
        }
    }
}
