//! CheckVerifyLog: how far the person came. Its parameters travel in a form body, its answer holds a status and a code;
//! the log of pages beside them is not read.

use serde_json::{Map, Value};

use super::{AlibabaClient, codes};
use crate::domain::{Flow, ProviderError};
use crate::provider::CheckRequest;
use crate::provider::parts::member;

/// Longer texts are no name of a page and no code.
const LONGEST: usize = 32;

pub(super) async fn explain(client: &AlibabaClient, request: &CheckRequest) -> Result<Option<Flow>, ProviderError> {
    let form = [("TransactionId", &*request.transaction_id), ("MerchantBizId", &*request.merchant_biz_id)];
    let called = client.call("CheckVerifyLog", &[], &form, &[]).await?;
    let code = called.reading.code.as_deref();
    if called.status == 200 && code.is_some_and(codes::is_success) {
        return Ok(called.reading.result.as_ref().and_then(read));
    }
    codes::classify(called.status, code, called.retry_after.as_deref()).map(|_| None)
}

/// `VerifyStatus` is 0 finished, 1 interrupted, 2 not started; of any other nothing is said.
fn read(result: &Map<String, Value>) -> Option<Flow> {
    let text = |name| match member(result, name)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| is_plain(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match text("VerifyStatus")?.as_str() {
        "0" => Some(Flow::Finished),
        "1" => Some(Flow::Interrupted { page: text("InterruptPageEn"), code: text("VerifyErrorCode") }),
        "2" => Some(Flow::NotStarted),
        _ => None,
    }
}

/// It stands in the reason of the verdict, so it must be a name and no sentence.
fn is_plain(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b' '))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(result: Value) -> Option<String> {
        let Value::Object(result) = result else { panic!("no object") };
        read(&result).map(|flow| format!("{}: {flow}", flow.as_str()))
    }

    #[test]
    fn each_status_is_told_in_words_with_page_and_code_where_they_are() {
        for (result, expected) in [
            (json!({"VerifyStatus": "2"}), "not_started: The flow was never started."),
            (
                json!({"VerifyStatus": "1", "VerifyErrorCode": "1003", "InterruptPageEn": "FACE"}),
                "interrupted: The flow was interrupted at the page FACE (code 1003).",
            ),
            (json!({"verifyStatus": 1, "verifyErrorCode": 9999}), "interrupted: The flow was interrupted (code 9999)."),
            (json!({"VerifyStatus": "1", "InterruptPageEn": ""}), "interrupted: The flow was interrupted."),
            (json!({"VerifyStatus": 0}), "finished: The provider's log says that it was finished."),
        ] {
            assert_eq!(said(result.clone()).as_deref(), Some(expected), "{result}");
        }
    }

    #[test]
    fn what_is_no_status_no_page_and_no_code_is_not_repeated() {
        for result in [json!({}), json!({"VerifyStatus": "7"}), json!({"VerifyStatus": null})] {
            assert_eq!(said(result.clone()), None, "{result}");
        }
        let canary =
            json!({"VerifyStatus": "1", "InterruptPageEn": "<b>CANARY</b>", "VerifyErrorCode": "x".repeat(33)});
        assert_eq!(said(canary).as_deref(), Some("interrupted: The flow was interrupted."));
    }
}
