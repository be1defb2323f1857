//! Callbacks to the merchant: built as the provider's page describes them, sent once, never repeated by themselves.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Url, header};

use super::Alibaba;
use super::commands::{CallbackMethod, CallbackSpelling};
use crate::simulator::state::SimulatorState;

impl Alibaba {
    /// `https`, or `http` to this machine unless all of `http` was allowed.
    pub(super) fn may_call_back(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        match url.scheme() {
            "https" => true,
            "http" => self.allow_http_callbacks || url.host_str().is_some_and(is_loopback),
            _ => false,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What is sent, and how often.
pub(super) struct Plan {
    pub(super) url: Url,
    pub(super) transaction_id: String,
    /// Secret; goes into the request and nowhere else.
    pub(super) token: Option<String>,
    pub(super) passed: Option<String>,
    pub(super) sub_code: Option<String>,
    pub(super) method: CallbackMethod,
    pub(super) spelling: CallbackSpelling,
    pub(super) copies: u32,
    pub(super) delay: Duration,
}

impl Plan {
    fn fields(&self) -> Vec<(&'static str, &str)> {
        let [token, id, passed, sub_code] = match self.spelling {
            CallbackSpelling::Table => ["callbackToken", "transactionId", "passed", "subCode"],
            CallbackSpelling::Prose => ["CallbackToken", "transactionId", "passed", "subcode"],
            CallbackSpelling::Lower => ["callbacktoken", "transactionid", "passed", "subcode"],
            CallbackSpelling::Upper => ["CALLBACKTOKEN", "TRANSACTIONID", "PASSED", "SUBCODE"],
        };
        let fields = [
            (token, self.token.as_deref()),
            (id, Some(&*self.transaction_id)),
            (passed, self.passed.as_deref()),
            (sub_code, self.sub_code.as_deref()),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn request(&self, client: &Client) -> reqwest::RequestBuilder {
        match self.method {
            CallbackMethod::Get => {
                let mut url = self.url.clone();
                url.query_pairs_mut().extend_pairs(self.fields());
                client.get(url)
            }
            CallbackMethod::Post => {
                let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(self.fields()).finish();
                let form = "application/x-www-form-urlencoded";
                client.post(self.url.clone()).header(header::CONTENT_TYPE, form).body(body)
            }
        }
    }

    /// Sends all copies at once and gives the status of each answer, 0 for none.
    pub(super) async fn send(self, state: Arc<SimulatorState>) -> Vec<u16> {
        tokio::time::sleep(self.delay).await;
        let one = async || {
            let recording =
                state.calls.begin(state.clock.real_now(), Cow::Borrowed("Callback"), Some(&self.transaction_id));
            let (status, code) = match self.request(&state.callbacks).send().await {
                Ok(response) => (response.status().as_u16(), "Sent"),
                Err(error) if error.is_timeout() => (0, "TimedOut"),
                Err(_) => (0, "NotReached"),
            };
            recording.finish(status, Cow::Borrowed(code));
            status
        };
        join_all((0..self.copies).map(|_| one())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(spelling: CallbackSpelling, method: CallbackMethod) -> Plan {
        Plan {
            url: Url::parse("https://shop.example/cb?shop=1").unwrap(),
            transaction_id: "hksb1".into(),
            token: Some("a+b/c=".into()),
            passed: Some("Y".into()),
            sub_code: Some("200".into()),
            method,
            spelling,
            copies: 1,
            delay: Duration::ZERO,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "builds requests that are never sent")]
    fn built(plan: &Plan) -> reqwest::Request {
        plan.request(&Client::new()).build().unwrap()
    }

    #[test]
    fn parameters_are_appended_to_the_query_that_is_there() {
        let request = built(&plan(CallbackSpelling::Table, CallbackMethod::Get));
        let wanted =
            "https://shop.example/cb?shop=1&callbackToken=a%2Bb%2Fc%3D&transactionId=hksb1&passed=Y&subCode=200";
        assert_eq!(request.url().as_str(), wanted);
    }

    #[test]
    fn a_form_carries_the_same_names() {
        let request = built(&plan(CallbackSpelling::Upper, CallbackMethod::Post));
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap();
        assert_eq!(body, b"CALLBACKTOKEN=a%2Bb%2Fc%3D&TRANSACTIONID=hksb1&PASSED=Y&SUBCODE=200");
        assert_eq!(request.url().as_str(), "https://shop.example/cb?shop=1");
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        assert!(["localhost", "127.0.0.1", "127.9.9.9", "[::1]"].into_iter().all(is_loopback));
        assert!(!["10.0.0.1", "localhost.example", "[::2]", "shop.example"].into_iter().any(is_loopback));
    }
}
