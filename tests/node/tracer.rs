//! strace around a running node: its syncs delayed or failing, and a list of when each began and ended.
use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

/// strace at work on a node; it lets go when dropped.
pub struct Tracer {
    child: Child,
    log: PathBuf,
}

/// One sync of the write-ahead log, in seconds since 1970 as `now` counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sync {
    pub began: f64,
    pub ended: f64,
}

/// How strace ends the name of a write-ahead log with `-y`.
const LOG_END: &str = ".log>";

/// The clock of the list of syncs.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_secs_f64()
}

impl Tracer {
    /// Attaches to a process and meddles with its syncs as strace's `-e inject=` says. `None` where strace is missing or not
    /// permitted, which is told loudly; with CI set, that is a failure.
    pub fn attach(pid: u32, inject: &str, scratch: &Path) -> Option<Self> {
        let log = scratch.join("syncs");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-ttt",
            "-T",
            "-y",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            "signal=none",
            "-e",
        ]);
        command
            .arg(format!("inject={inject}"))
            .args(["-p", &pid.to_string(), "-o"])
            .arg(&log);
        match command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Ok(child) => Self { child, log }.attached(),
            Err(error) => not_here(&format!("strace cannot be started: {error}")),
        }
    }

    /// The log's syncs that ended until now, in the order they ended.
    pub fn syncs(&self) -> Vec<Sync> {
        parse(&fs::read_to_string(&self.log).expect("strace writes its list"))
    }

    fn attached(mut self) -> Option<Self> {
        let mut lines = BufReader::new(self.child.stderr.take().expect("stderr is piped")).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        thread::spawn(move || lines.for_each(drop));
        if first.contains(" attached") {
            Some(self)
        } else {
            not_here(&first)
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn not_here(why: &str) -> Option<Tracer> {
    assert!(env::var_os("CI").is_none(), "strace is needed here: {why}");
    eprintln!("==== NOT TESTED: syncs under strace: {why} ====");
    None
}

/// Lines are `PID TIME fdatasync(5</d/4.log>) = 0 (DELAYED) <0.500210>`, or one with `<unfinished ...>` and later one with
/// `resumed>`. Syncs of other files are left out.
fn parse(list: &str) -> Vec<Sync> {
    let mut began = HashMap::new();
    let mut syncs = Vec::new();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (Some(thread), Some(time)) = (
            words.next(),
            words.next().and_then(|word| word.parse::<f64>().ok()),
        ) else {
            continue;
        };
        if line.contains("<unfinished") {
            if line.contains(LOG_END) {
                began.insert(thread, time);
            }
        } else if line.contains(" resumed>") && line.contains(" = 0 ") {
            syncs.extend(
                began
                    .remove(thread)
                    .map(|began| Sync { began, ended: time }),
            );
        } else if line.contains(LOG_END) && line.contains(" = 0 ") {
            syncs.extend(duration(line).map(|took| Sync {
                began: time,
                ended: time + took,
            }));
        }
    }
    syncs
}

fn duration(line: &str) -> Option<f64> {
    let (_, tail) = line.rsplit_once('<')?;
    tail.split_once('>')?.0.parse().ok()
}

/// Half a second, as strace's `delay_enter` wants it: before every sync.
pub const DELAY: Duration = Duration::from_millis(500);
pub const DELAY_SYNCS: &str = "fdatasync,fsync:delay_enter=500000";

#[test]
fn the_list_of_syncs_is_read_in_both_its_forms() {
    let list = "\
7     100.000000 fdatasync(5</d/db/000004.log>)                     = 0 (DELAYED) <0.500000>
9     100.500000 fdatasync(4</d/synced>) = 0 <0.001000>
7     101.000000 fdatasync(5</d/db/000004.log> <unfinished ...>
9     101.050000 fdatasync(4</d/synced> <unfinished ...>
8     101.100000 fdatasync(6</d/db/000005.log>) = -1 EIO (Input/output error) (INJECTED) <0.100000>
7     101.600000 <... fdatasync resumed>) = 0 (DELAYED) <0.600000>
9     101.650000 <... fdatasync resumed>) = 0 (DELAYED) <0.600000>
7     102.000000 +++ exited with 0 +++
";
    let expected = [
        Sync {
            began: 100.0,
            ended: 100.5,
        },
        Sync {
            began: 101.0,
            ended: 101.6,
        },
    ];
    assert_eq!(parse(list), expected);
}
