//! A cluster under test: founds it, lets members join, kills, wipes and starts them, and waits until it is whole.
use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use tempfile::TempDir;
use tokio::{task, time};

use super::{
    doors::Doors,
    member::{Began, Member, Start},
    network::Network,
    ports::free_ports,
    view::{View, whole},
};
use crate::{
    chance::Chance,
    process::{Ran, qbc},
};

/// How long a start may take, recovery included, on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(60);
/// How long a cluster may take until nothing is missing or on its way.
pub const WHOLE_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(30);
const DISCOVER_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// What a fleet is founded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses reserved: the most members that exist at once.
    pub slots: usize,
    /// Settings of every member, as environment variables.
    pub environment: Vec<(String, OsString)>,
}

impl Default for Options {
    fn default() -> Self {
        // Small: several nodes and a load share one machine.
        let settings = [("QBC_GROUPS", "4"), ("QBC_CACHE_MIB", "32")];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.into());
        Self {
            slots: 7,
            environment: settings.map(own).into(),
        }
    }
}

impl Options {
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

/// Which slots have a member, running or not, as clients see it.
#[derive(Clone, Default)]
pub struct InPlay(Arc<AtomicU64>);

impl InPlay {
    /// One slot, whatever the fleet has.
    pub fn only(slot: usize) -> Self {
        let one = Self::default();
        one.set(slot, true);
        one
    }

    pub fn slots(&self) -> Vec<usize> {
        let bits = self.0.load(Ordering::Relaxed);
        (0..64).filter(|slot| bits >> slot & 1 == 1).collect()
    }

    fn set(&self, slot: usize, there: bool) {
        if there {
            self.0.fetch_or(1 << slot, Ordering::Relaxed);
        } else {
            self.0.fetch_and(!(1 << slot), Ordering::Relaxed);
        }
    }
}

/// A cluster of real processes. Dropping it kills them; on a panic, and after `keep`, its folder stays.
pub struct Fleet {
    members: Vec<Member>,
    pub network: Arc<Network>,
    pub doors: Doors,
    pub in_play: InPlay,
    addresses: Vec<SocketAddr>,
    options: Options,
    lives: Vec<u32>,
    scratch: Option<TempDir>,
}

impl Fleet {
    /// Addresses and a network, and no member yet.
    pub async fn empty(options: Options) -> Self {
        let addresses = free_ports(options.slots);
        let network = Network::between(&addresses).await;
        Self {
            members: Vec::new(),
            network: Arc::new(network.expect("the proxies can listen")),
            doors: Doors::to(&addresses),
            in_play: InPlay::default(),
            lives: vec![0; addresses.len()],
            addresses,
            options,
            scratch: Some(tempfile::tempdir().expect("a temporary folder")),
        }
    }

    /// A whole cluster of so many members, each joined by a random other one.
    pub async fn of(count: usize, options: Options, chance: &mut Chance) -> Self {
        let mut fleet = Self::empty(options).await;
        fleet.found().await;
        for _ in 1..count {
            fleet.add(chance).await.expect("a slot is free");
        }
        fleet
            .whole(WHOLE_MAX)
            .await
            .expect("a new cluster is whole");
        fleet
    }

    /// Starts the first member, which founds the cluster.
    pub async fn found(&mut self) -> usize {
        let slot = self.place();
        self.start(slot, None).await.expect("the founder starts");
        slot
    }

    /// Lets a new member join by a random running one; its slot.
    pub async fn add(&mut self, chance: &mut Chance) -> Result<usize, String> {
        let join = self.someone(chance, None);
        let slot = self.place();
        // Nobody asks it anything before it listens.
        self.in_play.set(slot, false);
        self.start(slot, Some(join)).await?;
        self.in_play.set(slot, true);
        Ok(slot)
    }

    /// A member in the first free slot, not started.
    pub fn place(&mut self) -> usize {
        let taken = self.in_play.slots();
        let slot = (0..self.addresses.len()).find(|slot| !taken.contains(slot));
        let slot = slot.expect("a slot is free");
        self.renew(slot);
        slot
    }

    /// Gives a slot a member with an empty folder; what was there before is killed and its folder removed.
    pub fn renew(&mut self, slot: usize) {
        self.forget(slot);
        self.lives[slot] += 1;
        let address = self.addresses[slot];
        let member = Member::new(slot, address, &self.scratch(), self.lives[slot]);
        self.members.push(member);
        self.in_play.set(slot, true);
    }

    /// Ends a member for good; its folder goes, its log stays.
    pub fn forget(&mut self, slot: usize) {
        let Some(at) = self.members.iter().position(|member| member.slot == slot) else {
            return;
        };
        let member = self.members.remove(at);
        self.in_play.set(slot, false);
        let data = member.data();
        drop(member);
        fs::remove_dir_all(data).expect("a data folder can be removed");
    }

    pub fn has_slot(&self) -> bool {
        self.members.len() < self.addresses.len()
    }

    pub fn slots(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.slot).collect()
    }

    pub fn address(&self, slot: usize) -> SocketAddr {
        self.addresses[slot]
    }

    pub fn member(&mut self, slot: usize) -> &mut Member {
        let mut all = self.members.iter_mut();
        all.find(|member| member.slot == slot)
            .expect("the slot has a member")
    }

    pub fn members(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut()
    }

    /// A random slot.
    pub fn any(&self, chance: &mut Chance) -> usize {
        let at = chance.within(0..self.members.len() as u64) as usize;
        self.members[at].slot
    }

