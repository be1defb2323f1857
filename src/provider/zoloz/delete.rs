//! `privacyinfo/delete`: the provider deletes the private data of a transaction. Its status stays there. Repeatable.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::ZolozClient;
use super::codes::{self, Class};
use crate::domain::{ProviderError, Trouble};
use crate::provider::{CheckRequest, Deletion};

const PATH: &str = "/api/v1/zoloz/privacyinfo/delete";

/// The transaction is none of this merchant's.
const UNKNOWN: &str = "TRANSACTION_RECORD_AUTHORITY_ERROR";

impl ZolozClient {
    pub(super) async fn delete_private_data(&self, request: &CheckRequest) -> Result<Deletion, ProviderError> {
        let body = json!({ "transactionId": request.transaction_id }).to_string();
        interpret(&self.gateway.call(PATH, Bytes::from(body)).await?)
    }
}

fn interpret(body: &[u8]) -> Result<Deletion, ProviderError> {
    let unavailable =
        |code: &str, reason: &str| ProviderError::Unavailable { code: code.to_owned(), reason: reason.to_owned() };
    let Ok(answer) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Err(unavailable("unreadable_answer", "its answer is not JSON"));
    };
    let result = |name: &str| answer.get("result").and_then(|result| result.get(name)).and_then(Value::as_str);
    let code = result("resultCode").unwrap_or_default();
    if code.trim().eq_ignore_ascii_case(UNKNOWN) {
        let reason = "it does not know the transaction as one of this merchant's".to_owned();
        return Err(ProviderError::Refused { code: UNKNOWN.to_owned(), reason });
    }
    match codes::classify(result("resultStatus").unwrap_or_default(), code) {
        Class::Verdict if code.trim().eq_ignore_ascii_case("SUCCESS") => Ok(Deletion::Deleted),
        Class::Verdict | Class::Review => Err(unavailable(&codes::shown(code), "it does not say that it deleted")),
        Class::Running => Ok(Deletion::Declined { code: codes::shown(code) }),
        // Said of this operation alone: the account is well.
        Class::Account(Trouble::Configuration) => Ok(Deletion::NotOffered { code: codes::shown(code) }),
        class => Err(class.error(code).unwrap_or_else(|| unavailable("no_code", "it answers without a code"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_ends_the_deletion_as_it_says() {
        let said = |status: &str, code: &str| {
            let body = json!({"result": {"resultStatus": status, "resultCode": code, "resultMessage": "CANARY"}});
            match interpret(body.to_string().as_bytes()) {
                Ok(Deletion::Deleted) => "deleted".to_owned(),
                Ok(Deletion::Declined { code }) => format!("declined {code}"),
                Ok(Deletion::NotOffered { code }) => format!("not offered {code}"),
                Err(error @ ProviderError::Refused { .. }) => format!("refused {}", error.code()),
                Err(error @ ProviderError::Throttled { .. }) => format!("throttled {}", error.code()),
                Err(error @ ProviderError::Account { .. }) => format!("account {}", error.code()),
                Err(error @ ProviderError::Unavailable { .. }) => format!("unavailable {}", error.code()),
            }
        };
        for (status, code, expected) in [
            ("S", "SUCCESS", "deleted"),
            ("F", UNKNOWN, "refused TRANSACTION_RECORD_AUTHORITY_ERROR"),
            ("F", "PARAM_ILLEGAL", "refused PARAM_ILLEGAL"),
            ("F", "BRAND_NEW", "refused BRAND_NEW"),
            ("S", "BRAND_NEW", "unavailable BRAND_NEW"),
            ("F", "NOT_SAME_PERSON", "unavailable NOT_SAME_PERSON"),
            ("U", "SYSTEM_ERROR", "unavailable SYSTEM_ERROR"),
            ("F", "REQUEST_TRAFFIC_EXCEED_LIMIT", "throttled REQUEST_TRAFFIC_EXCEED_LIMIT"),
            ("F", "SIGNATURE_INVALID", "account SIGNATURE_INVALID"),
            ("F", "NO_INTERFACE_DEF", "not offered NO_INTERFACE_DEF"),
            ("F", "PROCESSING", "declined PROCESSING"),
            ("", "", "unavailable no_code"),
        ] {
            assert_eq!(said(status, code), expected);
        }
        assert!(interpret(b"[]").is_err());
    }
}
