//! Cursors: MoveCursor, ListCursors, DeleteCursor; and what injects and tails say of them.

use tonic::Status;

use super::{
    Service,
    chains::page_size,
    convert,
    edge::Deadline,
    route::{Method, Route, at_once, elsewhere, of_propose},
    status::{invalid, of_read, of_rejection, status},
    tail::Token,
};
use crate::chain::ChainId;
use crate::engine::{
    CURSOR_MOVES_MAX, CURSOR_NAME_BYTES_MAX, CURSOR_POSITIONS_MAX, CursorCommand, CursorMove,
    CursorPlace, CursorView, CursorsMoved, Outcome,
};
use crate::proto::{self, tail_request::Subject};
use crate::store::ChainNo;

impl Service {
    pub(super) async fn move_cursor_at(
        &self,
        request: &proto::MoveCursorRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::MoveCursorResponse, Status> {
        // A move to where the cursor stands already is done: it may be sent twice.
        let route = self.route(Method::MoveCursor, &request.chain, deadline)?;
        self.at_leader(route, request, |service, request| {
            Box::pin(service.do_move_cursor(request))
        })
        .await
    }

    pub(super) async fn delete_cursor_at(
        &self,
        request: &proto::DeleteCursorRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::DeleteCursorResponse, Status> {
        let route = Route {
            repeatable: false,
            ..self.route(Method::DeleteCursor, &request.chain, deadline)?
        };
        self.at_leader(route, request, |service, request| {
            Box::pin(service.do_delete_cursor(request))
        })
        .await
    }

    pub(super) async fn list_cursors_at(
        &self,
        request: &proto::ListCursorsRequest,
        deadline: Option<Deadline>,
    ) -> Result<proto::ListCursorsResponse, Status> {
        let route = self.route(Method::ListCursors, &request.chain, deadline)?;
        self.at_reader(route, false, request, |service, request| {
            at_once(service.do_list_cursors(request))
        })
        .await
    }

    pub(super) async fn do_move_cursor(
        &self,
        request: &proto::MoveCursorRequest,
    ) -> Result<proto::MoveCursorResponse, Status> {
        if request.moves.is_empty() {
            return Err(invalid("moves", "there are none; give at least one"));
        }
        let known = self.known_at_leader(&request.chain).await?;
        let moves = self.cursor_moves("moves", &request.moves)?;
        let moved_ms = self.propose_moves(known.no, known.group, &moves).await?;
        let cursors = moves
            .iter()
            .zip(&request.moves)
            .map(|(one, asked)| proto::Cursor {
                name: one.name.to_owned(),
                chain_id: one.source.0.to_vec().into(),
                next_index: one.to.next_index,
                next_height: one.to.next_height,
                moved_ms,
                resume_token: asked.to.clone(),
            });
        Ok(proto::MoveCursorResponse {
            cursors: cursors.collect(),
        })
    }

    /// Moves cursors of a chain, and tells the time of it.
    pub(super) async fn propose_moves(
        &self,
        chain: ChainNo,
        group: crate::engine::GroupId,
        moves: &[CursorMove<'_>],
    ) -> Result<u64, Status> {
        let moves = moves.to_vec();
        let command = CursorCommand::Move { chain, moves };
        let moved = self.propose_cursor(group, &command).await?;
        Ok(moved.moved_ms)
    }

    pub(super) async fn do_delete_cursor(
        &self,
        request: &proto::DeleteCursorRequest,
    ) -> Result<proto::DeleteCursorResponse, Status> {
        check_name("name", &request.name)?;
        let known = self.known_at_leader(&request.chain).await?;
        let command = CursorCommand::Delete {
            chain: known.no,
            name: &request.name,
        };
        let gone = self.propose_cursor(known.group, &command).await?;
        Ok(proto::DeleteCursorResponse {
            positions: gone.positions,
        })
    }

    async fn propose_cursor(
        &self,
        group: crate::engine::GroupId,
        command: &CursorCommand<'_>,
    ) -> Result<CursorsMoved, Status> {
        let group = self.groups.get(group).ok_or_else(elsewhere)?;
        let outcome = group.propose(command.encode()).await;
        match outcome.map_err(|error| of_propose(&error))? {
            Outcome::Cursors(moved) => moved.map_err(|rejection| of_rejection(&rejection)),
            _ => Err(status(
                "INTERNAL",
                "the answer is not that of a cursor",
                &[],
            )),
        }
    }

    pub(super) fn do_list_cursors(
        &self,
        request: &proto::ListCursorsRequest,
    ) -> Result<proto::ListCursorsResponse, Status> {
        let name = (!request.name.is_empty()).then_some(request.name.as_str());
        if let Some(name) = name {
            check_name("name", name)?;
        }
        let limit = page_size(request.page_size);
        let after = page_start(&request.page_token)?;
        let after = after.as_ref().map(|(name, id)| (*name, id));
        let reads = self.reads(&request.chain)?;
        let found = reads.reader().cursors(&reads.chain, name, after, limit + 1);
        let mut found = found.map_err(|error| of_read(&error))?;
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| {
            format!("{}.{}", hex::encode(last.source.0), last.name)
        });
        let cluster_id = self.cluster_id()?;
        Ok(proto::ListCursorsResponse {
            cursors: found.iter().map(|one| shown(one, &cluster_id)).collect(),
            next_page_token,
        })
    }

    /// Adds a cursor's places to a tail's request, where no token of the request says where a chain goes on.
    pub(super) async fn take_cursor(
        &self,
        request: &mut proto::TailRequest,
        deadline: Option<Deadline>,
    ) -> Result<(), Status> {
        if request.cursor.is_empty() {
            return Ok(());
        }
        check_name("cursor", &request.cursor)?;
        let keeper = match &request.subject {
            Some(Subject::Chain(name)) if request.cursor_chain.is_empty() => name.clone(),
            _ => request.cursor_chain.clone(),
        };
        if keeper.is_empty() {
            let why = "it is missing: a cursor is kept by a chain, and a prefix is none; give the chain that keeps it";
            return Err(invalid("cursor_chain", why));
        }
        let cluster_id = self.cluster_id()?;
        let given = request.resume_tokens.iter();
        let given =
            given.map(|token| Ok(Token::read(&cluster_id, "resume_tokens", token)?.chain_id));
        let given = given.collect::<Result<Vec<ChainId>, Status>>()?;
        let mut asked = proto::ListCursorsRequest {
            chain: keeper,
            name: request.cursor.clone(),
            page_size: 1000,
            page_token: String::new(),
        };
        // A cursor has at most so many positions.
        for _ in 0..=CURSOR_POSITIONS_MAX / asked.page_size {
            let page = self.list_cursors_at(&asked, deadline).await?;
            for one in page.cursors {
                if !given.iter().any(|id| id.0 == one.chain_id[..]) {
                    request.resume_tokens.push(one.resume_token);
                }
            }
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Moves as a client wrote them, checked.
    pub(super) fn cursor_moves<'a>(
        &self,
        field: &str,
        moves: &'a [proto::CursorMove],
    ) -> Result<Vec<CursorMove<'a>>, Status> {
        if moves.is_empty() {
            return Ok(Vec::new());
        }
        if moves.len() > CURSOR_MOVES_MAX {
            let why = format!("there are {}, give at most {CURSOR_MOVES_MAX}", moves.len());
            return Err(invalid(field, why));
        }
        let cluster_id = self.cluster_id()?;
        let mut read: Vec<CursorMove<'a>> = Vec::with_capacity(moves.len());
        let mut seen = std::collections::HashSet::new();
        for (at, one) in moves.iter().enumerate() {
            let field = |name: &str| format!("{field}[{at}].{name}");
            check_name(&field("name"), &one.name)?;
            let to = Token::read(&cluster_id, &field("to"), &one.to)?;
            if !seen.insert((one.name.as_str(), to.chain_id.0)) {
                let why =
                    "it is the second move of its cursor in that chain; give the last one only";
                return Err(invalid(&field("to"), why));
            }
            read.push(CursorMove {
                name: &one.name,
                source: to.chain_id,
                to: to.place,
                expected: expected(&cluster_id, &field("expected"), one, to.chain_id)?,
            });
        }
        Ok(read)
    }
}

#[allow(clippy::option_option)] // as the command has it: any place, none, or this one
fn expected(
    cluster_id: &[u8; 16],
    field: &str,
    one: &proto::CursorMove,
    source: ChainId,
) -> Result<Option<Option<CursorPlace>>, Status> {
    let Some(bytes) = &one.expected else {
        return Ok(None);
    };
    if bytes.is_empty() {
        return Ok(Some(None));
    }
    let token = Token::read(cluster_id, field, bytes)?;
    if token.chain_id != source {
        return Err(invalid(
            field,
            "it is of another chain than `to`; give a token of the same chain",
        ));
    }
    Ok(Some(Some(token.place)))
}

fn shown(one: &CursorView, cluster_id: &[u8; 16]) -> proto::Cursor {
    let place = CursorPlace {
        next_index: one.row.next_index,
        next_height: one.row.next_height,
        last: one.row.last,
    };
    let token = Token {
        chain_id: one.source,
        place,
    };
    proto::Cursor {
        name: one.name.clone(),
        chain_id: one.source.0.to_vec().into(),
        next_index: place.next_index,
        next_height: place.next_height,
        moved_ms: one.row.moved_ms,
        resume_token: token.write(cluster_id),
    }
}

/// A cursor's name is 1 to 64 letters, digits and `. _ - : /`.
fn check_name(field: &str, name: &str) -> Result<(), Status> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    if name.is_empty() || name.len() > CURSOR_NAME_BYTES_MAX || !name.bytes().all(allowed) {
        let why = format!(
            "a cursor's name has 1 to {CURSOR_NAME_BYTES_MAX} letters, digits and . _ - : /; give such a name"
        );
        return Err(invalid(field, why));
    }
    Ok(())
}

fn page_start(token: &str) -> Result<Option<(&str, ChainId)>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let parted = token.split_once('.').and_then(|(id, name)| {
        let id = hex::decode(id).ok()?;
        Some((name, convert::bytes32("page_token", &id).ok()?))
    });
    let (name, id) = parted.ok_or_else(|| {
        invalid(
            "page_token",
            "it is not one of this list; use the token that the last page gave",
        )
    })?;
    Ok(Some((name, ChainId(id))))
}
