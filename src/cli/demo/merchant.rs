//! The merchant's server: registers over the API and reads from it, as any app would.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::board::{Board, checks};
use super::cases::Case;
use crate::provider::http::{HttpClient, HttpSettings};

/// Where the browser goes in the end. Nobody goes there.
const AFTER: &str = "https://shop.example/after-check";

pub struct Merchant {
    client: HttpClient,
    base: String,
    headers: HeaderMap,
}

/// What is said at a registration.
pub struct Registration<'a> {
    pub account: &'a str,
    pub transaction_id: &'a str,
    pub merchant_biz_id: Option<&'a str>,
    pub callback_token: Option<&'a str>,
    pub product: &'a str,
    pub expect_video: bool,
    pub case: &'a str,
}

/// What the service says of a transaction that it started.
pub struct Started {
    /// Of the verification.
    pub id: String,
    pub transaction_id: String,
}

impl Merchant {
    /// `base`: where the API is, without a slash at its end.
    pub fn new(base: String, key: &str) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {key}"))?;
        authorization.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, authorization), (header::CONTENT_TYPE, json)]);
        Ok(Self { client: HttpClient::new(HttpSettings::default())?, base, headers })
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base).parse()?;
        let answer = self.client.send(method, url, self.headers.clone(), body).await?;
        let body: Value = serde_json::from_slice(&answer.body).context("the answer is no JSON")?;
        if !answer.status.is_success() {
            bail!("{} {}", answer.status, body["detail"].as_str().unwrap_or_default());
        }
        Ok(body)
    }

    /// Registers and returns the id of the verification.
    pub async fn register(&self, registration: &Registration<'_>) -> anyhow::Result<String> {
        let mut body = json!({
            "account": registration.account,
            "transaction_id": registration.transaction_id,
            "product": registration.product,
            "expect_video": registration.expect_video,
            "metadata": { "case": registration.case },
        });
        for (name, value) in
            [("merchant_biz_id", registration.merchant_biz_id), ("callback_token", registration.callback_token)]
        {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
        let body = self.ask(Method::POST, "/verifications", body.to_string().into()).await?;
        text(&body, "id")
    }

    /// Lets the service start a transaction: `initialize` is for the provider.
    pub async fn start(&self, account: &str, initialize: Value, case: &str) -> anyhow::Result<Started> {
        let body = json!({
            "account": account,
            "initialize": initialize,
            "return_url": AFTER,
            "metadata": { "case": case },
        });
        let body = self.ask(Method::POST, "/verifications", body.to_string().into()).await?;
        Ok(Started { id: text(&body, "id")?, transaction_id: text(&body, "transaction_id")? })
    }

    /// Says that the person is done. Gives the status of the answer.
    pub async fn collect(&self, id: &str) -> anyhow::Result<u16> {
        let url = format!("{}/verifications/{id}/collect", self.base).parse()?;
        let answer = self.client.send(Method::POST, url, self.headers.clone(), Bytes::new()).await?;
        Ok(answer.status.as_u16())
    }

    /// The person's browser, which knows no key, goes where the provider sends it. Gives the status of the answer;
    /// an error when it does not lead back to the merchant.
    pub async fn browse(&self, url: &str) -> anyhow::Result<u16> {
        let answer = self.client.send(Method::GET, url.parse()?, HeaderMap::new(), Bytes::new()).await?;
        if answer.header("location") != Some(AFTER) {
            bail!("{}: the browser was not sent back to the merchant", answer.status);
        }
        Ok(answer.status.as_u16())
    }

    /// Reads onto the board what is wrong with the accounts.
    pub async fn look_at_accounts(&self, board: &Board, cases: &[Case]) -> anyhow::Result<()> {
        let ready = self.ask(Method::GET, "/readyz", Bytes::new()).await?;
        for (n, case) in cases.iter().enumerate() {
            let trouble = ready["accounts"][case.account]["reason"].as_str().map(str::to_owned);
            board.see(n, |seen| seen.trouble = trouble);
        }
        Ok(())
    }

    /// Reads what is new of all cases onto the board. A service that is being restarted has no news.
    pub async fn look(&self, board: &Board, versions: &mut Vec<Value>) -> anyhow::Result<()> {
        let list = self.ask(Method::GET, "/verifications?limit=200", Bytes::new()).await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        versions.resize(board.state().seen.len(), Value::Null);
        for (case, seen) in board.state().seen.iter().enumerate() {
            let Some(id) = &seen.id else { continue };
            let Some(body) = items.iter().find(|item| item["id"] == id.as_str()) else { continue };
            let version = json!([body["status"], body["attempts"], body["revision"], body["evidence"]]);
            if versions[case] == version {
                continue;
            }
            let history = self.ask(Method::GET, &format!("/verifications/{id}/history"), Bytes::new()).await?;
            board.see(case, |seen| seen.update(body, checks(&history)));
            versions[case] = version;
        }
        Ok(())
    }
}

fn text(body: &Value, name: &str) -> anyhow::Result<String> {
    body[name].as_str().map(str::to_owned).with_context(|| format!("the answer has no {name}"))
}
