//! `qbc demo`: a real cluster of processes on this machine, with chains that live, and the page to look at.
//!
//! The nodes are `qbc serve` of this same program. What happens on the chains is in `demo_traffic`. The end of the demo, by
//! Ctrl-C or SIGTERM, ends all processes and removes what they wrote, unless it shall be kept.
use std::{
    env,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    Global, demo_traffic,
    exit::CliError,
    output::{Printer, say},
};

/// The port of a node alone, and so the one that a demo likes best.
const PORT: u16 = 7420;
const READY: &str = "qbc: listening on ";
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// How many nodes, 1 to 9
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Keep the data and the logs at the end
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: DemoArgs, global: Global) -> Result<(), CliError> {
    let mut end = End::new()?;
    let mut cluster = Cluster::new(args.nodes, args.keep)?;
    let lived = tokio::select! {
        lived = live(&mut cluster, &global) => lived,
        () = end.asked() => Ok(()),
    };
    say("qbc: the demo ends");
    cluster.end().await;
    lived
}

/// Starts everything, tells where it is, and goes on until somebody ends it.
async fn live(cluster: &mut Cluster, global: &Global) -> Result<(), CliError> {
    cluster.start().await?;
    let urls = cluster.urls();
    let page = format!("{}/", urls.first().map_or("", String::as_str));
    let told = json!({
        "page": page,
        "nodes": urls,
        "data": cluster.folder,
        "kept": cluster.keep,
    });
    demo_traffic::bang_all(&urls).await?;
    Printer::stdout(global.output).object(&told)?;
    say(format!("qbc: open {page} in a browser; Ctrl-C ends it all"));
    Box::pin(demo_traffic::run(&urls)).await;
    Ok(())
}

/// Ctrl-C, or SIGTERM, or the terminal is closed.
struct End([tokio::signal::unix::Signal; 3]);

impl End {
    fn new() -> Result<Self, CliError> {
        let of = |kind| signal(kind).map_err(|error| CliError::Failed(error.to_string()));
        Ok(Self([
            of(SignalKind::interrupt())?,
            of(SignalKind::terminate())?,
            of(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The processes and their folder.
struct Cluster {
    folder: PathBuf,
    keep: bool,
    ports: Vec<u16>,
    nodes: Vec<Child>,
}

impl Cluster {
    fn new(nodes: u16, keep: bool) -> Result<Self, CliError> {
        let folder = env::temp_dir().join(format!("qbc-demo-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| {
            CliError::Failed(format!(
                "{}: {error}; set TMPDIR to a folder that can be written",
                folder.display()
            ))
        })?;
        Ok(Self {
            folder,
            keep,
            ports: ports(nodes)?,
            nodes: Vec::new(),
        })
    }

    fn urls(&self) -> Vec<String> {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        self.ports.iter().map(url).collect()
    }

    /// The first node founds the cluster, the others join it.
    async fn start(&mut self) -> Result<(), CliError> {
        for number in 1..=self.ports.len() {
            say(format!("qbc: node {number} of {} starts", self.ports.len()));
            self.spawn(number)?;
            if number == 1 {
                self.ready(number).await?;
            }
        }
        for number in 2..=self.ports.len() {
            self.ready(number).await?;
        }
        Ok(())
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node-{number}.log"))
    }

    fn spawn(&mut self, number: usize) -> Result<(), CliError> {
        let failed = |error: std::io::Error| {
            CliError::Failed(format!("node {number} does not start: {error}"))
        };
        let log = File::create(self.log(number)).map_err(failed)?;
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.folder.join(format!("node-{number}")));
        command
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.ports[number - 1]));
        if number > 1 {
            command
                .arg("--join")
                .arg(format!("127.0.0.1:{}", self.ports[0]));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.nodes.push(child.map_err(failed)?);
        Ok(())
    }

    /// Waits until the node listens.
    async fn ready(&mut self, number: usize) -> Result<(), CliError> {
        let until = Instant::now() + START_MAX;
        loop {
            let words = fs::read_to_string(self.log(number)).unwrap_or_default();
            if words.contains(READY) {
                return Ok(());
            }
            let ended = self.nodes[number - 1].try_wait().ok().flatten().is_some();
            if ended || Instant::now() > until {
                let last = words.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(CliError::Failed(format!(
                    "node {number} does not start: {last}"
                )));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends all processes, and removes what they wrote.
    async fn end(&mut self) {
        for child in &mut self.nodes {
            ask_to_end(child);
        }
        let until = Instant::now() + STOP_MAX;
        let mut left = true;
        while left && Instant::now() < until {
            left = self
                .nodes
                .iter_mut()
                .any(|child| matches!(child.try_wait(), Ok(None)));
            sleep(LOOK_AGAIN).await;
        }
        self.finish();
    }

    fn finish(&mut self) {
        for mut child in self.nodes.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.keep {
            say(format!(
                "qbc: data and logs stay in {}",
                self.folder.display()
            ));
        } else {
            remove(&self.folder);
        }
    }
}

impl Drop for Cluster {
    /// Whatever made the demo end: no process stays.
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            self.finish();
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        say(format!(
            "qbc: {} can't be removed: {error}",
            folder.display()
        ));
    }
}

/// The process is our child and was not waited for, so its number is nobody else's.
fn ask_to_end(child: &Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

/// Free ports: those from 7420 on, or where one of them is taken, others that the system gives.
fn ports(count: u16) -> Result<Vec<u16>, CliError> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let liked: Result<Vec<TcpListener>, _> = (PORT..PORT + count).map(bind).collect();
    let held = match liked {
        Ok(held) => held,
        Err(_) => (0..count)
            .map(|_| bind(0))
            .collect::<Result<_, _>>()
            .map_err(|error| CliError::Failed(format!("no free ports: {error}")))?,
    };
    let port = |listener: &TcpListener| listener.local_addr().map(|at| at.port());
    let ports: Result<Vec<u16>, _> = held.iter().map(port).collect();
    ports.map_err(|error| CliError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_as_many_as_are_asked_for_and_others_where_some_are_taken() {
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT + 1));
        let found = ports(4).unwrap();
        assert_eq!(found.len(), 4);
        assert!(!found.contains(&(PORT + 1)));
    }
}
