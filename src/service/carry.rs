//! Calls and streams that other nodes carry here for their clients, and streams that this node carries elsewhere.
//! A stream travels piece by piece: each is sent when the other side has room for it and says so.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Status;

use super::{
    Pieces, Service,
    limits::{PIECES_WAITING, READER_PAUSE_MAX},
    names::asking,
    route::{Method, Route, Run, at_once, elsewhere, read_answer, read_call, shown, write_answer},
};
use crate::consensus::{Channel, Lane};
use crate::proto;

/// After the last piece of a stream.
const STREAM_END: &[u8] = &[9];

impl Service {
    /// Answers a call or a stream that another node carries here.
    pub async fn carried(self, lane: Lane, first: Bytes, channel: Channel) {
        let Some((route, body)) = read_call(&first) else {
            return;
        };
        if lane == Lane::Stream {
            return self.carried_stream(route, body, channel).await;
        }
        let answered = timeout_at(route.until, self.carried_call(route, body)).await;
        if let Ok(answer) = answered {
            channel.out.send(answer);
        }
    }

    async fn carried_call(&self, route: Route, body: Bytes) -> Bytes {
        match route.method {
            Method::Bang => {
                let until = route.until;
                self.lead(route, body, |s, r| Box::pin(s.do_bang(r, until)))
                    .await
            }
            Method::Inject => {
                let until = route.until;
                self.lead(route, body, |s, r| s.do_inject(r, (until, false)))
                    .await
            }
            Method::Leap => {
                let until = route.until;
                self.lead(route, body, |s, r| s.do_leap(r, until)).await
            }
            Method::Close => {
                let until = route.until;
                self.lead(route, body, |s, r| Box::pin(s.do_close(r, until)))
                    .await
            }
            Method::GetMining => {
                self.lead(route, body, |s, r| at_once(s.do_get_mining(r)))
                    .await
            }
            Method::PutSignatures => {
                let group = route.group;
                self.lead(route, body, move |s, r| {
                    Box::pin(s.do_put_signatures(group, r))
                })
                .await
            }
            Method::ForkChain => {
                let until = route.until;
                self.lead(route, body, |s, r| Box::pin(s.do_fork(r, until)))
                    .await
            }
            Method::NameChain => {
                let group = route.group;
                self.lead(route, body, move |s, r| Box::pin(s.do_name_chain(group, r)))
                    .await
            }
            Method::PutReports => {
                self.lead(route, body, |s, r| Box::pin(s.do_put_reports(r)))
                    .await
            }
            Method::SplitChain
            | Method::BangSubchain
            | Method::ActivateSubchain
            | Method::GatherHeads
            | Method::CreditBelow
            | Method::InheritBelow
            | Method::MoveCursor
            | Method::DeleteCursor
            | Method::InjectBelow => self.carried_split(route, body).await,
            _ => self.carried_read(route, body).await,
        }
    }

    /// Calls of splits, and of cursors.
    async fn carried_split(&self, route: Route, body: Bytes) -> Bytes {
        let (group, until) = (route.group, route.until);
        match route.method {
            Method::SplitChain => {
                self.lead(route, body, |s, r| Box::pin(s.do_split(r, until)))
                    .await
            }
            Method::BangSubchain => {
                self.lead(route, body, |s, r| Box::pin(s.do_bang_subchain(group, r)))
                    .await
            }
            Method::ActivateSubchain => {
                self.lead(route, body, |s, r| Box::pin(s.do_activate(r)))
                    .await
            }
            Method::CreditBelow => {
                self.lead(route, body, move |s, r| Box::pin(s.do_credit(r, until)))
                    .await
            }
            Method::InheritBelow => {
                self.lead(route, body, |s, r| Box::pin(s.do_inherit(r)))
                    .await
            }
            Method::MoveCursor => {
                self.lead(route, body, |s, r| Box::pin(s.do_move_cursor(r)))
                    .await
            }
            Method::DeleteCursor => {
                self.lead(route, body, |s, r| Box::pin(s.do_delete_cursor(r)))
                    .await
            }
            Method::GatherHeads => {
                self.lead(route, body, |s, r| Box::pin(s.do_gather_heads(r)))
                    .await
            }
            _ => {
                self.lead(route, body, |s, r| s.do_inject_below(r, until))
                    .await
            }
        }
    }

