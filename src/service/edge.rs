//! The edge of the face: calls end at their deadline, and what the transport refuses is told in the words of `status`.
//!
//! A deadline undoes nothing: what was proposed by then is decided all the same, only nobody is told.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{
    Request, Status,
    body::Body,
    codegen::{BoxFuture, Service as Call, http},
    server::NamedService,
};

use super::status;

const TIMEOUT_HEADER: &str = "grpc-timeout";
/// The protocol allows so many digits.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// The longest that a call without a deadline of its own may take to its answer's first word.
const ANSWER_MAX: Duration = Duration::from_secs(300);

/// A service behind the edge.
#[derive(Clone)]
pub struct Edge<S>(pub S);

impl<S: NamedService> NamedService for Edge<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Call<http::Request<Body>> for Edge<S>
where
    S: Call<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let deadline = deadline_of(request.headers());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            // Half a request that never goes on must not be kept for ever. A stream has answered by its first word.
            let longest = Instant::now() + ANSWER_MAX;
            let deadline = deadline.map_or(longest, |Deadline(deadline)| deadline);
            match timeout_at(deadline, answer).await {
                Ok(answer) => answer.map(reworded),
                Err(_) => Ok(reworded(status::deadline_exceeded().into_http())),
            }
        })
    }
}

/// When the caller stops waiting.
#[derive(Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// Of a request that came through the edge.
    pub fn of<R>(request: &Request<R>) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// The moment.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// Answers of a stream, until the caller's deadline.
pub struct Timely<T> {
    answers: Option<ReceiverStream<Result<T, Status>>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Timely<T> {
    pub fn new(answers: ReceiverStream<Result<T, Status>>, deadline: Option<Deadline>) -> Self {
        Self {
            answers: Some(answers),
            deadline: deadline.map(|Deadline(at)| Box::pin(sleep_until(at))),
        }
    }
}

impl<T> Stream for Timely<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(answers) = &mut this.answers else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(answer) = Pin::new(answers).poll_next(context) {
            return Poll::Ready(answer);
        }
        let Some(deadline) = &mut this.deadline else {
            return Poll::Pending;
        };
        ready!(deadline.as_mut().poll(context));
        this.answers = None;
        Poll::Ready(Some(Err(status::deadline_exceeded())))
    }
}

/// An error that the transport made itself gets a reason of ours; all other answers stay as they are.
fn reworded(answer: http::Response<Body>) -> http::Response<Body> {
    let Some(made) = Status::from_header_map(answer.headers()) else {
        return answer;
    };
    let (made, answer) = match status::of_transport(&made) {
        Some(status) => {
            let answer = status.clone().into_http();
            (status, answer)
        }
        None => (made, answer),
    };
    status::tally(&made);
    answer
}

/// The deadline that the caller's header names; a header that is no timeout sets none.
fn deadline_of(headers: &http::HeaderMap) -> Option<Deadline> {
    let timeout = timeout_of(headers.get(TIMEOUT_HEADER)?.to_str().ok()?)?;
    Instant::now().checked_add(timeout).map(Deadline)
}

/// gRPC over HTTP/2, "Timeout": at most 8 digits and a unit.
fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    /// Answers with a status, or never.
    #[derive(Clone)]
    struct Fixed(Option<Status>);

    impl Call<http::Request<Body>> for Fixed {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            match self.0.clone() {
                Some(status) => Box::pin(async move { Ok(status.into_http()) }),
                None => Box::pin(std::future::pending()),
            }
        }
    }

    async fn answer(inner: Option<Status>, timeout: &str) -> Status {
        let request = http::Request::builder()
            .header(TIMEOUT_HEADER, timeout)
            .body(Body::default())
            .unwrap();
        let response = Edge(Fixed(inner)).call(request).await.unwrap();
        Status::from_header_map(response.headers()).expect("an answer without a body")
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_with_a_reason() {
        let status = answer(None, "20m").await;
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(
            status.get_details_error_info().unwrap().reason,
            "DEADLINE_EXCEEDED"
        );
    }

    #[tokio::test]
    async fn what_the_transport_refuses_gets_a_reason_and_our_own_errors_stay() {
        let large = Status::out_of_range(
            "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes",
        );
        let status = answer(Some(large), "10S").await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("5000000"), "{status}");
        let own = status::invalid("chain", "it is bad");
        let status = answer(Some(own), "10S").await;
        assert_eq!(status.message(), "chain: it is bad");
        assert_eq!(
            status.get_details_error_info().unwrap().reason,
            "FIELD_INVALID"
        );
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_deadline_and_then_is_over() {
        let mut request = Request::new(());
        request
            .extensions_mut()
            .insert(Deadline(Instant::now() + Duration::from_millis(20)));
        let (sender, receiver) = mpsc::channel(1);
        let mut stream = Timely::<u8>::new(ReceiverStream::new(receiver), Deadline::of(&request));
        sender.send(Ok(7)).await.unwrap();
        let mut next = async || std::future::poll_fn(|c| Pin::new(&mut stream).poll_next(c)).await;
        assert_eq!(next().await.unwrap().unwrap(), 7);
        let late = next().await.unwrap().unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert!(next().await.is_none());
        assert!(sender.is_closed(), "the work behind the stream ends too");
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("30S", Some(Duration::from_secs(30))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("5n", Some(Duration::from_nanos(5))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("+5S", None),
            ("5s", None),
            ("5ß", None),
            ("123456789S", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout_of(text), expected, "{text}");
        }
    }
}
