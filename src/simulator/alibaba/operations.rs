//! The operations of the API, after a call was let in.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Map, json};

use super::Alibaba;
use super::outcome::{Priority, Product, Wish};
use super::refusal::Refusal;
use super::request::ApiRequest;
use super::transactions::{Checked, Deleted, Transaction};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Initialize,
    InitializeV2,
    CheckResult,
    CheckVerifyLog,
    DeleteVerifyResult,
    KeepaliveIntl,
}

impl Operation {
    pub(super) const ALL: [Self; 6] = [
        Self::Initialize,
        Self::InitializeV2,
        Self::CheckResult,
        Self::CheckVerifyLog,
        Self::DeleteVerifyResult,
        Self::KeepaliveIntl,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initialize => "Initialize",
            Self::InitializeV2 => "InitializeV2",
            Self::CheckResult => "CheckResult",
            Self::CheckVerifyLog => "CheckVerifyLog",
            Self::DeleteVerifyResult => "DeleteVerifyResult",
            Self::KeepaliveIntl => "KeepaliveIntl",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// An answer: status and the whole body.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

/// One call that was let in.
pub(super) struct Context<'a> {
    pub(super) request: &'a ApiRequest<'a>,
    pub(super) request_id: &'a str,
    pub(super) now: DateTime<Utc>,
}

impl Alibaba {
    pub(super) fn execute(&self, operation: Operation, context: &Context<'_>) -> Result<Reply, Refusal> {
        match operation {
            Operation::Initialize | Operation::InitializeV2 => self.initialize(context),
            Operation::CheckResult => self.check_result(context),
            Operation::CheckVerifyLog => self.check_verify_log(context),
            Operation::DeleteVerifyResult => self.delete_verify_result(context),
            Operation::KeepaliveIntl => Ok(success(context, &json!({"Result": "ok"}))),
        }
    }

