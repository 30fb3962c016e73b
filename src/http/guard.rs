//! What browsers do in the name of pages of other origins: such a page reads nothing unless the configuration names its
//! origin, and changes nothing; and a foreign name that is made to lead to loopback finds nobody.
//!
//! RFC 6454 (origins), Fetch Metadata (Sec-Fetch-Site), the CORS protocol of the Fetch standard.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header},
    middleware::Next,
};

use super::{problem::Problem, routes};
use crate::peer::PeerInfo;

const FETCH_SITE: &str = "sec-fetch-site";
/// What a page of a known origin may send and see beyond what it may anyway.
const SENT: &str =
    "content-type, x-grpc-web, x-user-agent, grpc-timeout, last-event-id, if-none-match";
const SEEN: &str =
    "etag, location, retry-after, grpc-status, grpc-message, grpc-status-details-bin";
/// Seconds for which a browser need not ask again.
const ASKED_FOR: &str = "600";

/// Who may come from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Origins whose pages may do everything, as browsers write them: `https://ledger.example`.
    pub origins: Vec<String>,
    /// Names under which clients on loopback may call the node, beside `localhost` and addresses.
    pub hosts: Vec<String>,
}

/// Before every request, of gRPC too.
pub async fn guard(
    State(rules): State<Arc<Rules>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let known = rules.known_origin(request.headers());
    if let Err(problem) = rules.check(&request) {
        return shielded(problem.into_response());
    }
    if let Some(answer) = preflight(&request, known.as_ref()) {
        return shielded(answer);
    }
    let mut answer = next.run(request).await;
    if let Some(origin) = known {
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let seen = HeaderValue::from_static(SEEN);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, seen);
    }
    if !rules.origins.is_empty() {
        let vary = HeaderValue::from_static("Origin");
        answer.headers_mut().append(header::VARY, vary);
    }
    shielded(answer)
}

impl Rules {
    fn check(&self, request: &Request<Body>) -> Result<(), Problem> {
        let headers = request.headers();
        let info = request.extensions().get::<PeerInfo>();
        let address = info.and_then(|info| info.address).map(|from| from.ip());
        if request.version() < Version::HTTP_2
            && address.is_some_and(|ip| ip.to_canonical().is_loopback())
        {
            self.check_host(headers)?;
        }
        if changes(request) {
            self.check_origin(headers)?;
        }
        Ok(())
    }

    /// Whoever can make a name lead to loopback has a browser there believe that the node is that name's.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(host) = text(headers, header::HOST.as_str()) else {
            return Ok(());
        };
        let name = without_port(host).to_ascii_lowercase();
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        let own = literal.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self
                .hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(&name));
        if own {
            return Ok(());
        }
        let why = format!(
            "the request came over loopback for {name:?}, which is no name of this node: call 127.0.0.1 or localhost, or put the name into http_hosts of the configuration"
        );
        Err(Problem::new("HOST_REFUSED", why))
    }

    /// A page of another origin must not change anything; programs send none of these headers.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.known_origin(headers).is_some() {
            return Ok(());
        }
        let host = text(headers, header::HOST.as_str());
        let same = |from: &str| {
            let authority = authority(from);
            authority.is_some() && authority == host.map(str::to_ascii_lowercase)
        };
        let foreign = match (
            text(headers, header::ORIGIN.as_str()),
            text(headers, FETCH_SITE),
        ) {
            (Some(origin), _) if !same(origin) => origin,
            (_, Some(site)) if !["same-origin", "none"].contains(&site) => site,
            (None, None) => match text(headers, header::REFERER.as_str()) {
                Some(page) if !same(page) => page,
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        let why = format!(
            "a page of another origin ({foreign:?}) may change nothing here; put its origin into http_origins of the configuration if it shall"
        );
        Err(Problem::new("ORIGIN_REFUSED", why))
    }

    /// The origin, if its pages may do everything.
    fn known_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let known = self
            .origins
            .iter()
            .any(|one| one.as_bytes() == origin.as_bytes());
        known.then(|| origin.clone())
    }
}

/// True unless a request surely changes nothing.
fn changes(request: &Request<Body>) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    // Scripts read over a WebSocket whatever its origin: CORS does not hold for it.
    let upgrades = request.headers().contains_key(header::UPGRADE);
    let found = || routes::find(request.method().as_str(), request.uri().path());
    !reads || upgrades || found().is_ok_and(|(route, _)| route.writes)
}

