//! Refusals of a part of a request, as they are told to who sent the whole.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::StatusExt;

/// A refusal of a part of a request, with the places that its items have in the whole.
pub fn renumbered(refused: Status, numbers: &[usize]) -> Status {
    let details = refused.get_error_details();
    let info = details.error_info();
    let fact = |name: &str| info.and_then(|info| info.metadata.get(name));
    let item = fact("item").and_then(|item| item.parse().ok());
    let item = item.or_else(|| field_item(fact("field")?));
    let Some((from, to)) = item.and_then(|item| Some((item, *numbers.get(item)?))) else {
        return refused;
    };
    if from == to {
        return refused;
    }
    let moved = |text: &str| {
        text.replacen(
            &format!("transactions[{from}]"),
            &format!("transactions[{to}]"),
            1,
        )
    };
    let mut details = details;
    if let Some(info) = details.error_info().cloned() {
        let metadata = info.metadata.into_iter().map(|(key, value)| {
            let value = match key.as_str() {
                "item" => to.to_string(),
                _ => moved(&value),
            };
            (key, value)
        });
        let metadata: HashMap<String, String> = metadata.collect();
        details.set_error_info(info.reason, info.domain, metadata);
    }
    if let Some(bad) = details.bad_request().cloned() {
        let mut violations = bad.field_violations;
        for violation in &mut violations {
            violation.field = moved(&violation.field);
            violation.description = moved(&violation.description);
        }
        details.set_bad_request(violations);
    }
    Status::with_error_details(refused.code(), moved(refused.message()), details)
}

/// The number in `transactions[7].key`.
fn field_item(field: &str) -> Option<usize> {
    let (number, _) = field.strip_prefix("transactions[")?.split_once(']')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::status::refused_field;

    #[test]
    fn a_refused_item_keeps_its_place_in_the_whole_request() {
        let refused = refused_field("FIELD_INVALID", "transactions[1].key", "it is long");
        let told = renumbered(refused.clone(), &[4, 7]);
        assert!(told.message().starts_with("transactions[7].key: "));
        let details = told.get_error_details();
        let field = &details.error_info().unwrap().metadata["field"];
        assert_eq!(field, "transactions[7].key");
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "transactions[7].key");
        assert_eq!(
            renumbered(refused.clone(), &[0, 1]).message(),
            refused.message()
        );
    }
}
