//! Connect's `initialize`: the merchant's members with what we set, and what the client SDK needs of the answer.
//!
//! `bizId` is ours. The addresses of `h5ModeConfig` and its `state` are ours where the merchant gave a return address,
//! and the merchant's own otherwise. The sibling products have no documented way to begin.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::domain::ProviderError;
use crate::provider::initialize::{
    Beside, InitializeError, InitializeRequest, Initialized, Prepared, ReturnTo, WrongMember, answer_text,
    is_transaction_id,
};

use super::ZolozClient;
use super::codes::{self, Class};
use super::products::Product;

const PATH: &str = "/api/v1/zoloz/connect/initialize";

const H5: &str = "h5ModeConfig";
const WAYS_BACK: [&str; 2] = ["completeCallbackUrl", "interruptCallbackUrl"];
const STATE: &str = "state";

const REQUIRED: [&str; 2] = ["metaInfo", "userId"];

pub(super) fn prepare(mut members: Map<String, Value>, beside: Beside<'_>) -> Result<Prepared, Vec<WrongMember>> {
    let mut wrong = Vec::new();
    if Product::of(beside.product) != Ok(Product::Connect) {
        wrong.push(WrongMember::new("", "begins CONNECT only: begin other products yourself and send transaction_id"));
    }
    members.retain(|_, value| !value.is_null());
    for name in REQUIRED {
        match members.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            None => wrong.push(WrongMember::new(name, "is required")),
            Some(_) => wrong.push(WrongMember::new(name, "must be a text that is not empty")),
        }
    }
    if members.contains_key("bizId") {
        let message = "is set by Checkback: give it as merchant_biz_id beside `initialize`";
        wrong.push(WrongMember::new("bizId", message));
    }
    match members.get(H5) {
        Some(Value::Object(h5)) if beside.has_return_url => {
            for name in WAYS_BACK.iter().chain([&STATE]).filter(|name| h5.contains_key(**name)) {
                let message = "is set by Checkback where return_url is given";
                wrong.push(WrongMember::new(format!("{H5}.{name}"), message));
            }
        }
        None | Some(Value::Object(_)) => {}
        Some(_) => wrong.push(WrongMember::new(H5, "must be an object")),
    }
    if wrong.is_empty() { Ok(Prepared { members, product: None, expect_video: false }) } else { Err(wrong) }
}

fn body(request: &InitializeRequest) -> Vec<u8> {
    let mut body = Value::Object(request.members.clone());
    body["bizId"] = json!(request.merchant_biz_id);
    if let Some(to) = &request.return_to {
        let address = String::from(to.address());
        for name in WAYS_BACK {
            body[H5][name] = json!(address);
        }
        if let ReturnTo::Here { state, .. } = to {
            body[H5][STATE] = json!(state);
        }
    }
    body.to_string().into_bytes()
}

impl ZolozClient {
    pub(super) async fn start(&self, request: &InitializeRequest) -> Result<Initialized, InitializeError> {
        let answer = self.gateway.send(PATH, Bytes::from(body(request))).await.map_err(|error| not_called(&error))?;
        let opened = self.gateway.open(PATH, answer).map_err(not_opened)?;
        interpret(&opened)
    }
}

/// No whole answer came. Only where nothing was sent it is certain that nothing was made.
fn not_called(error: &ProviderError) -> InitializeError {
    match error.code() {
        "connect_failed" | "request_signing" => InitializeError::NotSent { code: error.code().to_owned() },
        code => InitializeError::Lost { code: code.to_owned() },
    }
}

/// An answer without a result: what the gateway, or something before it, says instead.
fn not_opened(error: ProviderError) -> InitializeError {
    match error {
        ProviderError::Throttled { code, retry_after } => InitializeError::Throttled { code, retry_after },
        ProviderError::Account { trouble, code } => InitializeError::Account { trouble, code },
        ProviderError::Refused { code, .. } => InitializeError::Refused { code },
        ProviderError::Unavailable { code, .. } if code.starts_with("http_3") => InitializeError::NotSent { code },
        ProviderError::Unavailable { code, .. } => InitializeError::Lost { code },
    }
}

