//! Meeting a chain: the newest head, verified against the last trusted one, or by the newcomer's bundle.
//!
//! 1. A known name must stand for the same chain id ("chain-id"), an unknown one for a chain of that name ("chain-name").
//! 2. A newer head must extend the trusted one, and be signed by the authority in force.
//! 3. Another head at the trusted height is refused ("head-equivocation").
//! 4. An older head is refused ("head-went-back"), unless it is shown to lie in the trusted history.
//! 5. Kept receipts must hold in it ("receipt-broken").
//! 6. Only then the trusted head moves.
use crate::{
    chain::{
        ChainId, Constitution, Header, Meta, Refused, TrustedHead, verify_bundle, verify_extension,
        verify_history_link, verify_quorum, verify_required,
    },
    client::{
        Client, ClientError, Trusted, convert,
        convert::SignedHeader,
        heads::{Kept, Offer},
        heads_book::other_id,
    },
    proto,
};

/// How often another process may overtake us before we give up.
const ROUNDS_MAX: u32 = 16;

/// A chain's newest head, verified.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The head.
    pub trusted: Trusted,
    /// What it was verified against.
    pub kind: ContactKind,
}

/// What a head was verified against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactKind {
    /// Nothing but its own constitution: nobody vouches for the chain id.
    First,
    /// It is the trusted head.
    Same,
    /// An earlier trusted head, which it extends.
    Moved,
}

impl Client {
    /// The newest head of the chain `name`. A chain met for the first time is remembered only if `keep`.
    pub async fn contact(&self, name: &str, keep: bool) -> Result<Contact, ClientError> {
        for _ in 0..ROUNDS_MAX {
            let (contact, base) = self.meet(name).await?;
            if contact.kind == ContactKind::Moved {
                self.check_receipts(&contact.trusted).await?;
            }
            if contact.kind == ContactKind::First && !keep {
                return Ok(contact);
            }
            if self.keep(name, &contact.trusted, base)? == Kept::Yes {
                return Ok(contact);
            }
        }
        Err(ClientError::Usage(format!(
            "other processes move the trusted head of {name} faster than this one can follow; try again"
        )))
    }

    /// Trusts from now on what was met as [`ContactKind::First`], once somebody looked at it.
    pub async fn remember(&self, name: &str, met: &Trusted) -> Result<(), ClientError> {
        if self.keep(name, met, None)? == Kept::Overtaken {
            self.settle_header(name, &met.header, true).await?;
        }
        Ok(())
    }

    /// Shows that `header` is the trusted head of its chain or lies before it, moving the trusted head if need be.
    pub async fn settle_header(
        &self,
        name: &str,
        header: &Header,
        keep: bool,
    ) -> Result<Contact, ClientError> {
        let contact = self.contact(name, keep).await?;
        let trusted = &contact.trusted;
        if header.height > trusted.header.height {
            return Err(went_back(
                trusted,
                header.height,
                "a head above the newest one was shown before",
            )
            .into());
        }
        let (known, _) = self.quant(trusted, header.height).await?;
        if known != *header {
            return Err(equivocation(trusted, header).into());
        }
        Ok(contact)
    }

    /// The head and the stored one that it was verified against.
    async fn meet(&self, name: &str) -> Result<(Contact, Option<[u8; 32]>), ClientError> {
        let stored = match self.heads.id_of(&self.endpoint, name)? {
            Some(id) => self.heads.get(&id)?,
            None => None,
        };
        let Some(stored) = stored else {
            return self.meet_first(name).await;
        };
        self.meet_again(name, stored).await
    }

    async fn meet_first(&self, name: &str) -> Result<(Contact, Option<[u8; 32]>), ClientError> {
        let trusted = Trusted::from(self.bundle(name, None).await?);
        let trusted = self.with_constitutions_below(trusted).await?;
        if trusted.name() != name {
            let why = format!("asked for {name}, answered with chain {}", trusted.name());
            return Err(ClientError::refused("chain-name", why));
        }
        // The same chain may be known from another endpoint.
        if let Some(stored) = self.heads.get(&trusted.chain_id)? {
            return self.meet_again(name, stored).await;
        }
        let kind = ContactKind::First;
        Ok((Contact { trusted, kind }, None))
    }

