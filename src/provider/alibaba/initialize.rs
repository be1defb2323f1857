//! The operation Initialize: the merchant's members become parameters, the answer what the client SDK needs.
//!
//! What names us (callback, token, reference, return address) and what belongs to the signature cannot be given by the
//! merchant. The answer is read apart from that of other operations, because here links and long texts are wanted.

use std::borrow::Cow;

use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use crate::domain::{Outcome, ProviderError};
use crate::provider::http::HttpError;
use crate::provider::initialize::{
    InitializeError, InitializeRequest, Initialized, Prepared, WrongMember, answer_text, is_transaction_id,
};
use crate::provider::parts::{Part, member, part};

use super::sign::Parameter;
use super::{AlibabaClient, Called, NotCalled, codes};

/// Set by us, and where the merchant says it instead.
const OURS: [(&str, &str); 4] = [
    ("CallbackUrl", "is set by Checkback"),
    ("CallbackToken", "is set by Checkback"),
    ("MerchantBizId", "is set by Checkback: give it as merchant_biz_id beside `initialize`"),
    ("ReturnUrl", "is set by Checkback: give return_url beside `initialize`"),
];

/// Parameters of every call: they say who calls, and what.
const COMMON: [&str; 9] = [
    "Action",
    "Version",
    "Format",
    "AccessKeyId",
    "SignatureMethod",
    "SignatureVersion",
    "SignatureNonce",
    "Timestamp",
    "SecurityToken",
];

/// Goes into the body: it is too long for a query.
const IN_BODY: &str = "FacePictureBase64";

const LONGEST_NAME: usize = 64;

pub(super) fn prepare(given: Map<String, Value>) -> Result<Prepared, Vec<WrongMember>> {
    let mut wrong = Vec::new();
    let mut members = Map::new();
    for (name, value) in given {
        match text(&name, value) {
            Ok(Some(text)) => drop(members.insert(name, Value::String(text))),
            Ok(None) => {}
            Err(message) => wrong.push(WrongMember::new(name, message)),
        }
    }
    let product = members.get("ProductCode").and_then(Value::as_str).map(str::to_owned);
    if product.is_none() && !wrong.iter().any(|wrong| wrong.name == "ProductCode") {
        wrong.push(WrongMember::new("ProductCode", "is required"));
    }
    let expect_video = members.get("DocVideo").and_then(Value::as_str) == Some("Y");
    if wrong.is_empty() { Ok(Prepared { members, product, expect_video }) } else { Err(wrong) }
}

/// The parameter's text; `None` where the member counts as absent.
fn text(name: &str, value: Value) -> Result<Option<String>, Cow<'static, str>> {
    if let Some((_, message)) = OURS.iter().find(|(ours, _)| ours.eq_ignore_ascii_case(name)) {
        return Err((*message).into());
    }
    let is_name = (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !is_name {
        return Err("is no name of a parameter: letters, digits, `_`, `.` and `-`, at most 64".into());
    }
    if COMMON.iter().any(|common| common.eq_ignore_ascii_case(name)) || name.eq_ignore_ascii_case("Signature") {
        return Err("belongs to the signature, which Checkback makes".into());
    }
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) if name == "ProductCode" && !is_product(&text) => {
            Err("must have 1 to 64 letters, digits, `_` and `-`".into())
        }
        Value::String(text) => Ok(Some(text)),
        Value::Number(_) | Value::Bool(_) if name != "ProductCode" => Ok(Some(value.to_string())),
        Value::Array(_) if name == "DocPageConfig" => Ok(Some(value.to_string())),
        _ if name == "DocPageConfig" => Err("must be a list, or its JSON text".into()),
        _ if name == "ProductCode" => Err("must be a text".into()),
        _ => Err("must be a text, a number or a flag; lists and objects are given as their JSON text".into()),
    }
}

