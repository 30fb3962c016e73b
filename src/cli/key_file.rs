//! Files of Ed25519 keys, as `qbc keygen` makes them: two lines of text, `qbc-private-ed25519` and `qbc-public-ed25519`,
//! each followed by 64 hex digits. The second line alone makes a file that may be given away.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use bytes::Bytes;

use crate::{chain::SigningKey, cli::exit::CliError, client::ClientError};

const PRIVATE: &str = "qbc-private-ed25519";
const PUBLIC: &str = "qbc-public-ed25519";

/// Makes a key and its file, of mode 0600. A file that is there is never overwritten.
pub(super) fn make(path: &Path) -> Result<SigningKey, CliError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| CliError::Failed(format!("the system gives no random bytes: {e}")))?;
    let key = SigningKey::from_seed(seed);
    let text = format!(
        "{PRIVATE} {}\n{PUBLIC} {}\n",
        hex::encode(seed),
        hex::encode(key.public())
    );
    write(path, &text).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => CliError::Usage(format!(
            "{} is there already, and a key is never overwritten: name another file with -o",
            path.display()
        )),
        _ => ClientError::io(path, error).into(),
    })?;
    Ok(key)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The key of a file that nobody else can read.
pub(super) fn signer(path: &Path) -> Result<SigningKey, CliError> {
    let usage = |why: String| CliError::Usage(format!("the key file {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
    let seed = line(&text, PRIVATE).map_err(usage)?;
    let seed =
        seed.ok_or_else(|| usage("it holds no private key, as qbc keygen makes it".into()))?;
    let mode = fs::metadata(path).map_err(|error| usage(error.to_string()))?;
    if mode.permissions().mode() & 0o077 != 0 {
        return Err(usage("others can read it; chmod 600 it".into()));
    }
    let key = SigningKey::from_seed(seed);
    match line(&text, PUBLIC).map_err(usage)? {
        Some(public) if public != key.public() => {
            Err(usage("its two lines are not of one key".into()))
        }
        _ => Ok(key),
    }
}

/// A public key on the command line: 64 hex digits, or `@FILE` for a file with its line.
pub(super) fn public_key(text: &str) -> Result<Bytes, String> {
    let Some(path) = text.strip_prefix('@') else {
        let key = parse(text).ok_or("a public key is 64 hex digits (Ed25519), or @FILE")?;
        return Ok(Bytes::copy_from_slice(&key));
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let key = line(&text, PUBLIC).map_err(|why| format!("{path}: {why}"))?;
    let key =
        key.ok_or_else(|| format!("{path}: it has no line {PUBLIC}, as qbc keygen makes it"))?;
    Ok(Bytes::copy_from_slice(&key))
}

/// The bytes of the line that begins with this word.
fn line(text: &str, word: &str) -> Result<Option<[u8; 32]>, String> {
    let found = text.lines().find_map(|line| line.trim().strip_prefix(word));
    found
        .map(|digits| {
            parse(digits.trim()).ok_or(format!("{word} is not followed by 64 hex digits"))
        })
        .transpose()
}

fn parse(digits: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(digits, &mut key).ok().map(|()| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<SigningKey, CliError>) -> (u8, String) {
        let error = result.expect_err("refused");
        (error.code(), error.to_string())
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        let key = make(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(signer(&path).unwrap().public(), key.public());
        let before = fs::read(&path).unwrap();
        let (exit, why) = code(make(&path));
        assert!(exit == 2 && why.contains("never overwritten"), "{why}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let at = format!("@{}", path.display());
        assert_eq!(public_key(&at).unwrap(), key.public().to_vec());
        assert_eq!(
            public_key(&hex::encode(key.public())).unwrap(),
            key.public().to_vec()
        );
    }

    #[test]
    fn a_file_that_is_no_key_of_ones_own_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        make(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let (private, public) = text.split_once('\n').unwrap();
        let seed = private.replace(PRIVATE, "");
        for (bad, why) in [
            (public, "no private key"),
            (seed.trim(), "no private key"),
            (&private[..60], "64 hex digits"),
            (
                &format!("{private}\n{PUBLIC} {}", seed.trim()),
                "not of one key",
            ),
        ] {
            fs::write(&path, bad).unwrap();
            let (exit, said) = code(signer(&path));
            assert!(exit == 2 && said.contains(why), "{said}");
        }
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(code(signer(&path)).1.contains("chmod 600"));
        assert!(code(signer(Path::new("/nowhere"))).1.contains("/nowhere"));
    }

    #[test]
    fn a_public_key_of_another_form_is_refused() {
        assert!(public_key(&"ab".repeat(31)).is_err());
        assert!(public_key("xyz").is_err());
        assert!(public_key("@/nowhere").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bare");
        fs::write(&path, "ab".repeat(32)).unwrap();
        let refused = public_key(&format!("@{}", path.display())).unwrap_err();
        assert!(refused.contains(PUBLIC), "{refused}");
    }
}
