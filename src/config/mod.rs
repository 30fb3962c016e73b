//! Configuration: defaults, then the file, then the environment (`QBC_DATA`, `QBC_LISTEN`, ...), then flags. Unknown keys are
//! errors. `config/qbc.toml` shows every default; a test holds it equal to this file.

mod addresses;

use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::chain::SigAlgs;

/// A set of algorithms as the file has it: their names with commas between.
mod algs {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::chain::SigAlgs;

    #[allow(clippy::trivially_copy_pass_by_ref)] // the form that serde calls
    pub(super) fn serialize<S: Serializer>(algs: &SigAlgs, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(algs)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SigAlgs, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Less would move the replicas of members that only restart.
const REPLACE_AFTER_MS_MIN: u64 = 1000;
/// More is no notice but a mistake.
const STOP_NOTICE_MS_MAX: u64 = 600_000;
/// More cores than any machine that this was made for.
const MINING_THREADS_MAX: usize = 1024;

/// What a node needs to know.
#[allow(clippy::struct_excessive_bools)] // independent switches, each a key of the file
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where to listen, HOST:PORT; port 0 takes a free one.
    pub listen: String,
    /// Where the other members reach this node, HOST:PORT; empty: `listen`.
    pub advertise: String,
    /// Members to join at the first start, HOST:PORT or HOST:FROM-TO; empty: found a cluster.
    pub join: String,
    /// The file of the secret by which members know each other; empty: none.
    pub cluster_secret_file: PathBuf,
    /// Without a secret, believe that whoever calls from loopback is a member.
    pub trust_loopback: bool,
    /// Members that are reached from here under another address, each HOST:PORT=HOST:PORT: advertised = dialled.
    pub dial: Vec<String>,
    /// Replicas of each data group, 1, 3 or 5; read when the cluster is founded.
    pub replication: u8,
    /// A member unseen for so long has its replicas moved to spare members, in milliseconds.
    pub replace_after_ms: u64,
    /// What damaged replicas left on disk stays there after they were repaired from other members.
    pub keep_damaged: bool,
    /// This node keeps a copy of the cluster's root key and gives it to other certified members.
    pub hold_root_key: bool,
    /// What this node signs heads with: `ed25519`, `ml-dsa-44`, or both with a comma between.
    #[serde(with = "algs")]
    pub node_keys: SigAlgs,
    /// Listen beyond loopback without credentials.
    pub insecure: bool,
    /// Data groups; read at the first start only, fixed for the cluster's life. 1..338.
    pub groups: u32,
    /// RocksDB's block cache, in MiB.
    pub cache_mib: usize,
    /// Bytes of commands that may wait to be written, in MiB; beyond it requests are refused with `NODE_BUSY`.
    pub waiting_mib_max: usize,
    /// How long a stop waits for requests under way, in milliseconds; then it ends them.
    pub stop_ms_max: u64,
    /// How long a stop goes on serving after `/readyz` and the gRPC health said that it comes, in milliseconds.
    pub stop_notice_ms: u64,
    /// Origins whose pages may do everything over HTTP, as browsers write them: `https://ledger.example`.
    pub http_origins: Vec<String>,
    /// Names under which clients on loopback may call the node over HTTP, beside `localhost` and addresses.
    pub http_hosts: Vec<String>,
    /// Pause of the background scrub after each Quant, in milliseconds.
    pub scrub_pause_ms: u64,
    /// How often heads that moved are taken into the log of all chains, in milliseconds.
    pub heads_every_ms: u64,
    /// Threads that mine, for chains that ask for work; 0: one less than the cores, at least 1.
    pub mining_threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "qbc-data".into(),
            listen: "127.0.0.1:7420".into(),
            advertise: String::new(),
            join: String::new(),
            cluster_secret_file: PathBuf::new(),
            trust_loopback: true,
            dial: Vec::new(),
            replication: 3,
            replace_after_ms: 600_000,
            keep_damaged: true,
            hold_root_key: true,
            node_keys: SigAlgs::ONLY_ED25519,
            insecure: false,
            groups: 16,
            cache_mib: 128,
            waiting_mib_max: 256,
            stop_ms_max: 5000,
            stop_notice_ms: 0,
            http_origins: Vec::new(),
            http_hosts: Vec::new(),
            scrub_pause_ms: 100,
            heads_every_ms: 1000,
            mining_threads: 0,
        }
    }
}

/// What the command line may set.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// --data
    pub data: Option<PathBuf>,
    /// --listen
    pub listen: Option<String>,
    /// --advertise
    pub advertise: Option<String>,
    /// --join
    pub join: Option<String>,
    /// --cluster-secret-file
    pub cluster_secret_file: Option<PathBuf>,
    /// --node-keys
    pub node_keys: Option<SigAlgs>,
    /// --insecure
    pub insecure: bool,
}

