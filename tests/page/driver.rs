//! A browser, by the few commands of WebDriver (<https://www.w3.org/TR/webdriver2/>) that the stories need. It ends with the
//! test, by its own processes.
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

const STARTED: &str = "started successfully on port ";
/// The machine may be busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const CALM: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// A browser with one window at hand.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    pub fn open() -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver can be started: apt-get install chromium chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once(STARTED)?;
            port.trim_end_matches('.').parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port: port.expect("chromedriver says its port"),
            session: String::new(),
            profile,
        };
        browser.begin();
        browser
    }

    fn begin(&mut self) {
        let mut args: Vec<String> = CALM.iter().map(|&arg| arg.to_owned()).collect();
        args.push(format!("--user-data-dir={}", self.profile.path().display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": args},
        }}});
        let answer = self.call("POST", "/session", &wanted);
        answer["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut self.session);
        self.post("/timeouts", &json!({"script": 120_000}));
    }

    /// Goes to an address; an address that differs behind `#` only is loaded anew too.
    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": "about:blank"}));
        self.post("/url", &json!({"url": url}));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// What a script returns in the end; it may wait. `given` is what it is given.
    pub fn run_async_with(&self, script: &str, args: &Value) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1], given = arguments[0]; (async () => {{ {script} }})().then(done, (error) => done({{failed: String(error.stack ?? error)}}));"
        );
        self.post("/execute/async", &json!({"script": script, "args": args}))
    }

    /// Waits until an expression is true.
    pub fn until(&self, expression: &str) {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let now = self.run(&format!(
                "try {{ return !!({expression}) }} catch {{ return false }}"
            ));
            if now == json!(true) {
                return;
            }
            if Instant::now() > until {
                let body = self.run("return document.body.innerText");
                panic!(
                    "never true: {expression}\n{}",
                    body.as_str().unwrap_or_default()
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Clicks as a person does: where the element is, and only if nothing lies over it.
    pub fn click(&self, css: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Types into an element.
    pub fn write(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.post(&format!("/element/{element}/clear"), &json!({}));
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    /// Keys to whatever has the focus.
    pub fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions: Vec<Value> = each.collect();
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// The text that is seen.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText")
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Opens another window and goes on there; gives the one before and the new one.
    pub fn window(&self) -> (String, String) {
        let before = self.get("/window").as_str().unwrap().to_owned();
        let made = self.post("/window/new", &json!({"type": "window"}));
        let new = made["handle"].as_str().unwrap().to_owned();
        self.switch(&new);
        (before, new)
    }

    pub fn switch(&self, window: &str) {
        self.post("/window", &json!({"handle": window}));
    }

    /// A screen of this size and scheme.
    pub fn screen(&self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700});
        self.cdp("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", &scheme);
    }

    /// A picture of the window, where the environment names a folder for them.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("QBC_SHOTS") else {
            return;
        };
        let shot = self.get("/screenshot");
        let bytes = STANDARD.decode(shot.as_str().unwrap()).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            std::path::Path::new(&folder).join(format!("{name}.png")),
            bytes,
        )
        .unwrap();
    }

    /// What the console said since the last look.
    pub fn console(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().unwrap().iter();
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn cdp(&self, command: &str, params: &Value) {
        self.post(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": params}),
        );
    }

    fn element(&self, css: &str) -> String {
        self.until(&format!("document.querySelector({})", json!(css)));
        let found = self.post("/element", &json!({"using": "css selector", "value": css}));
        let id = found.as_object().and_then(|found| found.values().next());
        id.and_then(Value::as_str).expect("an element").to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn get(&self, path: &str) -> Value {
        self.call(
            "GET",
            &format!("/session/{}{path}", self.session),
            &Value::Null,
        )
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let value = self.try_call(method, path, body);
        let value = value.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(value.get("error").is_none(), "{method} {path}: {value}");
        value
    }

    /// One request on a connection of its own.
    fn try_call(&self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = BufReader::new(stream);
        let (mut length, mut line) = (0, String::new());
        while answer.read_line(&mut line)? > 2 {
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            line.clear();
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        let mut answer: Value = serde_json::from_slice(&text)?;
        Ok(answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser that it started; killed, it would leave it behind.
        let session = format!("/session/{}", self.session);
        self.try_call("DELETE", &session, &Value::Null).ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