    async fn meet_again(
        &self,
        name: &str,
        stored: Trusted,
    ) -> Result<(Contact, Option<[u8; 32]>), ClientError> {
        let base = Some(stored.hash);
        let trusted = self.advance(name, stored).await?;
        let kind = if base == Some(trusted.hash) {
            ContactKind::Same
        } else {
            ContactKind::Moved
        };
        Ok((Contact { trusted, kind }, base))
    }

    /// Of a fork of an erasable chain: what the chains that it came from began with. Their admins erase what they own.
    async fn with_constitutions_below(&self, mut trusted: Trusted) -> Result<Trusted, ClientError> {
        if !trusted.constitution.erasable {
            return Ok(trusted);
        }
        for at in 0..trusted.borders.len() {
            // A chain begins right where it left its own parent, the oldest one at height 0.
            let next = trusted.borders.get(at + 1);
            let first = next.map_or(0, |border| border.header.height);
            let (_, meta) = self.quant(&trusted, first).await?;
            let bytes = Meta::parse(&meta)?.constitution;
            let bytes = bytes.ok_or_else(|| convert::bad("a first Quant has no constitution"))?;
            trusted.borders[at].below = Some(Constitution::parse(&bytes)?);
        }
        Ok(trusted)
    }

    /// The newest head as a successor of `old`; `old` itself where the node is behind in the same history.
    async fn advance(&self, name: &str, old: Trusted) -> Result<Trusted, ClientError> {
        let request = proto::GetHeadRequest {
            any_replica: false,
            chain: name.to_owned(),
        };
        let answer = self.call(request, |r| async { self.chains.clone().get_head(r).await });
        let new = convert::head(answer.await?.head)?;
        check_id(name, old.chain_id, &new.header)?;
        if new.header.hash() == old.hash {
            // It may have been trusted before anything was required.
            if !self.config.require.is_empty() {
                self.check_signed(&old, &new)?;
            }
            return Ok(old);
        }
        if new.header.height == old.header.height {
            return Err(equivocation(&old, &new.header).into());
        }
        if new.header.height < old.header.height {
            self.check_behind(&old, &new.header).await?;
            return self.unless_required(old);
        }
        self.extend(name, &old, new.header.height).await
    }

    /// Moves from `old` to the head at `height`, by an extension proof.
    async fn extend(&self, name: &str, old: &Trusted, height: u64) -> Result<Trusted, ClientError> {
        let answer = self
            .extension(name, old.header.height, Some(height))
            .await?;
        let new = convert::head(answer.head)?;
        let path = convert::path(&answer.path)?;
        check_id(name, old.chain_id, &new.header)?;
        verify_extension(&old.header, &new.header, &path)?;
        if let Err(refused) = self.check_signed(old, &new) {
            return self.extend_by_bundle(name, old, refused).await;
        }
        Ok(old.moved_to(new.header))
    }

    /// A head that a tail told, as a successor of `old`: by the proof that came with it, or as any other head.
    pub(super) async fn told_head(
        &self,
        name: &str,
        old: &Trusted,
        told: proto::TailHead,
    ) -> Result<Trusted, ClientError> {
        let new = convert::head(told.head)?;
        check_id(name, old.chain_id, &new.header)?;
        if told.from_height != Some(old.header.height) || new.header.height <= old.header.height {
            let met = self.settle_header(name, &new.header, true).await?;
            return Ok(met.trusted.moved_to(new.header));
        }
        verify_extension(&old.header, &new.header, &convert::path(&told.path)?)?;
        let moved = match self.check_signed(old, &new) {
            Ok(()) => old.moved_to(new.header),
            Err(refused) => self.extend_by_bundle(name, old, refused).await?,
        };
        self.check_receipts(&moved).await?;
        if self.keep(name, &moved, Some(old.hash))? == Kept::Yes {
            return Ok(moved);
        }
        let met = self.settle_header(name, &moved.header, true).await?;
        Ok(met.trusted.moved_to(moved.header))
    }