/// The configuration is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {file} can't be read: {why}")]
    File {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// The environment can't be read.
    #[error("the environment variable {name} is refused: {why}")]
    Environment {
        /// Which.
        name: String,
        /// Why.
        why: String,
    },
    /// A value is out of its range.
    #[error("{key} = {value} is refused: {cure}")]
    Value {
        /// Which.
        key: &'static str,
        /// What it is.
        value: String,
        /// What would do.
        cure: &'static str,
    },
}

impl Config {
    /// Defaults, file, environment, flags, in this order; then the checks.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Self, ConfigError> {
        let mut config = file.map_or_else(|| Ok(Self::default()), read_file)?;
        config.environment(|name| env::var(name).ok())?;
        config.flags(flags);
        config.check()?;
        Ok(config)
    }

    fn flags(&mut self, flags: Flags) {
        replace(&mut self.data, flags.data);
        replace(&mut self.listen, flags.listen);
        replace(&mut self.advertise, flags.advertise);
        replace(&mut self.join, flags.join);
        replace(&mut self.cluster_secret_file, flags.cluster_secret_file);
        replace(&mut self.node_keys, flags.node_keys);
        self.insecure |= flags.insecure;
    }

    /// The address to listen on.
    pub fn address(&self) -> Result<SocketAddr, ConfigError> {
        let bad = |cure| bad("listen", &self.listen, cure);
        let mut found = self
            .listen
            .to_socket_addrs()
            .map_err(|_| bad("give HOST:PORT, for example 127.0.0.1:7420"))?;
        found.next().ok_or_else(|| bad("the host has no address"))
    }

    /// Where the other members reach this node, once it listens.
    pub fn advertised(&self, listening: SocketAddr) -> String {
        if self.advertise.is_empty() {
            listening.to_string()
        } else {
            self.advertise.clone()
        }
    }

    /// The file of the cluster secret, if there is one.
    pub fn secret_file(&self) -> Option<&Path> {
        let file = self.cluster_secret_file.as_path();
        (!file.as_os_str().is_empty()).then_some(file)
    }

    /// The members to ask for entry, HOST:PORT each; none: this node founds a cluster. A range of ports may hold this
    /// node's own.
    pub fn join_addresses(&self) -> Result<Vec<String>, ConfigError> {
        addresses::expand(&self.join).map_err(|cure| bad("join", &self.join, cure))
    }

    /// Advertised address -> the one to dial instead.
    pub fn dial_map(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let pair = |entry: &String| addresses::pair(entry).map_err(|cure| bad("dial", entry, cure));
        self.dial.iter().map(pair).collect()
    }

    fn environment(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        set(&get, "QBC_DATA", &mut self.data)?;
        set(&get, "QBC_LISTEN", &mut self.listen)?;
        set(&get, "QBC_ADVERTISE", &mut self.advertise)?;
        set(&get, "QBC_JOIN", &mut self.join)?;
        set(
            &get,
            "QBC_CLUSTER_SECRET_FILE",
            &mut self.cluster_secret_file,
        )?;
        set(&get, "QBC_TRUST_LOOPBACK", &mut self.trust_loopback)?;
        set_list(&get, "QBC_DIAL", &mut self.dial);
        set_list(&get, "QBC_HTTP_ORIGINS", &mut self.http_origins);
        set_list(&get, "QBC_HTTP_HOSTS", &mut self.http_hosts);
        set(&get, "QBC_REPLICATION", &mut self.replication)?;
        set(&get, "QBC_REPLACE_AFTER_MS", &mut self.replace_after_ms)?;
        set(&get, "QBC_KEEP_DAMAGED", &mut self.keep_damaged)?;
        set(&get, "QBC_HOLD_ROOT_KEY", &mut self.hold_root_key)?;
        set(&get, "QBC_NODE_KEYS", &mut self.node_keys)?;
        set(&get, "QBC_INSECURE", &mut self.insecure)?;
        set(&get, "QBC_GROUPS", &mut self.groups)?;
        set(&get, "QBC_CACHE_MIB", &mut self.cache_mib)?;
        set(&get, "QBC_WAITING_MIB_MAX", &mut self.waiting_mib_max)?;
        set(&get, "QBC_STOP_MS_MAX", &mut self.stop_ms_max)?;
        set(&get, "QBC_STOP_NOTICE_MS", &mut self.stop_notice_ms)?;
        set(&get, "QBC_SCRUB_PAUSE_MS", &mut self.scrub_pause_ms)?;
        set(&get, "QBC_HEADS_EVERY_MS", &mut self.heads_every_ms)?;
        set(&get, "QBC_MINING_THREADS", &mut self.mining_threads)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=338).contains(&self.groups) {
            return Err(bad("groups", &self.groups, "give 1 to 338"));
        }
        if !(1..=1 << 20).contains(&self.cache_mib) {
            return Err(bad("cache_mib", &self.cache_mib, "give 1 to 1048576"));
        }
        if !(8..=1 << 16).contains(&self.waiting_mib_max) {
            return Err(bad(
                "waiting_mib_max",
                &self.waiting_mib_max,
                "give 8 to 65536",
            ));
        }
        if !(100..=3_600_000).contains(&self.heads_every_ms) {
            let cure = "give 100 to 3600000";
            return Err(bad("heads_every_ms", &self.heads_every_ms, cure));
        }
        if self.mining_threads > MINING_THREADS_MAX {
            return Err(bad(
                "mining_threads",
                &self.mining_threads,
                "give 0 to 1024; 0 takes all cores but one",
            ));
        }
        if !self.address()?.ip().is_loopback() && !self.insecure {
            return Err(bad(
                "listen",
                &self.listen,
                "outside loopback anyone could write and read: credentials are not part of this version, so listen on 127.0.0.1 behind a proxy of yours, or say --insecure",
            ));
        }
        self.check_http()?;
        self.check_cluster()
    }

    fn check_http(&self) -> Result<(), ConfigError> {
        let is_origin = |text: &str| {
            let host = text
                .strip_prefix("https://")
                .or(text.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && !host.contains(['/', '*', ' ', '?', '#', '@'])
            }) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        if let Some(bad_one) = self.http_origins.iter().find(|one| !is_origin(one)) {
            let cure = "give origins as browsers write them, https://HOST or https://HOST:PORT in lower case, without a path; there is no * for all, since their pages may write";
            return Err(bad("http_origins", bad_one, cure));
        }
        let is_host = |text: &str| !text.is_empty() && !text.contains([':', '/', '*', ' ']);
        if let Some(bad_one) = self.http_hosts.iter().find(|one| !is_host(one)) {
            let cure = "give names of hosts without scheme and port: ledger.example";
            return Err(bad("http_hosts", bad_one, cure));
        }
        if self.stop_notice_ms > STOP_NOTICE_MS_MAX {
            return Err(bad(
                "stop_notice_ms",
                &self.stop_notice_ms,
                "give 0 to 600000",
            ));
        }
        Ok(())
    }

    fn check_cluster(&self) -> Result<(), ConfigError> {
        if ![1, 3, 5].contains(&self.replication) {
            return Err(bad("replication", &self.replication, "give 1, 3 or 5"));
        }
        if self.replace_after_ms < REPLACE_AFTER_MS_MIN {
            return Err(bad(
                "replace_after_ms",
                &self.replace_after_ms,
                "give at least 1000: a member that only restarts keeps its replicas",
            ));
        }
        self.join_addresses()?;
        self.dial_map()?;
        if !self.advertise.is_empty() {
            addresses::reachable(&self.advertise)
                .map_err(|cure| bad("advertise", &self.advertise, cure))?;
        }
        let secret = self.secret_file().is_some();
        let clustered = !self.join.is_empty() || secret;
        if clustered && self.advertise.is_empty() && self.address()?.ip().is_unspecified() {
            return Err(bad(
                "listen",
                &self.listen,
                "no other member can reach a node there: say where it is reached with --advertise HOST:PORT",
            ));
        }
        if !self.join.is_empty() && !self.trust_loopback && !secret {
            return Err(bad(
                "trust_loopback",
                &self.trust_loopback,
                "without a secret no other member would be believed: give one with --cluster-secret-file FILE",
            ));
        }
        Ok(())
    }
}

