//! Lies in a tail: the proxy hands the node's own tail on and bends it. Each is refused by the named check, by `qbc` and by
//! the SDK; the same tail without the lie goes well.
#![allow(clippy::unwrap_used)]
use std::time::Duration;

use qbc::{
    client::{Client, ClientError, TailEvent, TailOptions, TailSubject},
    proto::{
        self, TailResponse, tail_response::Event, tail_service_client::TailServiceClient,
        tail_service_server::TailService,
    },
};
use tokio_stream::StreamExt;
use tonic::{Request, Response};

use crate::{
    face::{Answer, Face, Pieces},
    lie::Lie,
    stage::{KNOWING, Stage},
};

impl Face {
    fn tails(&self) -> TailServiceClient<tonic::transport::Channel> {
        TailServiceClient::new(self.node.clone())
    }

    /// The event as it is told; none where it is kept back.
    fn bent(&self, mut answer: TailResponse) -> Option<TailResponse> {
        let event = answer.event.as_mut()?;
        match (self.lie, event) {
            (Lie::TailPayload, Event::Transactions(some)) => {
                let mut all = some
                    .run
                    .clone()
                    .transactions()
                    .expect("a run that can be read");
                let second = all.iter_mut().find(|one| one.index == 1);
                if let Some(one) = second {
                    one.payload = b"rewritten"[..].into();
                }
                some.run = all.into();
            }
            (Lie::TailPayload, Event::Quant(quant)) => {
                let second = quant.transactions.iter_mut().find(|one| one.index == 1);
                if let Some(one) = second {
                    one.payload = b"rewritten"[..].into();
                }
            }
            (Lie::TailGap, Event::Transactions(some)) => {
                let mut all = some
                    .run
                    .clone()
                    .transactions()
                    .expect("a run that can be read");
                all.retain(|one| one.index != 2);
                some.run = all.into();
            }
            (Lie::TailGap, Event::Quant(quant)) => {
                quant.transactions.retain(|one| one.index != 2);
            }
            (Lie::TailQuant, Event::Quant(quant)) => {
                let height = quant.quant.as_ref().map(|quant| quant.height);
                return (height != Some(2)).then_some(answer);
            }
            (Lie::TailHead, Event::Head(_)) => return None,
            (Lie::TailUnsigned, Event::Head(head)) => head.head.as_mut()?.signatures.clear(),
            (Lie::TailBegin, Event::Begin(begin)) => begin.next_index += 1,
            (Lie::TailToken, Event::Quant(_)) => answer.resume_token.clear(),
            _ => {}
        }
        Some(answer)
    }
}

#[tonic::async_trait]
impl TailService for Face {
    type TailStream = Pieces<TailResponse>;

    async fn tail(&self, request: Request<proto::TailRequest>) -> Answer<Self::TailStream> {
        let stream = self.tails().tail(request.into_inner()).await?.into_inner();
        let face = self.clone();
        let bent = stream.filter_map(move |answer| match answer {
            Ok(answer) if face.switch.exists() => face.bent(answer).map(Ok),
            answer => Some(answer),
        });
        Ok(Response::new(Box::pin(bent)))
    }

    async fn move_cursor(
        &self,
        request: Request<proto::MoveCursorRequest>,
    ) -> Answer<proto::MoveCursorResponse> {
        self.tails().move_cursor(request.into_inner()).await
    }

    async fn list_cursors(
        &self,
        request: Request<proto::ListCursorsRequest>,
    ) -> Answer<proto::ListCursorsResponse> {
        self.tails().list_cursors(request.into_inner()).await
    }

    async fn delete_cursor(
        &self,
        request: Request<proto::DeleteCursorRequest>,
    ) -> Answer<proto::DeleteCursorResponse> {
        self.tails().delete_cursor(request.into_inner()).await
    }
}

#[test]
fn a_tail_that_changes_skips_or_moves_is_refused() {
    for (lie, check) in [
        ("tail-payload", "tx-root"),
        ("tail-gap", "tail-gap"),
        ("tail-quant", "tail-gap"),
        ("tail-begin", "tail-gap"),
        ("tail-token", "tail-token"),
    ] {
        let stage = Stage::new(lie);
        stage.meets(KNOWING);
        let cases = [("tail a -n 14", check), ("tail a --quants -n 4", check)];
        for (command, check) in cases {
            stage.proxy.lie();
            // Of whole Quants the tokens alone say where they begin.
            if !(lie == "tail-begin" && command.contains("--quants")) {
                stage.fails_by(KNOWING, command, check);
            }
            stage.proxy.be_true();
            stage.as_client(KNOWING, command).well(command);
        }
    }
}

/// The error of a tail that the chain grows under.
async fn told(stage: &Stage) -> ClientError {
    let client = Client::connect(stage.proxy.url()).await.unwrap();
    let subject = TailSubject::Chain("a".into());
    let mut tail = client.tail(subject, TailOptions::default()).await.unwrap();
    let mut grown = false;
    loop {
        match tokio::time::timeout(Duration::from_secs(60), tail.next())
            .await
            .unwrap()
        {
            Err(error) => return error,
            Ok(tailed) => {
                if let (TailEvent::Quant(quant), false) = (&tailed.event, grown)
                    && quant.header.height == 3
                {
                    grown = true;
                    tokio::task::block_in_place(|| stage.moves_on());
                } else if let TailEvent::Quant(quant) = tailed.event {
                    assert!(quant.header.height < 4, "Quant 4 was believed");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quant_above_the_trusted_head_needs_a_head_that_is_signed() {
    for (lie, check) in [
        ("tail-head", "tail-head"),
        ("tail-unsigned", "quorum-count"),
    ] {
        let stage = tokio::task::spawn_blocking(move || Stage::new(lie))
            .await
            .unwrap();
        stage.proxy.lie();
        let error = told(&stage).await.to_string();
        assert!(
            error.starts_with(&format!("refused: {check}: ")),
            "{lie}: {error}"
        );
    }
}
