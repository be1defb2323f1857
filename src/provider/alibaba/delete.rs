//! `DeleteVerifyResult`: the provider deletes result, images and texts of a transaction.
//!
//! It is irreversible and exists for some products only; which code says so is not documented. `DeleteAfterQuery` is
//! `N`, so that a result is deleted whether or not it was ever asked for.

use serde_json::Value;

use super::wire::Reading;
use super::{AlibabaClient, codes};
use crate::domain::{Outcome, ProviderError, Trouble};
use crate::provider::parts::member;
use crate::provider::{CheckRequest, Deletion};

impl AlibabaClient {
    pub(super) async fn delete_result(&self, request: &CheckRequest) -> Result<Deletion, ProviderError> {
        let query = [("TransactionId", &*request.transaction_id), ("DeleteAfterQuery", "N"), ("DeleteType", "All")];
        let called = self.call("DeleteVerifyResult", &query, &[], &[]).await?;
        let code = called.reading.code.as_deref();
        if called.status == 200 && code.is_some_and(codes::is_success) {
            return interpret(&called.reading);
        }
        match codes::classify(called.status, code, called.retry_after.as_deref()) {
            // A result that does not exist yet.
            Ok(Outcome::Running(code)) => Ok(Deletion::Declined { code }),
            // Said of this operation alone: the account is well.
            Err(ProviderError::Account { trouble: Trouble::Configuration, code }) => Ok(Deletion::NotOffered { code }),
            Err(error) => Err(error),
            Ok(Outcome::Finished(_)) => Err(no_result()),
        }
    }
}

fn interpret(reading: &Reading) -> Result<Deletion, ProviderError> {
    // With the other operations it is a member of Result; what the provider says here leaves both open.
    let outer: Option<Value> = serde_json::from_str(&reading.text).ok();
    let outer = outer.as_ref().and_then(Value::as_object).and_then(|outer| member(outer, "DeleteResult"));
    let inner = reading.result.as_ref().and_then(|result| member(result, "DeleteResult"));
    match inner.or(outer).and_then(Value::as_str).map(str::trim) {
        Some("Y" | "y") => Ok(Deletion::Deleted),
        Some("N" | "n") => Ok(Deletion::Declined { code: "DeleteResult.N".to_owned() }),
        _ => Err(no_result()),
    }
}

fn no_result() -> ProviderError {
    ProviderError::Unavailable {
        code: "result_missing".to_owned(),
        reason: "it reports success and does not say whether it deleted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::read;
    use super::*;

    #[test]
    fn only_a_plain_yes_is_a_deletion() {
        let said = |body: &str| interpret(&read(body.as_bytes(), &[]).unwrap());
        let declined = Deletion::Declined { code: "DeleteResult.N".to_owned() };
        assert_eq!(said(r#"{"Code":"Success","Result":{"DeleteResult":"Y"}}"#).unwrap(), Deletion::Deleted);
        assert_eq!(said(r#"{"Code":"200","DeleteResult":"Y"}"#).unwrap(), Deletion::Deleted);
        assert_eq!(said(r#"{"Code":"Success","Result":{"deleteResult":"N"}}"#).unwrap(), declined);
        assert_eq!(said(r#"{"Code":"Success","Result":"{\"DeleteResult\":\"N\"}"}"#).unwrap(), declined);
        for unsaid in [
            r#"{"Code":"Success"}"#,
            r#"{"Code":"Success","Result":{}}"#,
            r#"{"Code":"Success","Result":{"DeleteResult":true}}"#,
            r#"{"Code":"Success","Result":{"DeleteResult":"CANARY"}}"#,
        ] {
            let error = said(unsaid).unwrap_err();
            assert_eq!(error.code(), "result_missing", "{unsaid}");
            assert!(!error.to_string().contains("CANARY"));
        }
    }
}