    fn initialize(&self, context: &Context<'_>) -> Result<Reply, Refusal> {
        let request = context.request;
        let product_code = mandatory(request, "ProductCode")?;
        let merchant_biz_id = mandatory(request, "MerchantBizId")?;
        mandatory(request, "MetaInfo")?;
        mandatory(request, "MerchantUserId")?;
        if merchant_biz_id.len() > 32 || !merchant_biz_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Refusal::invalid("MerchantBizId"));
        }
        let scene_ok = |scene: &str| scene.len() <= 10 && scene.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !request.parameter("SceneCode").is_none_or(scene_ok) {
            return Err(Refusal::invalid("SceneCode"));
        }
        let doc_video = yes_or_no(request, "DocVideo")?;
        let priority = match request.parameter("ProcedurePriority") {
            None => None,
            Some("keep") => Some(Priority::Keep),
            Some("url") => Some(Priority::Url),
            Some(_) => return Err(Refusal::invalid("ProcedurePriority")),
        };
        let callback_url = request.parameter("CallbackUrl");
        if !callback_url.is_none_or(|url| self.may_call_back(url)) {
            return Err(Refusal::invalid("CallbackUrl"));
        }
        let product = Product::of(product_code);
        let nothing = Map::new();
        let wish = Wish { passed: None, sub_code: None, scores: &nothing, ext: &nothing };
        let outcome = self.outcomes.choose(&wish, product, priority);
        let mut transaction = Transaction::new(merchant_biz_id, product_code, product, outcome);
        transaction.priority = priority;
        transaction.callback_url = callback_url.map(Into::into);
        transaction.return_url = request.parameter("ReturnUrl").map(Into::into);
        transaction.callback_token = request.parameter("CallbackToken").map(SecretString::from);
        transaction.doc_video = doc_video;
        let id = self.new_transaction_id();
        // A fresh random id is not taken.
        self.transactions.insert(&id, transaction);
        let result = json!({
            "TransactionId": id,
            "TransactionUrl": format!("http://{}/_sim/transactions/{id}", request.host()),
            "Protocol": "simulated",
            "ClientCfg": json!({"simulated": true}).to_string(),
        });
        Ok(success(context, &result))
    }

    fn check_result(&self, context: &Context<'_>) -> Result<Reply, Refusal> {
        let request = context.request;
        let id = mandatory(request, "TransactionId")?;
        mandatory(request, "MerchantBizId")?;
        let images = yes_or_no(request, "IsReturnImage")?;
        let checked = self
            .transactions
            .with(id, |transaction| transaction.check(context.now, images, &self.pending))
            .unwrap_or_else(|| Err(Refusal::new("TransactionIdInvalid")))?;
        match checked {
            Checked::Text { status, body } => Ok(Reply { status, body: String::from(&*body) }),
            Checked::Outcome { outcome, images, video } => {
                let url = video.then(|| self.videos.url(request.host(), id, context.now));
                let mut body = String::with_capacity(1024);
                body.push_str(r#"{"RequestId":""#);
                body.push_str(context.request_id);
                body.push_str(r#"","Code":"Success","Message":"success","#);
                outcome.write(&mut body, images, url.as_deref());
                body.push('}');
                Ok(Reply { status: 200, body })
            }
        }
    }

    fn check_verify_log(&self, context: &Context<'_>) -> Result<Reply, Refusal> {
        let id = mandatory(context.request, "TransactionId")?;
        mandatory(context.request, "MerchantBizId")?;
        let result = self.transactions.with(id, |transaction| {
            if transaction.completed_at.is_some() {
                let passed = &*transaction.outcome.passed;
                let code = if passed == "Y" { "1000" } else { "1001" };
                return json!({"VerifyStatus": "0", "VerifyErrorCode": code, "Passed": passed,
                    "SubCode": transaction.outcome.sub_code, "InterruptPageEn": "", "LogInfo": [], "LogInfoEn": []});
            }
            match transaction.interrupted() {
                Some(code) => json!({"VerifyStatus": "1", "VerifyErrorCode": code, "InterruptPageEn": "FACE",
                    "LogInfo": [], "LogInfoEn": []}),
                None => json!({"VerifyStatus": "2", "LogInfo": [], "LogInfoEn": []}),
            }
        });
        Ok(success(context, &result.ok_or_else(|| Refusal::new("TransactionIdInvalid"))?))
    }

    fn delete_verify_result(&self, context: &Context<'_>) -> Result<Reply, Refusal> {
        let request = context.request;
        let id = mandatory(request, "TransactionId")?;
        let after_query = yes_or_no(request, "DeleteAfterQuery")?;
        let what = request.parameter("DeleteType").unwrap_or("All");
        if !["Img", "Text", "All"].contains(&what) {
            return Err(Refusal::invalid("DeleteType"));
        }
        let deleted = self.transactions.with(id, |transaction| {
            if transaction.completed_at.is_none() || (after_query && !transaction.shown) {
                return false;
            }
            match what {
                "Img" => transaction.deleted = transaction.deleted.max(Deleted::Images),
                "Text" => transaction.outcome = Arc::new(transaction.outcome.bare()),
                _ => transaction.deleted = Deleted::All,
            }
            true
        });
        let deleted = deleted.ok_or_else(|| Refusal::new("TransactionIdInvalid"))?;
        Ok(success(context, &json!({"DeleteResult": if deleted { "Y" } else { "N" }, "TransactionId": id})))
    }
}

fn mandatory<'a>(request: &'a ApiRequest<'_>, name: &str) -> Result<&'a str, Refusal> {
    request.parameter(name).ok_or_else(|| Refusal::missing(name))
}

fn yes_or_no(request: &ApiRequest<'_>, name: &str) -> Result<bool, Refusal> {
    match request.parameter(name) {
        None | Some("N") => Ok(false),
        Some("Y") => Ok(true),
        Some(_) => Err(Refusal::invalid(name)),
    }
}

fn success(context: &Context<'_>, result: &serde_json::Value) -> Reply {
    let body = json!({"RequestId": context.request_id, "Code": "Success", "Message": "success", "Result": result});
    Reply { status: 200, body: body.to_string() }
}
