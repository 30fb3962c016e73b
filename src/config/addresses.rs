//! Addresses as text, HOST:PORT: names are resolved when they are dialled, so that a member may move.

use std::net::IpAddr;

/// Ports that one range may name.
const PORTS_MAX: usize = 1000;

const NO_PORT: &str = "give HOST:PORT with a port from 1 to 65535, an IPv6 host in brackets";

/// Every address of HOST:PORT or HOST:FROM-TO, several with commas between; none of an empty text. The error is the cure.
pub(super) fn expand(text: &str) -> Result<Vec<String>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let all = text.split(',').map(|one| range(one.trim()));
    Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
}

fn range(text: &str) -> Result<Vec<String>, &'static str> {
    let (host, ports) = split(text)?;
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    let (from, to) = (port(from)?, port(to)?);
    if from > to || usize::from(to - from) >= PORTS_MAX {
        return Err("a range of ports goes upwards and names at most 1000");
    }
    Ok((from..=to).map(|port| format!("{host}:{port}")).collect())
}

/// Both sides of HOST:PORT=HOST:PORT.
pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (known, dialled) = text
        .split_once('=')
        .ok_or("give HOST:PORT=HOST:PORT: the advertised address = the one to dial instead")?;
    Ok((one(known)?, one(dialled)?))
}

/// Fails for an address under which nobody else could reach a node.
pub(super) fn reachable(text: &str) -> Result<(), &'static str> {
    let (host, ports) = split(text)?;
    port(ports)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let nowhere = bare.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if nowhere {
        return Err("nobody can reach it: give the address or name by which others see this host");
    }
    Ok(())
}

fn one(text: &str) -> Result<String, &'static str> {
    let (host, ports) = split(text.trim())?;
    Ok(format!("{host}:{}", port(ports)?))
}

fn split(text: &str) -> Result<(&str, &str), &'static str> {
    let (host, ports) = text.rsplit_once(':').ok_or(NO_PORT)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let odd = |c: char| c.is_whitespace() || "/,=@".contains(c);
    if host.is_empty() || host.contains(odd) || host.contains(':') && !bracketed {
        return Err(NO_PORT);
    }
    Ok((host, ports))
}

fn port(text: &str) -> Result<u16, &'static str> {
    let port: u16 = text.parse().map_err(|_| NO_PORT)?;
    (port > 0).then_some(port).ok_or(NO_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_every_port_of_it() {
        assert_eq!(expand("").unwrap(), [""; 0]);
        assert_eq!(expand("h:1").unwrap(), ["h:1"]);
        assert_eq!(expand("[::1]:8-9").unwrap(), ["[::1]:8", "[::1]:9"]);
        assert_eq!(expand("h:1-1000").unwrap().len(), PORTS_MAX);
        for bad in [
            "h",
            ":1",
            "h:",
            "h:0",
            "h:9-8",
            "h:1-1001",
            "::1:8",
            "h:1-2-3",
            "http://h:1",
        ] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pair_says_what_is_dialled_instead() {
        let found = pair("a:1=b:2").unwrap();
        assert_eq!(found, ("a:1".to_owned(), "b:2".to_owned()));
        for bad in ["a:1", "a=b", "a:1=b", "a:1=b:2=c:3"] {
            assert!(pair(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_that_means_everywhere_reaches_nobody() {
        for bad in ["0.0.0.0:1", "[::]:1", "h:0", "h"] {
            assert!(reachable(bad).is_err(), "{bad}");
        }
        assert!(reachable("h:1").is_ok());
    }
}
