//! Named cursors that a chain keeps for those who tail.
use bytes::Bytes;

use crate::{
    client::{Client, ClientError},
    proto,
};

impl Client {
    /// Moves positions of cursors that the chain `keeper` keeps, all or none.
    pub async fn move_cursor(
        &self,
        keeper: &str,
        moves: Vec<proto::CursorMove>,
    ) -> Result<Vec<proto::Cursor>, ClientError> {
        let request = proto::MoveCursorRequest {
            chain: keeper.to_owned(),
            moves,
        };
        let call = |r| async { self.tails.clone().move_cursor(r).await };
        Ok(self.call(request, call).await?.cursors)
    }

    /// Cursors that the chain keeps, of one name or of all, by name and chain. The node's word.
    pub async fn cursors(
        &self,
        keeper: &str,
        name: Option<&str>,
    ) -> Result<Vec<proto::Cursor>, ClientError> {
        let mut all = Vec::new();
        let mut request = proto::ListCursorsRequest {
            chain: keeper.to_owned(),
            name: name.unwrap_or_default().to_owned(),
            ..proto::ListCursorsRequest::default()
        };
        loop {
            let call = |r| async { self.tails.clone().list_cursors(r).await };
            let page = self.call(request.clone(), call).await?;
            all.extend(page.cursors);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Deletes a cursor; how many positions it had.
    pub async fn delete_cursor(&self, keeper: &str, name: &str) -> Result<u64, ClientError> {
        let request = proto::DeleteCursorRequest {
            chain: keeper.to_owned(),
            name: name.to_owned(),
        };
        let call = |r| async { self.tails.clone().delete_cursor(r).await };
        Ok(self.call(request, call).await?.positions)
    }
}

/// A move of one cursor to the place of a token, wherever it stands.
pub fn cursor_move(name: &str, to: Bytes) -> proto::CursorMove {
    proto::CursorMove {
        name: name.to_owned(),
        to,
        expected: None,
    }
}
