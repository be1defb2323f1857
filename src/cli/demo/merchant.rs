//! The merchant's server: registers over the API and reads from it, as any app would.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::board::{Board, checks};
use crate::provider::http::{HttpClient, HttpSettings};

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
    pub case: &'a str,
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
            "product": "FACE_LIVENESS",
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
        body["id"].as_str().map(str::to_owned).context("the answer has no id")
    }

    /// Reads what is new of all cases onto the board. A service that is being restarted has no news.
    pub async fn look(&self, board: &Board, versions: &mut Vec<Value>) -> anyhow::Result<()> {
        let list = self.ask(Method::GET, "/verifications?limit=200", Bytes::new()).await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        versions.resize(board.state().seen.len(), Value::Null);
        for (case, seen) in board.state().seen.iter().enumerate() {
            let Some(id) = &seen.id else { continue };
            let Some(body) = items.iter().find(|item| item["id"] == id.as_str()) else { continue };
            let version = json!([body["status"], body["attempts"], body["revision"]]);
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