fn preflight(request: &Request<Body>, known: Option<&HeaderValue>) -> Option<Response<Body>> {
    let headers = request.headers();
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asks {
        return None;
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    if let Some(origin) = known {
        let allowed = [
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                "GET, HEAD, POST, DELETE",
            ),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, SENT),
            (header::ACCESS_CONTROL_MAX_AGE, ASKED_FOR),
            (header::VARY, "Origin"),
        ];
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in allowed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Some(answer)
}

/// No browser shall guess what an answer is, show it in a frame, or run what stands in it.
fn shielded(mut answer: Response<Body>) -> Response<Body> {
    let shield = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; sandbox",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in shield {
        let headers = answer.headers_mut();
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    answer
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // What is no text is nobody's origin.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Host and port of an origin or a URL.
fn authority(from: &str) -> Option<String> {
    let rest = from
        .strip_prefix("http://")
        .or(from.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.to_ascii_lowercase())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(PeerInfo {
            address: Some(([127, 0, 0, 1], 9).into()),
            tls: false,
        });
        request
    }

    fn reason(rules: &Rules, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let checked = rules.check(&request(method, path, headers));
        checked.map_or_else(|problem| problem.reason().to_owned(), |()| "ok".to_owned())
    }

    /// Method, path, headers, and what comes of it.
    type Case = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
    );

    const CASES: [Case; 14] = [
        ("POST", "/inject", &[], "ok"),
        (
            "POST",
            "/inject",
            &[("origin", "http://127.0.0.1:7420")],
            "ok",
        ),
        (
            "POST",
            "/inject",
            &[("origin", "https://known.example")],
            "ok",
        ),
        (
            "POST",
            "/inject",
            &[("origin", "http://127.0.0.1:3000")],
            "ORIGIN_REFUSED",
        ),
        ("POST", "/inject", &[("origin", "null")], "ORIGIN_REFUSED"),
        (
            "POST",
            "/qbc.v1.ChainService/Leap",
            &[("origin", "http://evil.example")],
            "ORIGIN_REFUSED",
        ),
        (
            "GET",
            "/leap",
            &[("sec-fetch-site", "cross-site")],
            "ORIGIN_REFUSED",
        ),
        (
            "GET",
            "/leap",
            &[("sec-fetch-site", "same-site")],
            "ORIGIN_REFUSED",
        ),
        ("GET", "/leap", &[("sec-fetch-site", "none")], "ok"),
        (
            "GET",
            "/leap",
            &[("referer", "http://evil.example/x")],
            "ORIGIN_REFUSED",
        ),
        (
            "GET",
            "/leap",
            &[("referer", "http://127.0.0.1:7420/x")],
            "ok",
        ),
        ("GET", "/chain", &[("origin", "http://evil.example")], "ok"),
        (
            "GET",
            "/v1/chains/a/tail",
            &[("upgrade", "websocket"), ("origin", "http://evil.example")],
            "ORIGIN_REFUSED",
        ),
        (
            "GET",
            "/v1/chains/a/tail",
            &[("upgrade", "websocket")],
            "ok",
        ),
    ];

    #[test]
    fn pages_of_other_origins_change_nothing_and_programs_may() {
        let rules = Rules {
            origins: vec!["https://known.example".to_owned()],
            hosts: Vec::new(),
        };
        let host = ("host", "127.0.0.1:7420");
        for (method, path, headers, expected) in CASES {
            let all = [headers, &[host]].concat();
            assert_eq!(
                reason(&rules, method, path, &all),
                expected,
                "{path} {headers:?}"
            );
        }
    }

    #[test]
    fn over_loopback_the_node_has_only_its_own_names() {
        let rules = Rules {
            origins: Vec::new(),
            hosts: vec!["ledger.internal".to_owned()],
        };
        let cases = [
            ("127.0.0.1:7420", "ok"),
            ("[::1]:7420", "ok"),
            ("LocalHost", "ok"),
            ("qbc.localhost:1", "ok"),
            ("ledger.internal:7420", "ok"),
            ("evil.example:7420", "HOST_REFUSED"),
            ("127.0.0.1.evil.example", "HOST_REFUSED"),
        ];
        for (host, expected) in cases {
            assert_eq!(
                reason(&rules, "GET", "/chain", &[("host", host)]),
                expected,
                "{host}"
            );
        }
    }
}
