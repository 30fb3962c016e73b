//! GetTransaction and Read.

use std::time::{Duration, Instant};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status};

use super::{
    Deadline, Pieces, Service,
    catalog::ChainReads,
    convert,
    limits::{PIECE_BYTES, PIECES_WAITING, READER_PAUSE_MAX},
    route::{self, Route, at_once},
    run::run,
    status::of_read,
};
use crate::proto;
use crate::telemetry::counts;

/// Pause before a reader goes on elsewhere.
const READ_ON_AFTER: Duration = Duration::from_millis(20);

impl Service {
    pub(super) fn do_get_transaction(
        &self,
        request: &proto::GetTransactionRequest,
    ) -> Result<proto::GetTransactionResponse, Status> {
        let begun = Instant::now();
        let reads = self.reads(&request.chain)?;
        let view = reads
            .reader()
            .transaction(&reads.chain, request.index)
            .map_err(|error| of_read(&error))?;
        let height = Heights::default().of(&reads, request.index)?;
        let response = proto::GetTransactionResponse {
            head_height: reads.chain.head.height,
            transaction: Some(convert::transaction(&reads, &view, height)?),
        };
        let seconds = begun.elapsed().as_secs_f64();
        counts().read_seconds.observe(seconds);
        Ok(response)
    }

    /// Begins to read, on this node or another one.
    pub(super) async fn begin_read(
        &self,
        route: Route,
        request: &proto::ReadRequest,
    ) -> Result<Pieces<proto::ReadResponse>, Status> {
        self.stream_at(route, request.any_replica, request, |service, request| {
            at_once(service.do_read(request))
        })
        .await
    }

    /// A reader outlives the replica that it began on: where that one moves or stops, it goes on with the
    /// next transaction on another.
    pub(super) fn read_on(
        self,
        route: Route,
        deadline: Option<Deadline>,
        mut request: proto::ReadRequest,
        mut pieces: Pieces<proto::ReadResponse>,
    ) -> Pieces<proto::ReadResponse> {
        let (out, passed) = mpsc::channel(PIECES_WAITING);
        tokio::spawn(async move {
            while let Some(broken) = pass_on(&mut pieces, &mut request, &out).await {
                if broken.code() != Code::Unavailable {
                    let _ = out.send(Err(broken)).await;
                    return;
                }
                // What was shown must be there where it goes on, so any replica will not do.
                request.any_replica = false;
                let again = async {
                    sleep(READ_ON_AFTER).await;
                    let until = route::until(deadline);
                    self.begin_read(Route { until, ..route }, &request).await
                };
                pieces = tokio::select! {
                    again = again => match again {
                        Ok(pieces) => pieces,
                        Err(refused) => {
                            let _ = out.send(Err(refused)).await;
                            return;
                        }
                    },
                    () = out.closed() => return,
                };
            }
        });
        ReceiverStream::new(passed)
    }

    pub(super) fn do_read(
        &self,
        request: &proto::ReadRequest,
    ) -> Result<Pieces<proto::ReadResponse>, Status> {
        let (replica, next) = {
            let reads = self.reads(&request.chain)?;
            (reads.replica, reads.chain.pool.next_index)
        };
        if request.from_index > next {
            let chain = request.chain.clone();
            return Err(of_read(&crate::engine::ReadError::NoIndex {
                chain,
                index: request.from_index,
                next,
            }));
        }
        let place = self.reader_place()?;
        let limit = if request.limit == 0 {
            u64::MAX
        } else {
            request.limit
        };
        let last = request.from_index.saturating_add(limit);
        let wanted = Wanted {
            chain: request.chain.clone(),
            replica,
            next: request.from_index,
            end: if request.follow { last } else { next.min(last) },
        };
        let (pieces, out) = mpsc::channel(PIECES_WAITING);
        let read = self.clone().read_all(wanted, pieces);
        tokio::spawn(async move {
            read.await;
            drop(place);
        });
        Ok(ReceiverStream::new(out))
    }

