//! What the verbs that speak to a node share: the client, the printer, and how a chain is met.
use std::{
    env,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use crate::{
    chain::ChainName,
    cli::{
        Global,
        exit::CliError,
        output::{Printer, say},
    },
    client::{Client, ClientConfig, Contact, ContactKind, Heads, Trusted},
};

/// How often a verb that waits for a miner says how far it is.
const MINING_SAID_EVERY: Duration = Duration::from_secs(3);
/// How long that word may take.
const MINING_WORD_MAX: Duration = Duration::from_secs(1);

/// One run of a verb.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) printer: Printer,
}

impl Session {
    pub(super) async fn open(global: &Global) -> Result<Self, CliError> {
        let heads = Heads::file(heads_path(global.heads.as_deref())?);
        let client = Client::connect_with(&global.endpoint, heads, config(global)).await?;
        Ok(Self {
            client,
            printer: Printer::stdout(global.output),
        })
    }

    /// The chain's newest head, verified against what is trusted; a chain that is new to us is not remembered.
    pub(super) async fn look(&self, name: &ChainName) -> Result<Trusted, CliError> {
        let contact = self.client.contact(name.as_ref(), false).await?;
        say_first(&contact);
        Ok(contact.trusted)
    }

    /// The same, and trusted from now on.
    pub(super) async fn keep(&self, name: &ChainName) -> Result<Trusted, CliError> {
        let contact = self.client.contact(name.as_ref(), true).await?;
        if contact.kind == ContactKind::First {
            say(format!(
                "first contact: chain id {} is trusted from now on",
                contact.trusted.chain_id
            ));
        }
        Ok(contact.trusted)
    }
}

/// Says that nobody vouches for a chain.
pub(super) fn say_first(contact: &Contact) {
    if contact.kind == ContactKind::First {
        let id = contact.trusted.chain_id;
        say(format!(
            "first contact: not anchored, nobody vouches for chain id {id}"
        ));
    }
}

/// Waits for a chain to be sealed, and says now and then how far the mining is.
pub(super) async fn say_mining<T>(
    client: &Client,
    name: &str,
    mut sealing: impl Future<Output = T> + Unpin,
) -> T {
    loop {
        if let Ok(sealed) = timeout(MINING_SAID_EVERY, &mut sealing).await {
            return sealed;
        }
        if let Ok(Ok(Some(mining))) = timeout(MINING_WORD_MAX, client.mining(name)).await {
            say(format!(
                "Quant {} is being mined: {} tries of about {} for {} bits, {} per second",
                mining.height,
                mining.tries,
                mining.tries_expected,
                mining.bits,
                mining.tries_per_second
            ));
        }
    }
}

/// Chain names on the command line are checked before anything is sent.
pub(super) fn chain_name(text: &str) -> Result<ChainName, String> {
    ChainName::parse(text).map_err(|error| error.to_string())
}

pub(super) fn config(global: &Global) -> ClientConfig {
    ClientConfig {
        deadline: Duration::from_secs(global.deadline_s),
        require: global.require_alg.unwrap_or_default(),
    }
}

/// The file of trusted heads: as given, else where the desktop conventions put state.
pub(super) fn heads_path(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let variable = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    place_of_heads(given, variable("XDG_STATE_HOME"), variable("HOME")).ok_or_else(|| {
        let why = "nowhere to keep trusted heads: set QBC_HEADS to a file, or HOME to a folder";
        CliError::Usage(why.to_owned())
    })
}

fn place_of_heads(
    given: Option<&Path>,
    state: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if let Some(given) = given {
        return Some(given.to_owned());
    }
    let state = state.or_else(|| Some(home?.join(".local/state")))?;
    Some(state.join("qbc/heads.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_file_stands_where_it_is_told_to_else_in_the_state_folder() {
        let (state, home) = (Some(PathBuf::from("/s")), Some(PathBuf::from("/h")));
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            place_of_heads(Some(Path::new("x.json")), state.clone(), home.clone()),
            path("x.json")
        );
        assert_eq!(
            place_of_heads(None, state, home.clone()),
            path("/s/qbc/heads.json")
        );
        assert_eq!(
            place_of_heads(None, None, home),
            path("/h/.local/state/qbc/heads.json")
        );
        assert_eq!(place_of_heads(None, None, None), None);
    }
}