    /// Calls that any replica answers.
    async fn carried_read(&self, route: Route, body: Bytes) -> Bytes {
        match route.method {
            Method::GetChain => {
                self.show(route, body, |s, r| at_once(s.do_get_chain(r)))
                    .await
            }
            Method::ListGroup => {
                let group = route.group;
                self.show(route, body, move |s, r| at_once(s.do_list_group(group, r)))
                    .await
            }
            Method::GetQuant => {
                self.show(route, body, |s, r| at_once(s.do_get_quant(r)))
                    .await
            }
            Method::ListQuants => {
                self.show(route, body, |s, r| at_once(s.do_list_quants(r)))
                    .await
            }
            Method::GetTransaction => {
                self.show(route, body, |s, r| at_once(s.do_get_transaction(r)))
                    .await
            }
            Method::GetHead => {
                self.show(route, body, |s, r| Box::pin(s.do_get_head(r)))
                    .await
            }
            Method::ProveInclusion => {
                self.show(route, body, |s, r| Box::pin(s.do_prove_inclusion(r)))
                    .await
            }
            Method::ProveExtension => {
                self.show(route, body, |s, r| Box::pin(s.do_prove_extension(r)))
                    .await
            }
            Method::GetBundle => {
                self.show(route, body, |s, r| Box::pin(s.do_get_bundle(r)))
                    .await
            }
            Method::ListHistory => {
                self.show(route, body, |s, r| at_once(s.do_list_history(r)))
                    .await
            }
            Method::GetLatest => {
                self.show(route, body, |s, r| at_once(s.do_get_latest(r)))
                    .await
            }
            Method::GetBalance => {
                self.show(route, body, |s, r| at_once(s.do_get_balance(r)))
                    .await
            }
            Method::LookUp => {
                self.show(route, body, |s, r| at_once(s.do_look_up(r)))
                    .await
            }
            Method::GetReceipt => {
                self.show(route, body, |s, r| at_once(s.do_get_receipt(r)))
                    .await
            }
            Method::ProveState => {
                self.show(route, body, |s, r| Box::pin(s.do_prove_state(r)))
                    .await
            }
            _ => self.carried_proof(route, body).await,
        }
    }

    /// Calls about chains that are split, for their subchains.
    async fn carried_proof(&self, route: Route, body: Bytes) -> Bytes {
        match route.method {
            Method::ProveAnchor => {
                self.show(route, body, |s, r| at_once(s.do_prove_anchor(r)))
                    .await
            }
            Method::ProveAbove => {
                self.show(route, body, |s, r| at_once(s.do_prove_above(r)))
                    .await
            }
            _ => self.carried_log(route, body).await,
        }
    }

    /// Calls about the logs of heads, and about cursors.
    async fn carried_log(&self, route: Route, body: Bytes) -> Bytes {
        match route.method {
            Method::GetCheckpoint => {
                self.show(route, body, |s, r| Box::pin(s.do_get_checkpoint(r)))
                    .await
            }
            Method::GetReported => {
                self.show(route, body, |s, r| Box::pin(s.do_get_reported(r)))
                    .await
            }
            Method::ListCursors => {
                self.show(route, body, |s, r| at_once(s.do_list_cursors(r)))
                    .await
            }
            Method::GetTile => {
                self.show(route, body, |s, r| at_once(s.do_get_tile(r)))
                    .await
            }
            Method::ProveLogged => {
                let until = route.until;
                self.show(route, body, move |s, r| {
                    Box::pin(s.do_prove_logged(r, until))
                })
                .await
            }
            _ => write_answer::<proto::ReadResponse>(&Err(elsewhere())),
        }
    }

    /// What only a leader does; it is not carried on from here.
    async fn lead<Q: Message + Default, A: Message>(
        &self,
        route: Route,
        body: Bytes,
        run: impl Run<Q, A>,
    ) -> Bytes {
        let leads = self
            .groups
            .get(route.group)
            .is_some_and(|group| group.leads());
        let answer = match Q::decode(body) {
            Ok(request) if leads => asking(route.group, async { run(self, &request).await }).await,
            Ok(_) | Err(_) => Err(elsewhere()),
        };
        write_answer(&answer)
    }

    /// What any replica shows that is up to date.
    async fn show<Q: Message + Default, A: Message>(
        &self,
        route: Route,
        body: Bytes,
        run: impl Run<Q, A>,
    ) -> Bytes {
        let answer = match (Q::decode(body), self.groups.get(route.group)) {
            (Ok(request), Some(group)) => {
                self.read_from(&group, (false, route.until), &request, &run)
                    .await
            }
            _ => Err(elsewhere()),
        };
        write_answer(&answer)
    }

