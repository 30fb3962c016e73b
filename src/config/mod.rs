//! Configuration: defaults, then the file, then the environment (`QBC_DATA`, `QBC_LISTEN`, ...), then flags. Unknown keys are
//! errors. `config/qbc.toml` shows every default; a test holds it equal to this file.

use std::{
    env,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What a node needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where to listen, HOST:PORT; port 0 takes a free one.
    pub listen: String,
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
    /// Pause of the background scrub after each Quant, in milliseconds.
    pub scrub_pause_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "qbc-data".into(),
            listen: "127.0.0.1:7420".into(),
            insecure: false,
            groups: 16,
            cache_mib: 256,
            waiting_mib_max: 256,
            stop_ms_max: 5000,
            scrub_pause_ms: 100,
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
        if let Some(data) = flags.data {
            config.data = data;
        }
        if let Some(listen) = flags.listen {
            config.listen = listen;
        }
        config.insecure |= flags.insecure;
        config.check()?;
        Ok(config)
    }

    /// The address to listen on.
    pub fn address(&self) -> Result<SocketAddr, ConfigError> {
        let bad = |cure| ConfigError::Value {
            key: "listen",
            value: self.listen.clone(),
            cure,
        };
        let mut found = self
            .listen
            .to_socket_addrs()
            .map_err(|_| bad("give HOST:PORT, for example 127.0.0.1:7420"))?;
        found.next().ok_or_else(|| bad("the host has no address"))
    }

    fn environment(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        set(&get, "QBC_DATA", &mut self.data)?;
        set(&get, "QBC_LISTEN", &mut self.listen)?;
        set(&get, "QBC_INSECURE", &mut self.insecure)?;
        set(&get, "QBC_GROUPS", &mut self.groups)?;
        set(&get, "QBC_CACHE_MIB", &mut self.cache_mib)?;
        set(&get, "QBC_WAITING_MIB_MAX", &mut self.waiting_mib_max)?;
        set(&get, "QBC_STOP_MS_MAX", &mut self.stop_ms_max)?;
        set(&get, "QBC_SCRUB_PAUSE_MS", &mut self.scrub_pause_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, value: String, cure| Err(ConfigError::Value { key, value, cure });
        if !(1..=338).contains(&self.groups) {
            return bad("groups", self.groups.to_string(), "give 1 to 338");
        }
        if !(1..=1 << 20).contains(&self.cache_mib) {
            return bad("cache_mib", self.cache_mib.to_string(), "give 1 to 1048576");
        }
        if !(8..=1 << 16).contains(&self.waiting_mib_max) {
            return bad(
                "waiting_mib_max",
                self.waiting_mib_max.to_string(),
                "give 8 to 65536",
            );
        }
        if !self.address()?.ip().is_loopback() && !self.insecure {
            return bad(
                "listen",
                self.listen.clone(),
                "outside loopback anyone could write and read: credentials are not part of this version, so listen on 127.0.0.1 behind a proxy of yours, or say --insecure",
            );
        }
        Ok(())
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
}