fn interpret(body: &[u8]) -> Result<Initialized, InitializeError> {
    let lost = |code: &str| InitializeError::Lost { code: code.to_owned() };
    let Ok(answer) = serde_json::from_slice::<Map<String, Value>>(body) else { return Err(lost("unreadable_answer")) };
    let result = |name: &str| answer.get("result").and_then(|result| result.get(name)).and_then(Value::as_str);
    let code = result("resultCode").unwrap_or_default();
    match codes::classify(result("resultStatus").unwrap_or_default(), code) {
        Class::Verdict | Class::Review => {
            let transaction_id = answer_text(answer.get("transactionId")).filter(|id| is_transaction_id(id));
            Ok(Initialized {
                transaction_id: transaction_id.ok_or_else(|| lost("transaction_missing"))?,
                transaction_url: None,
                protocol: None,
                client_cfg: answer_text(answer.get("clientCfg")),
            })
        }
        Class::Running => Err(lost(&codes::shown(code))),
        class => Err(class.error(code).map_or_else(|| lost("no_code"), not_opened)),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn prepared(members: Value, beside: Beside<'_>) -> Result<Map<String, Value>, Vec<String>> {
        let Value::Object(members) = members else { panic!("no object") };
        prepare(members, beside)
            .map(|prepared| prepared.members)
            .map_err(|wrong| wrong.into_iter().map(|wrong| wrong.name).collect())
    }

    #[test]
    fn members_are_passed_on_and_what_is_ours_is_refused() {
        let good = json!({"metaInfo": "MOB_H5", "userId": "u", "sceneCode": null, "h5ModeConfig": {"locale": "en"}});
        let kept = prepared(good, Beside { product: Some("connect"), has_return_url: true }).unwrap();
        assert_eq!(Value::Object(kept), json!({"metaInfo": "MOB_H5", "userId": "u", "h5ModeConfig": {"locale": "en"}}));
        let own =
            json!({"metaInfo": "m", "userId": "u", "h5ModeConfig": {"completeCallbackUrl": "https://a", "state": "s"}});
        assert!(prepared(own.clone(), Beside::default()).is_ok());
        let wrong = prepared(own, Beside { has_return_url: true, ..Beside::default() }).unwrap_err();
        assert_eq!(wrong, ["h5ModeConfig.completeCallbackUrl", "h5ModeConfig.state"]);
        let wrong = prepared(json!({"metaInfo": 1, "bizId": "b", "h5ModeConfig": []}), Beside::default()).unwrap_err();
        assert_eq!(wrong, ["metaInfo", "userId", "bizId", "h5ModeConfig"]);
        for product in ["REALID", "nobody"] {
            let good = json!({"metaInfo": "m", "userId": "u"});
            let wrong = prepared(good, Beside { product: Some(product), has_return_url: false }).unwrap_err();
            assert_eq!(wrong, [""], "{product}");
        }
    }

    #[test]
    fn the_body_holds_our_reference_and_the_way_back() {
        let sent = |return_to| {
            let Value::Object(members) = json!({"metaInfo": "m", "h5ModeConfig": {"locale": "en"}}) else { panic!() };
            let request = InitializeRequest { members, merchant_biz_id: "b1".to_owned(), callback: None, return_to };
            serde_json::from_slice::<Value>(&body(&request)).unwrap()
        };
        let url = Url::parse("https://idv.example/returns/z").unwrap();
        assert_eq!(
            sent(Some(ReturnTo::Here { url: url.clone(), state: "s1".to_owned() })),
            json!({"metaInfo": "m", "bizId": "b1", "h5ModeConfig": {
                "locale": "en", "state": "s1",
                "completeCallbackUrl": "https://idv.example/returns/z?state=s1",
                "interruptCallbackUrl": "https://idv.example/returns/z?state=s1",
            }})
        );
        assert_eq!(sent(None), json!({"metaInfo": "m", "bizId": "b1", "h5ModeConfig": {"locale": "en"}}));
        let direct = sent(Some(ReturnTo::Merchant(url)));
        assert_eq!(direct["h5ModeConfig"]["completeCallbackUrl"], "https://idv.example/returns/z");
        assert_eq!(direct["h5ModeConfig"].get("state"), None);
    }

    #[test]
    fn only_what_made_nothing_for_certain_is_not_lost() {
        let ended = |answer: Value| match interpret(answer.to_string().as_bytes()) {
            Ok(made) => format!("made {} {:?}", made.transaction_id, made.client_cfg),
            Err(InitializeError::Refused { code }) => format!("refused {code}"),
            Err(InitializeError::Throttled { code, .. }) => format!("throttled {code}"),
            Err(InitializeError::Account { code, .. }) => format!("account {code}"),
            Err(InitializeError::NotSent { code }) => format!("not sent {code}"),
            Err(InitializeError::Lost { code }) => format!("lost {code}"),
        };
        let of = |status: &str, code: &str| json!({"result": {"resultStatus": status, "resultCode": code}});
        let mut made = of("S", "SUCCESS");
        made["transactionId"] = json!("G1");
        made["clientCfg"] = json!("{\"a\":1}");
        assert_eq!(ended(made.clone()), "made G1 Some(\"{\\\"a\\\":1}\")");
        made["result"]["resultCode"] = json!("BRAND_NEW");
        assert!(ended(made).starts_with("made G1"));
        for (answer, expected) in [
            (of("S", "SUCCESS"), "lost transaction_missing"),
            (of("S", "BRAND_NEW"), "lost transaction_missing"),
            (of("F", "INVALID_ARGUMENT"), "refused INVALID_ARGUMENT"),
            (of("F", "PARAM_MISSING"), "refused PARAM_MISSING"),
            (of("F", "REQUEST_TRAFFIC_EXCEED_LIMIT"), "throttled REQUEST_TRAFFIC_EXCEED_LIMIT"),
            (of("F", "PRODUCT_QUOTA_LIMIT"), "account PRODUCT_QUOTA_LIMIT"),
            (of("F", "SYSTEM_ERROR"), "lost SYSTEM_ERROR"),
            (of("U", "BRAND_NEW"), "lost BRAND_NEW"),
            (of("U", "PROCESSING"), "lost PROCESSING"),
            (json!({}), "lost no_code"),
            (json!([]), "lost unreadable_answer"),
        ] {
            assert_eq!(ended(answer.clone()), expected, "{answer}");
        }
    }

    #[test]
    fn a_call_that_was_not_sent_is_not_lost() {
        let unavailable = |code: &str| ProviderError::Unavailable { code: code.to_owned(), reason: String::new() };
        assert!(matches!(not_called(&unavailable("connect_failed")), InitializeError::NotSent { .. }));
        for code in ["timeout", "connection_broken", "body_too_large", "no_room"] {
            assert!(matches!(not_called(&unavailable(code)), InitializeError::Lost { .. }), "{code}");
        }
        assert!(matches!(not_opened(unavailable("http_302")), InitializeError::NotSent { .. }));
        for code in ["http_500", "html_answer", "signature_missing"] {
            assert!(matches!(not_opened(unavailable(code)), InitializeError::Lost { .. }), "{code}");
        }
    }
}
