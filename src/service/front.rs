//! The front of the face: calls of chains by clients that speak gRPC go straight to their service; everything else, browsers
//! and plain HTTP above all, goes through the guards and the table of routes.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::future::Either;
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service as Call, http},
    server::NamedService,
    service::Routes,
};

use super::{Service, edge::Edge, limits::MESSAGE_BYTES_MAX};
use crate::proto::chain_service_server::ChainServiceServer;

type Chains = ChainServiceServer<Service>;

/// What only browsers send: such a call is a page's, and pages are guarded against.
const OF_PAGES: [&str; 3] = ["origin", "referer", "sec-fetch-site"];

/// All that is served over HTTP/2.
#[derive(Clone)]
pub struct Front {
    chains: Edge<Chains>,
    rest: Routes,
}

impl Service {
    /// This service in front of `rest`, which serves it too: for those who do not speak gRPC alone.
    pub fn in_front_of(&self, rest: Routes) -> Front {
        Front {
            chains: Edge(self.chains()),
            rest: rest.prepare(),
        }
    }

    /// The service of chains.
    pub(super) fn chains(&self) -> Chains {
        Chains::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Call<http::Request<Body>> for Front {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<
        BoxFuture<Self::Response, Infallible>,
        <Routes as Call<http::Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Call::<http::Request<Body>>::poll_ready(&mut self.rest, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if is_of_chains(&request) {
            Either::Left(self.chains.call(request))
        } else {
            Either::Right(self.rest.call(request))
        }
    }
}

fn is_of_chains(request: &http::Request<Body>) -> bool {
    let headers = request.headers();
    let kind = headers.get(http::header::CONTENT_TYPE);
    let speaks_grpc = kind.is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
    });
    let path = request.uri().path().strip_prefix('/');
    speaks_grpc
        && request.version() == http::Version::HTTP_2
        && request.method() == http::Method::POST
        && path
            .and_then(|path| path.strip_prefix(Chains::NAME))
            .is_some_and(|method| method.starts_with('/'))
        && !OF_PAGES.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str, headers: &[(&str, &str)]) -> http::Request<Body> {
        let mut request = http::Request::post(path).version(http::Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_grpc_of_chains_that_no_page_sends_goes_straight() {
        const INJECT: &str = "/qbc.v1.ChainService/Inject";
        let grpc = ("content-type", "application/grpc");
        assert!(is_of_chains(&call(INJECT, &[grpc])));
        assert!(is_of_chains(&call(
            INJECT,
            &[("content-type", "application/grpc+proto")]
        )));
        for headers in [
            &[][..],
            &[("content-type", "application/grpc-web")],
            &[("content-type", "application/json")],
            &[grpc, ("origin", "http://elsewhere")],
            &[grpc, ("referer", "http://elsewhere/page")],
            &[grpc, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!is_of_chains(&call(INJECT, headers)), "{headers:?}");
        }
        for path in [
            "/qbc.v1.ProofService/ProveInclusion",
            "/qbc.v1.ChainServices/X",
            "/",
        ] {
            assert!(!is_of_chains(&call(path, &[grpc])), "{path}");
        }
        let mut old = call(INJECT, &[grpc]);
        *old.version_mut() = http::Version::HTTP_11;
        assert!(!is_of_chains(&old));
    }
}