    /// A slow reader holds nothing but a few pieces: each is read when there is room for it. At the end of the chain a
    /// reader that follows waits for what is applied next.
    async fn read_all(
        self,
        mut wanted: Wanted,
        pieces: mpsc::Sender<Result<proto::ReadResponse, Status>>,
    ) {
        let mut heights = Heights::default();
        while wanted.next < wanted.end {
            // A reader that takes nothing for so long gives its place to others.
            let Ok(Ok(room)) = timeout(READER_PAUSE_MAX, pieces.reserve()).await else {
                return;
            };
            let there = tokio::select! {
                there = self.there(&wanted) => there,
                () = pieces.closed() => return,
            };
            let piece = there.and_then(|end| {
                tokio::task::block_in_place(|| self.piece(&wanted, end, &mut heights))
            });
            wanted.next += piece.as_ref().map_or(0, |piece| piece.run.len() as u64);
            let failed = piece.is_err();
            room.send(piece);
            if failed {
                return;
            }
        }
    }

    /// Up to where the chain can be read now, once there is something to read.
    async fn there(&self, wanted: &Wanted) -> Result<u64, Status> {
        let known = self.catalog.find(&wanted.chain)?;
        let mut reached = self.catalog.group(&known)?.reached();
        loop {
            reached.mark_unchanged();
            let reads = self.reads_on(&wanted.chain, wanted.replica);
            let next = reads?.chain.pool.next_index;
            if next > wanted.next {
                return Ok(next.min(wanted.end));
            }
            if reached.changed().await.is_err() {
                return Err(route::elsewhere());
            }
        }
    }

    fn piece(
        &self,
        wanted: &Wanted,
        end: u64,
        heights: &mut Heights,
    ) -> Result<proto::ReadResponse, Status> {
        let reads = self.reads_on(&wanted.chain, wanted.replica)?.passing();
        let bounds = (wanted.next, end);
        let found = run(&reads, bounds, PIECE_BYTES, &mut |index| {
            heights.of(&reads, index)
        })?;
        Ok(proto::ReadResponse {
            run: found.whole(),
            head_height: reads.chain.head.height,
        })
    }
}

/// Passes pieces on until there are no more, nobody takes them, or they break; `request` is then what is still wanted.
async fn pass_on(
    pieces: &mut Pieces<proto::ReadResponse>,
    request: &mut proto::ReadRequest,
    out: &mpsc::Sender<Result<proto::ReadResponse, Status>>,
) -> Option<Status> {
    let limited = request.limit > 0;
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece?,
            () = out.closed() => return None,
        };
        match piece {
            Ok(piece) => {
                let count = piece.run.len() as u64;
                request.from_index += count;
                request.limit = request.limit.saturating_sub(count);
                out.send(Ok(piece)).await.ok()?;
            }
            Err(_) if limited && request.limit == 0 => return None,
            Err(broken) => return Some(broken),
        }
    }
}

/// What a reader still wants.
struct Wanted {
    chain: String,
    replica: u64,
    next: u64,
    end: u64,
}

/// The Quant of an index; the last answer serves its neighbours.
#[derive(Default)]
pub(super) struct Heights {
    height: u64,
    from: u64,
    to: u64,
}

impl Heights {
    pub fn of(&mut self, reads: &ChainReads<'_>, index: u64) -> Result<Option<u64>, Status> {
        if index >= reads.chain.head.tx_end() {
            return Ok(None);
        }
        if !(self.from..self.to).contains(&index) {
            let row = reads
                .reader()
                .height_of(&reads.chain, index, reads.chain.head.height)
                .map_err(|error| of_read(&error))?;
            let header = row
                .parse()
                .map_err(|error| super::status::of_store(&error))?;
            *self = Self {
                height: header.height,
                from: header.tx_start,
                to: header.tx_end(),
            };
        }
        Ok(Some(self.height))
    }
}