    /// The authority in force may have changed since `old`: the bundle shows how, or the first refusal stands.
    async fn extend_by_bundle(
        &self,
        name: &str,
        old: &Trusted,
        refused: Refused,
    ) -> Result<Trusted, ClientError> {
        let new = self.bundle(name, Some(old.chain_id)).await;
        let new = new.map_or_else(|_| Err(refused.clone()), |new| Ok(Trusted::from(new)))?;
        let new = Trusted {
            borders: old.borders.clone(),
            ..new
        };
        if new.authority_seq <= old.authority_seq {
            return Err(refused.into());
        }
        let height = new.header.height;
        let answer = self
            .extension(name, old.header.height, Some(height))
            .await?;
        verify_extension(&old.header, &new.header, &convert::path(&answer.path)?)?;
        Ok(new)
    }

    /// Enough nodes signed, with all that is required.
    fn check_signed(&self, old: &Trusted, new: &SignedHeader) -> Result<(), Refused> {
        verify_quorum(
            &new.signatures,
            &new.header,
            &old.constitution,
            &old.authority,
        )?;
        verify_required(&new.signatures, &old.constitution, self.config.require)
    }

    /// A node that is behind shows no signatures of the trusted head: whether it has those that are required stays open.
    fn unless_required(&self, old: Trusted) -> Result<Trusted, ClientError> {
        if self.config.require.is_empty() {
            return Ok(old);
        }
        let why = format!(
            "{} is required, and the node is behind the trusted head at height {} and shows no signatures of it; ask again in a moment, or another node",
            self.config.require, old.header.height
        );
        Err(ClientError::refused("signature-required", why))
    }

    /// An older head is harmless where it lies in the trusted history.
    async fn check_behind(&self, old: &Trusted, older: &Header) -> Result<(), ClientError> {
        let refuse = |why: &str| went_back(old, older.height, why);
        let request = proto::GetQuantRequest {
            any_replica: false,
            chain: old.name().to_owned(),
            height: older.height,
            at_height: Some(old.header.height),
        };
        let answer = self.call(request, |r| async {
            self.chains.clone().get_quant(r).await
        });
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => return Err(refuse(&error.to_string()).into()),
        };
        let path = convert::path(&answer.path)?;
        let borders = old.borders_above(older.height);
        verify_history_link(older, &old.header, &borders, &path)
            .map_err(|refused| refuse(&refused.to_string()).into())
    }

    /// A head from the newcomer's bundle.
    pub(super) async fn bundle(
        &self,
        name: &str,
        expect: Option<ChainId>,
    ) -> Result<TrustedHead, ClientError> {
        let request = proto::GetBundleRequest {
            chain: name.to_owned(),
        };
        let answer = self.call(request, |r| async {
            self.proofs.clone().get_bundle(r).await
        });
        let bundle = convert::bundle(answer.await?)?;
        let head = verify_bundle(&bundle, expect)?;
        verify_required(&bundle.signatures, &head.constitution, self.config.require)?;
        Ok(head)
    }

    pub(super) async fn extension(
        &self,
        name: &str,
        from_height: u64,
        to_height: Option<u64>,
    ) -> Result<proto::ProveExtensionResponse, ClientError> {
        let request = proto::ProveExtensionRequest {
            chain: name.to_owned(),
            from_height,
            to_height,
        };
        let prove = |r| async { self.proofs.clone().prove_extension(r).await };
        self.call(request, prove).await
    }

    fn keep(
        &self,
        name: &str,
        head: &Trusted,
        base: Option<[u8; 32]>,
    ) -> Result<Kept, ClientError> {
        self.heads.keep(&Offer {
            endpoint: &self.endpoint,
            name,
            head,
            base,
        })
    }
}

pub(super) fn check_id(name: &str, id: ChainId, header: &Header) -> Result<(), Refused> {
    if header.id() == id {
        return Ok(());
    }
    Err(other_id(name, id, header.id()))
}

pub(super) fn equivocation(trusted: &Trusted, other: &Header) -> Refused {
    let why = format!(
        "at height {} the trusted history of {} has another Quant than {}: the node shows two histories; keep both as evidence",
        other.height,
        trusted.name(),
        hex::encode(other.hash()),
    );
    Refused::new("head-equivocation", why)
}

fn went_back(trusted: &Trusted, height: u64, why: &str) -> Refused {
    let why = format!(
        "{} is trusted up to height {}, and the node offers height {height} without showing that it lies before: {why}",
        trusted.name(),
        trusted.header.height,
    );
    Refused::new("head-went-back", why)
}
