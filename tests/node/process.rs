//! A `qbc serve` process under test, and the `qbc` command line. Every wait has a deadline.
use std::{
    ffi::OsString,
    fmt,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a node may take until it listens: recovery included, on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to end once it must.
pub const STOP_MAX: Duration = Duration::from_secs(30);
/// How long a command of the CLI may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
const READY: &str = "qbc: listening on ";

/// What a node is started with.
#[derive(Clone)]
pub struct Launch {
    data: PathBuf,
    listen: String,
    environment: Vec<(OsString, OsString)>,
}

impl Launch {
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            environment: Vec::new(),
        }
    }

    /// On an address that it had before.
    #[allow(dead_code, reason = "not every suite starts a node again")]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.listen = address.to_string();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the process and does not wait for it to listen.
    pub fn spawn(self) -> Node {
        let mut child = Command::new(env!("CARGO_BIN_EXE_qbc"))
            .args(["serve", "--listen", &self.listen, "--data"])
            .arg(&self.data)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("qbc can be started");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (told, heard) = mpsc::channel();
        let pipe = child.stderr.take().expect("stderr is piped");
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || keep_lines(pipe, &kept, &told));
        Node {
            child,
            lines,
            heard,
            reader: Some(reader),
            url: None,
        }
    }

    /// Starts the process and waits until it listens; how it ended, if it did instead.
    pub fn try_start(self) -> Result<Node, Stopped> {
        let mut node = self.spawn();
        if node.ready() {
            Ok(node)
        } else {
            Err(node.wait_exit(STOP_MAX))
        }
    }

    pub fn start(self) -> Node {
        self.try_start()
            .unwrap_or_else(|stopped| panic!("the node did not start: {stopped}"))
    }
}

/// A running node; dropping it kills it.
pub struct Node {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    heard: mpsc::Receiver<String>,
    reader: Option<JoinHandle<()>>,
    url: Option<String>,
}

/// How a node ended, and all that it said.
#[derive(Debug)]
pub struct Stopped {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub stderr: String,
}

impl Node {
    pub fn start(data: &Path) -> Self {
        Launch::new(data).start()
    }

    /// Waits until the node listens; false if it ended before.
    pub fn ready(&mut self) -> bool {
        match self.heard.recv_timeout(START_MAX) {
            Ok(url) => self.url = Some(url),
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("not listening after {START_MAX:?}:\n{}", self.stderr())
            }
        }
        self.url.is_some()
    }

    pub fn url(&self) -> &str {
        self.url.as_deref().expect("the node is ready")
    }

    pub fn address(&self) -> SocketAddr {
        let text = self
            .url()
            .strip_prefix("http://")
            .expect("the url begins with http://");
        text.parse().expect("the url holds an address")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the node said on stderr so far.
    pub fn stderr(&self) -> String {
        self.lines
            .lock()
            .expect("the reader does not panic")
            .join("\n")
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(mut self) -> Stopped {
        self.child.kill().expect("the node can be killed");
        self.wait_exit(STOP_MAX)
    }

    pub fn sigterm(self) -> Stopped {
        self.signal_term();
        self.wait_exit(STOP_MAX)
    }

    pub fn signal_term(&self) {
        let kill = format!("kill -TERM {}", self.pid());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .expect("sh runs")
                .success(),
            "no node to stop"
        );
    }

    /// How the node ended, if it did.
    pub fn exited(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the node can be waited for")
            .is_some()
    }

    pub fn wait_exit(mut self, deadline: Duration) -> Stopped {
        let status = wait(&mut self.child, deadline)
            .unwrap_or_else(|| panic!("still running after {deadline:?}:\n{}", self.stderr()));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        Stopped {
            code: status.code(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("the node's last words:\n{}", self.stderr());
        }
    }
}

impl Stopped {
    /// Asserts that the node ended by itself with exit code 1 and that its words hold one of `words`, in any case.
    pub fn told(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "exit code 1 was expected: {self}");
        let said = self.stderr.to_lowercase();
        assert!(
            words.iter().any(|word| said.contains(&word.to_lowercase())),
            "none of {words:?} was said: {self}"
        );
        assert!(
            !said.contains("panicked at"),
            "a panic is no message: {self}"
        );
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {:?}, stderr:\n{}", self.code, self.stderr)
    }
}

/// What a command of the CLI answered.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Asserts that it went well.
    pub fn well(&self, what: &str) {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        assert_eq!(
            *code,
            Some(0),
            "{what}\nstdout:\n{stdout}\nstderr:\n{stderr}"
        );
    }
}

/// Runs `qbc` with these arguments.
pub fn qbc(arguments: &[&str]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_qbc"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qbc can be started");
    let stdout = read_aside(child.stdout.take().expect("stdout is piped"));
    let stderr = read_aside(child.stderr.take().expect("stderr is piped"));
    let Some(status) = wait(&mut child, COMMAND_MAX) else {
        child.kill().ok();
        child.wait().ok();
        panic!("qbc {arguments:?} still ran after {COMMAND_MAX:?}");
    };
    let text = |reader: JoinHandle<String>| reader.join().expect("the reader does not panic");
    Ran {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// Waits for the end of a process; `None` at the deadline.
pub fn wait(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn keep_lines(pipe: impl Read, lines: &Mutex<Vec<String>>, told: &mpsc::Sender<String>) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let url = line.strip_prefix(READY).map(|url| url.trim().to_owned());
        lines.lock().expect("no other holder panics").push(line);
        if let Some(url) = url {
            told.send(url).ok();
        }
    }
}