fn is_product(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl AlibabaClient {
    pub(super) async fn start(&self, request: &InitializeRequest) -> Result<Initialized, InitializeError> {
        let return_url = request.return_to.as_ref().map(|to| String::from(to.address()));
        let (mut query, mut form): (Vec<Parameter<'_>>, Vec<Parameter<'_>>) = (Vec::new(), Vec::new());
        for (name, value) in &request.members {
            let Value::String(value) = value else { continue };
            if name == IN_BODY { form.push((name, value)) } else { query.push((name, value)) }
        }
        query.push(("MerchantBizId", &request.merchant_biz_id));
        if let Some(callback) = &request.callback {
            query.push(("CallbackUrl", callback.url.as_str()));
            query.push(("CallbackToken", callback.token.expose_secret()));
        }
        query.extend(return_url.as_deref().map(|url| ("ReturnUrl", url)));
        interpret(self.call("Initialize", &query, &form, &[]).await)
    }
}

/// What is certain to have made nothing is told apart from what may have made a transaction.
fn interpret(called: Result<Called, NotCalled>) -> Result<Initialized, InitializeError> {
    let called = match called {
        Ok(called) => called,
        Err(NotCalled::Http(error @ HttpError::Connect(_))) => {
            return Err(InitializeError::NotSent { code: error.code().to_owned() });
        }
        Err(NotCalled::Http(error)) => return Err(InitializeError::Lost { code: error.code().to_owned() }),
        Err(NotCalled::Before(error)) => return Err(before_the_operation(error)),
        Err(NotCalled::Unreadable(answer)) => return Err(by_status(answer.status.as_u16())),
    };
    let code = called.reading.code.as_deref();
    if called.status == 200 && code.is_some_and(codes::is_success) {
        return read(&called.body).ok_or_else(|| InitializeError::Lost { code: "unreadable_answer".to_owned() });
    }
    let Some(code) = code.filter(|code| codes::is_usable(code)) else { return Err(by_status(called.status)) };
    match codes::classify(called.status, Some(code), called.retry_after.as_deref()) {
        Err(ProviderError::Throttled { code, retry_after }) => Err(InitializeError::Throttled { code, retry_after }),
        Err(ProviderError::Account { trouble, code }) => Err(InitializeError::Account { trouble, code }),
        Err(ProviderError::Refused { code, .. }) => Err(InitializeError::Refused { code }),
        // Turned away before anything was done.
        Err(ProviderError::Unavailable { code, .. }) if code.eq_ignore_ascii_case("SignatureNonceUsed") => {
            Err(InitializeError::NotSent { code })
        }
        // A code that is not known here, with a status that blames the caller.
        Err(ProviderError::Unavailable { code, .. })
            if (400..500).contains(&called.status) && !codes::is_fault(&code) =>
        {
            Err(InitializeError::Refused { code })
        }
        Err(ProviderError::Unavailable { code, .. }) | Ok(Outcome::Running(code)) => {
            Err(InitializeError::Lost { code })
        }
        Ok(Outcome::Finished(_)) => Err(InitializeError::Lost { code: code.to_owned() }),
    }
}

/// No key, or a refused time: the gateway answers so before the operation runs.
fn before_the_operation(error: ProviderError) -> InitializeError {
    match error {
        ProviderError::Account { trouble, code } => InitializeError::Account { trouble, code },
        other => InitializeError::NotSent { code: other.code().to_owned() },
    }
}

/// An answer without a code comes from something in between. What it refused did not reach the provider, but for a
/// time-out (408); what it could not get through may have.
fn by_status(status: u16) -> InitializeError {
    let code = format!("http_{status}");
    match status {
        200..=299 => InitializeError::Lost { code: "unreadable_answer".to_owned() },
        429 => InitializeError::Throttled { code, retry_after: None },
        300..=399 | 400..=407 | 409..=499 => InitializeError::NotSent { code },
        _ => InitializeError::Lost { code },
    }
}

/// Reads what the client SDK needs; `None` without a usable transaction id.
fn read(body: &[u8]) -> Option<Initialized> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}');
    let outer: Map<String, Value> = serde_json::from_str(text).ok()?;
    let Part::Object(result) = part(&outer, "Result") else { return None };
    let take = |name: &str| answer_text(member(&result, name));
    Some(Initialized {
        transaction_id: take("TransactionId").filter(|id| is_transaction_id(id))?,
        transaction_url: take("TransactionUrl"),
        protocol: take("Protocol"),
        client_cfg: take("ClientCfg"),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;
    use crate::provider::alibaba::wire;
    use crate::provider::http::HttpAnswer;

    fn prepared(members: Value) -> Result<Prepared, Vec<String>> {
        let Value::Object(members) = members else { panic!("no object") };
        prepare(members).map_err(|wrong| wrong.into_iter().map(|wrong| wrong.name).collect())
    }

    #[test]
    fn members_become_texts_and_tell_product_and_video() {
        let prepared = prepared(json!({
            "ProductCode": "FACE_LIVENESS", "MetaInfo": "{\"a\":1}", "DocVideo": "Y", "Ocr": true, "RetryTimes": 3,
            "DocPageConfig": ["a", {"b": 1}], "SceneCode": null, "Model": "",
        }))
        .unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!((prepared.product.as_deref(), prepared.expect_video), (Some("FACE_LIVENESS"), true));
        assert_eq!(
            Value::Object(prepared.members),
            json!({"ProductCode": "FACE_LIVENESS", "MetaInfo": "{\"a\":1}", "DocVideo": "Y", "Ocr": "true",
                   "RetryTimes": "3", "DocPageConfig": "[\"a\",{\"b\":1}]"})
        );
    }

    #[test]
    fn what_is_ours_or_the_signatures_is_refused_in_any_case() {
        let wrong = prepared(json!({
            "ProductCode": "X", "CallbackUrl": "https://a", "callbacktoken": "t", "MerchantBizId": "m",
            "RETURNURL": "https://a", "Action": "CheckResult", "signature": "s", "AccessKeyId": "k", "a b": "c",
            "Deep": {"a": 1}, "List": [1],
        }));
        let mut wrong = wrong.err().unwrap();
        wrong.sort_unstable();
        let mut expected = [
            "AccessKeyId",
            "Action",
            "CallbackUrl",
            "Deep",
            "List",
            "MerchantBizId",
            "RETURNURL",
            "a b",
            "callbacktoken",
            "signature",
        ];
        expected.sort_unstable();
        assert_eq!(wrong, expected);
        for product in
            [json!({}), json!({"ProductCode": null}), json!({"ProductCode": 1}), json!({"ProductCode": "a b"})]
        {
            assert_eq!(prepared(product).err().unwrap(), ["ProductCode"]);
        }
    }

    fn ended(status: u16, body: &str) -> String {
        let body = bytes::Bytes::from(body.to_owned());
        let called = if let Ok(reading) = wire::read(&body, &[]) {
            Ok(Called { status, retry_after: None, reading, body })
        } else {
            let status = StatusCode::from_u16(status).unwrap();
            Err(NotCalled::Unreadable(HttpAnswer::new(status, HeaderMap::new(), body)))
        };
        match interpret(called) {
            Ok(made) => format!("made {}", made.transaction_id),
            Err(InitializeError::Refused { code }) => format!("refused {code}"),
            Err(InitializeError::Throttled { code, .. }) => format!("throttled {code}"),
            Err(InitializeError::Account { code, .. }) => format!("account {code}"),
            Err(InitializeError::NotSent { code }) => format!("not sent {code}"),
            Err(InitializeError::Lost { code }) => format!("lost {code}"),
        }
    }

    #[test]
    fn only_what_made_nothing_for_certain_is_not_lost() {
        let code = |code: &str| json!({ "Code": code, "Message": "x" }).to_string();
        for (status, body, expected) in [
            (200, json!({"Code": "Success", "Result": {"TransactionId": "t1"}}).to_string(), "made t1"),
            (200, json!({"code": "200", "result": "{\"transactionId\":\"t2\"}"}).to_string(), "made t2"),
            (200, json!({"Code": "Success", "Result": {}}).to_string(), "lost unreadable_answer"),
            (
                200,
                json!({"Code": "Success", "Result": {"TransactionId": "a\nb"}}).to_string(),
                "lost unreadable_answer",
            ),
            (200, json!({"Code": "Success"}).to_string(), "lost unreadable_answer"),
            (200, "not json".to_owned(), "lost unreadable_answer"),
            (200, String::new(), "lost unreadable_answer"),
            (200, code("SomethingNew"), "lost SomethingNew"),
            (400, code("InvalidParameter"), "refused InvalidParameter"),
            (200, code("InvalidParameter.MetaInfo"), "refused InvalidParameter.MetaInfo"),
            (400, code("MissingParameter"), "refused MissingParameter"),
            (412, code("SomethingNew"), "refused SomethingNew"),
            (403, code("Throttling.Api"), "throttled Throttling.Api"),
            (403, code("Forbidden.AccountAccessDenied"), "account Forbidden.AccountAccessDenied"),
            (404, code("InvalidAccessKeyId.NotFound"), "account InvalidAccessKeyId.NotFound"),
            (400, code("SignatureNonceUsed"), "not sent SignatureNonceUsed"),
            (500, code("InternalError"), "lost InternalError"),
            (400, code("InternalError"), "lost InternalError"),
            (503, code("ServiceUnavailable"), "lost ServiceUnavailable"),
            (500, code("SomethingNew"), "lost SomethingNew"),
            (502, "<html>".to_owned(), "lost http_502"),
            (504, String::new(), "lost http_504"),
            (408, String::new(), "lost http_408"),
            (403, "<html>".to_owned(), "not sent http_403"),
            (302, String::new(), "not sent http_302"),
            (429, String::new(), "throttled http_429"),
        ] {
            assert_eq!(ended(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn the_answer_keeps_links_and_long_texts_whole() {
        let long = "QUJD".repeat(4000);
        let body = json!({"Code": "Success", "Result": {
            "TransactionId": "t", "TransactionUrl": "https://a.example/?token=b", "Protocol": long, "ClientCfg": {"a": 1},
        }});
        let made = read(body.to_string().as_bytes()).unwrap();
        assert_eq!(made.transaction_url.as_deref(), Some("https://a.example/?token=b"));
        assert_eq!(made.protocol, Some(long));
        assert_eq!(made.client_cfg.as_deref(), Some("{\"a\":1}"));
    }
}