fn bad(key: &'static str, value: &(impl ToString + ?Sized), cure: &'static str) -> ConfigError {
    ConfigError::Value {
        key,
        value: value.to_string(),
        cure,
    }
}

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn read_file(path: &Path) -> Result<Config, ConfigError> {
    let bad = |why: String| ConfigError::File {
        file: path.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    toml::from_str(&text).map_err(|error| bad(error.to_string()))
}

/// A list with commas between.
fn set_list(get: &impl Fn(&str) -> Option<String>, name: &str, list: &mut Vec<String>) {
    if let Some(given) = get(name) {
        let parts = given.split(',').map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        *list = parts.map(str::to_owned).collect();
    }
}

fn set<T: std::str::FromStr>(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    field: &mut T,
) -> Result<(), ConfigError>
where
    T::Err: std::fmt::Display,
{
    if let Some(text) = get(name) {
        *field = text
            .parse()
            .map_err(|why: T::Err| ConfigError::Environment {
                name: name.into(),
                why: why.to_string(),
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::SigAlg;

    #[test]
    fn the_shipped_file_is_equal_to_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/qbc.toml");
        assert_eq!(read_file(&path).unwrap(), Config::default());
        let shown = toml::Value::try_from(Config::default()).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let file: toml::Value = toml::from_str(&text).unwrap();
        assert_eq!(file, shown, "the file names every key");
    }

    #[test]
    fn later_sources_win_and_bad_ones_are_named() {
        let mut config = Config::default();
        let get = |name: &str| (name == "QBC_GROUPS").then(|| "3".to_owned());
        config.environment(get).unwrap();
        assert_eq!(config.groups, 3);
        let get = |name: &str| (name == "QBC_GROUPS").then(|| "many".to_owned());
        assert!(
            config
                .environment(get)
                .unwrap_err()
                .to_string()
                .contains("QBC_GROUPS")
        );
        let get = |name: &str| (name == "QBC_MINING_THREADS").then(|| "1025".to_owned());
        config.environment(get).unwrap();
        let refused = config.check().unwrap_err().to_string();
        assert!(refused.contains("mining_threads = 1025 is refused: give 0 to 1024"));
        let get = |name: &str| (name == "QBC_NODE_KEYS").then(|| "ed25519,ml-dsa-44".to_owned());
        config.environment(get).unwrap();
        assert!(config.node_keys.contains(SigAlg::MlDsa44));
        let bad: Result<Config, _> = toml::from_str("node_keys = \"rsa\"");
        let bad = bad.unwrap_err().to_string();
        assert!(
            bad.contains("node_keys") && bad.contains("ml-dsa-44"),
            "{bad}"
        );
        let unknown: Result<Config, _> = toml::from_str("grups = 3");
        assert!(unknown.unwrap_err().to_string().contains("grups"));
    }

    #[test]
    fn an_open_address_needs_a_word() {
        let flags = |insecure| Flags {
            listen: Some("0.0.0.0:0".into()),
            insecure,
            ..Flags::default()
        };
        assert!(Config::load(None, flags(false)).is_err());
        assert!(Config::load(None, flags(true)).is_ok());
    }

    #[test]
    fn the_keys_of_the_cluster_come_from_the_environment_too() {
        let mut config = Config::default();
        let given = BTreeMap::from([
            ("QBC_JOIN", "h:1"),
            ("QBC_ADVERTISE", "me:2"),
            ("QBC_CLUSTER_SECRET_FILE", "s"),
            ("QBC_TRUST_LOOPBACK", "false"),
            ("QBC_DIAL", "a:1=b:2, c:3=d:4"),
            ("QBC_REPLICATION", "5"),
            ("QBC_REPLACE_AFTER_MS", "2000"),
        ]);
        config
            .environment(|name| given.get(name).map(|value| (*value).to_owned()))
            .unwrap();
        assert_eq!(config.join_addresses().unwrap(), ["h:1"]);
        assert_eq!(config.secret_file(), Some(Path::new("s")));
        assert_eq!(config.dial_map().unwrap()["c:3"], "d:4");
        assert_eq!((config.replication, config.replace_after_ms), (5, 2000));
        assert!(!config.trust_loopback);
        let listening = "127.0.0.1:9".parse().unwrap();
        assert_eq!(config.advertised(listening), "me:2");
        assert_eq!(Config::default().advertised(listening), "127.0.0.1:9");
    }

    #[test]
    fn what_makes_no_cluster_is_refused_with_the_key_and_the_cure() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str, &str); 8] = [
            (|c| c.replication = 2, "replication = 2", "1, 3 or 5"),
            (|c| c.replace_after_ms = 0, "replace_after_ms = 0", "1000"),
            (|c| c.join = "here".into(), "join = here", "HOST:PORT"),
            (|c| c.dial = vec!["a:1".into()], "dial = a:1", "="),
            (|c| c.advertise = "0.0.0.0:1".into(), "advertise", "reach"),
            (|c| c.advertise = "h:0".into(), "advertise", "1 to 65535"),
            (
                |c| (c.listen, c.insecure, c.join) = ("0.0.0.0:0".into(), true, "h:1".into()),
                "listen = 0.0.0.0:0",
                "--advertise",
            ),
            (
                |c| (c.trust_loopback, c.join) = (false, "h:1".into()),
                "trust_loopback",
                "--cluster-secret-file",
            ),
        ];
        for (change, key, cure) in cases {
            let mut config = Config::default();
            change(&mut config);
            let told = config.check().unwrap_err().to_string();
            assert!(told.contains(key) && told.contains(cure), "{told}");
        }
    }
}
