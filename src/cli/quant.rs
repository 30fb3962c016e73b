//! `qbc quant`: show a Quant, proved into the head.
use std::str::FromStr;

use crate::{
    chain::{ChainName, Meta},
    cli::{
        exit::CliError,
        session::{Session, chain_name},
        shape,
    },
};

#[derive(clap::Args)]
pub(super) struct QuantArgs {
    /// The chain
    #[arg(value_parser = chain_name)]
    name: ChainName,
    /// The Quant's height, or `head`
    #[arg(value_name = "HEIGHT|head")]
    height: Height,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Height {
    At(u64),
    Head,
}

impl FromStr for Height {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "head" {
            return Ok(Self::Head);
        }
        let bad = |_| "a height is a number from 0 on, or the word head".to_owned();
        text.parse().map(Self::At).map_err(bad)
    }
}

pub(super) async fn run(args: QuantArgs, mut session: Session) -> Result<(), CliError> {
    let trusted = session.look(&args.name).await?;
    let height = match args.height {
        Height::At(height) => height,
        Height::Head => trusted.header.height,
    };
    let (header, meta) = session.client.quant(&trusted, height).await?;
    let mut shown = shape::header(&header);
    if !meta.is_empty() {
        let meta = Meta::parse(&meta)?;
        if let Some(note) = &meta.note {
            shown["note"] = shape::text_or_base64(note).into();
        }
        if let Some(node) = meta.sealing_node {
            shown["sealing_node"] = node.into();
        }
    }
    session.printer.object(&shown)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_height_is_a_number_or_the_head() {
        assert_eq!("7".parse(), Ok(Height::At(7)));
        assert_eq!("head".parse(), Ok(Height::Head));
        assert!("-1".parse::<Height>().is_err());
    }
}