    async fn carried_stream(&self, route: Route, body: Bytes, channel: Channel) {
        match route.method {
            Method::Read => {
                let begun = self.begin(route, body, |s, r| at_once(s.do_read(r))).await;
                feed(begun, channel).await;
            }
            Method::Export => {
                let begun = self
                    .begin(route, body, |s, r| Box::pin(s.do_export(r)))
                    .await;
                feed(begun, channel).await;
            }
            Method::Tail => {
                let place = self.tail_place();
                let begun = match &place {
                    Ok(_) => self.begin(route, body, |s, r| at_once(s.do_tail(r))).await,
                    Err(busy) => Err(busy.clone()),
                };
                feed(begun, channel).await;
            }
            _ => {}
        }
    }

    async fn begin<Q: Message + Default, A>(
        &self,
        route: Route,
        body: Bytes,
        run: impl Run<Q, Pieces<A>>,
    ) -> Result<Pieces<A>, Status> {
        let group = self.groups.get(route.group).ok_or_else(elsewhere)?;
        let request = Q::decode(body).map_err(|_| elsewhere())?;
        self.read_from(&group, (false, route.until), &request, &run)
            .await
    }

    /// A stream from this node's replica, or from another node's where there is none here.
    pub(super) async fn stream_at<Q: Message, A: Message + Default + 'static>(
        &self,
        mut route: Route,
        any_replica: bool,
        request: &Q,
        run: impl Run<Q, Pieces<A>>,
    ) -> Result<Pieces<A>, Status> {
        let mut changes = self.groups.changes();
        loop {
            changes.mark_unchanged();
            let begun = match self.groups.get(route.group) {
                Some(group) => {
                    self.read_from(&group, (any_replica, route.until), request, &run)
                        .await
                }
                None => self.stream_elsewhere(route, request),
            };
            match begun {
                Err(refused) if self.follow(&refused, &mut route) => {}
                Err(refused) if super::route::is_elsewhere(&refused) => {
                    if timeout_at(route.until, changes.changed()).await.is_err() {
                        return Err(shown(refused, route.group));
                    }
                }
                other => return other,
            }
        }
    }

    fn stream_elsewhere<Q: Message, A: Message + Default + 'static>(
        &self,
        route: Route,
        request: &Q,
    ) -> Result<Pieces<A>, Status> {
        let node = self.groups.holder(route.group);
        let node = node.filter(|node| *node != self.groups.node_id());
        let channel = self.open(node.ok_or_else(elsewhere)?, Lane::Stream, route, request)?;
        // A tail has its place already.
        let place = (route.method != Method::Tail).then(|| self.reader_place());
        let place = place.transpose()?;
        let (pieces, out) = mpsc::channel(PIECES_WAITING);
        let group = route.group;
        tokio::spawn(async move {
            if let Err(status) = fetch(channel, &pieces).await {
                let _ = pieces.send(Err(shown(status, group))).await;
            }
            drop(place);
        });
        Ok(ReceiverStream::new(out))
    }
}

/// Sends pieces as the other side asks for them.
async fn feed<A: Message>(begun: Result<Pieces<A>, Status>, channel: Channel) {
    let Channel { out, mut inbox } = channel;
    let out: Arc<dyn crate::consensus::Outlet> = out.into();
    let mut pieces = match begun {
        Ok(pieces) => pieces,
        Err(refused) => {
            out.send(write_answer::<A>(&Err(refused)));
            return;
        }
    };
    while inbox.recv().await.is_some() {
        let Some(piece) = pieces.next().await else {
            out.send(Bytes::from_static(STREAM_END));
            return;
        };
        if !out.send(write_answer(&piece)) {
            return;
        }
    }
}

/// Asks for pieces as there is room for them.
async fn fetch<A: Message + Default>(
    mut channel: Channel,
    pieces: &mpsc::Sender<Result<A, Status>>,
) -> Result<(), Status> {
    loop {
        let Ok(Ok(room)) = timeout(READER_PAUSE_MAX, pieces.reserve()).await else {
            return Ok(());
        };
        channel.out.send(Bytes::from_static(&[1]));
        let answer = tokio::select! {
            answer = channel.inbox.recv() => answer,
            () = pieces.closed() => return Ok(()),
        };
        match answer {
            Some(end) if end == STREAM_END => return Ok(()),
            Some(piece) => room.send(Ok(read_answer(&piece)?)),
            None => return Err(elsewhere()),
        }
    }
}
