//! One member: its slot, its data folder, its log, and its process, which ends with it.
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::time;

use crate::{
    chance::Chance,
    dropper::{Dropper, Loss},
};

const READY: &str = "qbc: listening on ";
const POLL: Duration = Duration::from_millis(20);

/// What a start adds to what a member always has.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Members to join, each by its address or as a range.
    pub join: Option<String>,
    pub environment: Vec<(String, OsString)>,
    /// On storage that loses unsynced bytes, with these further settings.
    pub storage: Option<Vec<(String, OsString)>>,
}

/// How a start went.
#[derive(Debug)]
pub enum Began {
    Ready,
    /// It ended by itself, with these last words.
    Ended(String),
    /// Neither until the deadline.
    Waiting,
}

/// A member of a fleet, running or not.
pub struct Member {
    pub slot: usize,
    pub address: SocketAddr,
    scratch: PathBuf,
    /// Grows with each wiped disk.
    life: u32,
    child: Option<Child>,
    stopped: bool,
    storage: Option<Dropper>,
    /// Where the words of the present process begin in the log.
    log_from: u64,
}

impl Member {
    /// A member that was never started; its folders are below `scratch`.
    pub fn new(slot: usize, address: SocketAddr, scratch: &Path, life: u32) -> Self {
        let member = Self {
            slot,
            address,
            scratch: scratch.to_owned(),
            life,
            child: None,
            stopped: false,
            storage: None,
            log_from: 0,
        };
        fs::create_dir_all(member.data()).expect("a data folder can be made");
        member
    }

    pub fn data(&self) -> PathBuf {
        self.scratch.join(format!("n{}-{}", self.slot, self.life))
    }

    pub fn life(&self) -> u32 {
        self.life
    }

    pub fn log(&self) -> PathBuf {
        self.scratch.join(format!("n{}.log", self.slot))
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True while there is a process, stopped or not.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Starts the process and does not wait for it.
    pub fn spawn(&mut self, start: Start) {
        assert!(self.child.is_none(), "n{} runs already", self.slot);
        let mut log = open_log(&self.log());
        writeln!(log, "==== n{} starts: {start:?}", self.slot).expect("a log can be written");
        self.log_from = log.stream_position().expect("a log has a position");
        let data = self.data();
        let mut command = Command::new(env!("CARGO_BIN_EXE_qbc"));
        command.arg("serve").arg("--data").arg(&data);
        command.args(["--listen", &self.address.to_string()]);
        if let Some(join) = &start.join {
            command.args(["--join", join]);
        }
        command.envs(start.environment);
        self.storage = start.storage.map(|settings| {
            let beside = self.scratch.join(format!("n{}-unsynced", self.slot));
            fs::create_dir_all(&beside).expect("a folder can be made");
            let dropper = Dropper::new(&data, &beside);
            command.envs(dropper.environment()).envs(settings);
            dropper
        });
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("qbc can be started"));
    }

    /// Waits until the process listens or ends.
    pub async fn began(&mut self, within: Duration) -> Began {
        let until = Instant::now() + within;
        loop {
            if self.words().contains(READY) {
                return Began::Ready;
            }
            if self.ended().is_some() {
                return Began::Ended(self.words());
            }
            if Instant::now() > until {
                return Began::Waiting;
            }
            time::sleep(POLL).await;
        }
    }

    /// How the process ended, if it did; it is gone then.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = child.try_wait().expect("a child can be waited for")?;
        self.child = None;
        self.stopped = false;
        Some(status)
    }

    /// Waits for the end; false at the deadline.
    pub async fn wait_end(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.child.is_some() && self.ended().is_none() {
            if Instant::now() > until {
                return false;
            }
            time::sleep(POLL).await;
        }
        true
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().expect("a killed child can be waited for");
        }
        self.stopped = false;
    }

    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    pub fn sigstop(&mut self) {
        self.signal("STOP");
        self.stopped = true;
    }

    pub fn sigcont(&mut self) {
        if self.stopped {
            self.signal("CONT");
        }
        self.stopped = false;
    }

    /// After the death of a process that was started with `storage`: loses what was not synced. How many changes that were.
    pub fn lose_unsynced(&mut self, chance: &mut Chance) -> usize {
        assert!(self.child.is_none(), "only the dead lose");
        let dropper = self.storage.take().expect("it was started with storage");
        let loss = if chance.within(0..2) == 0 {
            Loss::All
        } else {
            Loss::Some(chance)
        };
        dropper.lose(loss).changes
    }

    /// All that the present or last process said.
    pub fn words(&self) -> String {
        let mut log = File::open(self.log()).expect("a started member has a log");
        log.seek(SeekFrom::Start(self.log_from))
            .expect("a log can be read");
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).expect("a log can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes a line into the log, between the node's own.
    pub fn note(&self, what: &str) {
        writeln!(open_log(&self.log()), "==== n{}: {what}", self.slot)
            .expect("a log can be written");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().expect("a process gets signals");
        let done = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status();
        assert!(
            done.expect("sh runs").success(),
            "n{} takes {name}",
            self.slot
        );
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn open_log(path: &Path) -> File {
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a log can be made");
    log.seek(SeekFrom::End(0)).expect("a log can be read");
    log
}
