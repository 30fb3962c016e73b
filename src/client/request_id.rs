//! Request ids: what makes sending a request again safe.
use crate::client::ClientError;

/// Ids of one client: a random stem and a counter.
pub(super) struct RequestIds {
    stem: String,
    next: u64,
}

impl RequestIds {
    pub(super) fn new() -> Result<Self, ClientError> {
        let mut stem = [0; 12];
        getrandom::fill(&mut stem)
            .map_err(|e| ClientError::Usage(format!("the system gives no random bytes: {e}")))?;
        Ok(Self {
            stem: hex::encode(stem),
            next: 0,
        })
    }

    pub(super) fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.stem, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_are_equal_and_all_fit_the_limit() {
        let (mut a, mut b) = (RequestIds::new().unwrap(), RequestIds::new().unwrap());
        let ids = [a.next(), a.next(), b.next(), b.next()];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert!(ids.iter().all(|id| id.len() <= 64));
    }
}