    /// The address of a random running member other than this.
    pub fn someone(&self, chance: &mut Chance, except: Option<usize>) -> String {
        let running = self.members.iter();
        let running = running.filter(|m| m.is_up() && !m.is_stopped() && Some(m.slot) != except);
        let running: Vec<SocketAddr> = running.map(|member| member.address).collect();
        assert!(!running.is_empty(), "nobody runs");
        running[chance.within(0..running.len() as u64) as usize].to_string()
    }

    /// Starts a member and waits until it listens.
    pub async fn start(&mut self, slot: usize, join: Option<String>) -> Result<(), String> {
        let start = self.how(slot, join);
        self.member(slot).spawn(start);
        self.ready(slot).await
    }

    /// Waits until a spawned member listens.
    pub async fn ready(&mut self, slot: usize) -> Result<(), String> {
        match self.member(slot).began(START_MAX).await {
            Began::Ready => Ok(()),
            Began::Ended(words) => Err(format!("n{slot} did not start: {words}")),
            Began::Waiting => Err(format!("n{slot} is not ready after {START_MAX:?}")),
        }
    }

    /// What a member is started with.
    pub fn how(&self, slot: usize, join: Option<String>) -> Start {
        let others = (0..self.addresses.len()).filter(|other| *other != slot);
        let dial: Vec<String> = others
            .map(|to| format!("{}={}", self.addresses[to], self.network.entrance(slot, to)))
            .collect();
        let mut environment = self.options.environment.clone();
        environment.push(("QBC_DIAL".to_owned(), dial.join(",").into()));
        Start {
            join,
            environment,
            storage: None,
        }
    }

    /// Makes every member run, and waits for those that did not.
    pub async fn all_up(&mut self) -> Result<(), String> {
        for slot in self.slots() {
            self.member(slot).ended();
            if !self.member(slot).is_up() {
                let start = self.how(slot, None);
                self.member(slot).spawn(start);
            }
            self.member(slot).sigcont();
        }
        for slot in self.slots() {
            self.ready(slot).await?;
        }
        Ok(())
    }

    /// What each running member answers to Discover now.
    pub async fn views(&self) -> Vec<(usize, Result<View, tonic::Status>)> {
        let running = self.members.iter().filter(|member| member.is_up());
        let asked = running.map(|member| async {
            let answer = self.doors.discover(member.slot, DISCOVER_MAX).await;
            (member.slot, answer)
        });
        join_all(asked).await
    }

    /// The node id in a slot, as the node there says.
    pub async fn id(&self, slot: usize) -> Result<u64, String> {
        let view = self.doors.discover(slot, DISCOVER_MAX).await;
        let view = view.map_err(|status| format!("n{slot}: {status}"))?;
        Ok(view.node_id)
    }

    /// The slot of a node id.
    pub async fn slot_of(&self, id: u64) -> Option<usize> {
        let views = self.views().await.into_iter();
        let mut found = views.filter(|(_, view)| view.as_ref().is_ok_and(|v| v.node_id == id));
        found.next().map(|(slot, _)| slot)
    }

    /// Waits until all members answer and show a whole cluster; what is missing, at the deadline.
    pub async fn whole(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let views = self.views().await.into_iter();
            let views: Result<Vec<View>, String> = views
                .map(|(slot, view)| view.map_err(|status| format!("n{slot}: {status}")))
                .collect();
            let found = views.and_then(|views| whole(&views));
            match found {
                Err(why) if Instant::now() > until => {
                    return Err(format!("the cluster is not whole: {why}"));
                }
                Err(_) => time::sleep(POLL).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits until the views of all running members are as asked; what they were, at the deadline.
    pub async fn until(
        &self,
        within: Duration,
        what: &str,
        mut asked: impl FnMut(&[(usize, View)]) -> bool,
    ) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let views = self.views().await.into_iter();
            let views: Vec<(usize, View)> = views
                .filter_map(|(slot, view)| Some((slot, view.ok()?)))
                .collect();
            if asked(&views) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{what}: not after {within:?}: {views:#?}"));
            }
            time::sleep(POLL).await;
        }
    }

    /// Runs `qbc VERB ... --endpoint` at a member.
    pub async fn cli(&self, slot: usize, arguments: &[&str]) -> Ran {
        let mut all: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let heads = self.scratch().join("heads.json").display().to_string();
        all.extend([
            "--endpoint".to_owned(),
            self.doors.url(slot),
            "--heads".to_owned(),
            heads,
        ]);
        let ran =
            task::spawn_blocking(move || qbc(&all.iter().map(String::as_str).collect::<Vec<_>>()));
        ran.await.expect("the command ends")
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self, slot: usize) -> Result<(), String> {
        let member = self.member(slot);
        member.sigcont();
        member.sigterm();
        if member.wait_end(STOP_MAX).await {
            return Ok(());
        }
        Err(format!("n{slot} still runs {STOP_MAX:?} after SIGTERM"))
    }

    /// Where logs and data are.
    pub fn scratch(&self) -> PathBuf {
        let folder = self.scratch.as_ref().map(TempDir::path);
        folder.expect("kept until the end").to_owned()
    }

    /// Ends all processes and leaves the folder where it is.
    pub fn keep(mut self) -> PathBuf {
        self.members.clear();
        self.scratch.take().expect("kept once").keep()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.members.clear();
        let panicking = std::thread::panicking();
        if let Some(scratch) = self.scratch.take()
            && (panicking || env::var_os("QBC_KEEP").is_some())
        {
            let place = scratch.keep();
            eprintln!("logs and data of the nodes are kept: {}", place.display());
            tails(&place);
        }
    }
}

/// Shows the ends of the logs.
fn tails(place: &Path) {
    const LINES: usize = 12;
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let logs = entries.map(|entry| entry.path());
    for path in logs.filter(|path| path.extension().is_some_and(|end| end == "log")) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("---- {}", path.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
    }
}
