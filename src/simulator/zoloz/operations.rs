//! The operations of the API, after a call was let in.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::Zoloz;
use super::access::{Message, Refusal};
use super::commands::ZolozProduct;
use super::outcome::{Answer, usual_message};
use super::transactions::{H5, Transaction};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    AuthenticationTest,
    Initialize(ZolozProduct),
    CheckResult(ZolozProduct),
    DeletePrivacyInfo,
}

pub(super) struct Operation {
    /// The whole path.
    path: &'static str,
    /// As calls are recorded and faults are aimed: the path from the product on.
    pub(super) name: &'static str,
    pub(super) action: Action,
}

const fn operation(path: &'static str, prefix: &'static str, action: Action) -> Operation {
    Operation { path, name: path.split_at(prefix.len()).1, action }
}

const fn v1(path: &'static str, action: Action) -> Operation {
    operation(path, "/api/v1/zoloz/", action)
}

const fn v1a(path: &'static str, action: Action) -> Operation {
    operation(path, "/api/v1a/zoloz/", action)
}

pub(super) const OPERATIONS: [Operation; 14] = [
    v1("/api/v1/zoloz/authentication/test", Action::AuthenticationTest),
    v1("/api/v1/zoloz/connect/initialize", Action::Initialize(ZolozProduct::Connect)),
    v1("/api/v1/zoloz/connect/checkresult", Action::CheckResult(ZolozProduct::Connect)),
    v1("/api/v1/zoloz/realid/initialize", Action::Initialize(ZolozProduct::RealId)),
    v1("/api/v1/zoloz/realid/checkresult", Action::CheckResult(ZolozProduct::RealId)),
    v1a("/api/v1a/zoloz/facecapture/initialize", Action::Initialize(ZolozProduct::FaceCapture)),
    v1a("/api/v1a/zoloz/facecapture/checkresult", Action::CheckResult(ZolozProduct::FaceCapture)),
    v1("/api/v1/zoloz/idrecognition/initialize", Action::Initialize(ZolozProduct::IdRecognition)),
    v1("/api/v1/zoloz/idrecognition/checkresult", Action::CheckResult(ZolozProduct::IdRecognition)),
    v1("/api/v1/zoloz/videoverify/initialize", Action::Initialize(ZolozProduct::VideoVerify)),
    v1("/api/v1/zoloz/videoverify/checkresult", Action::CheckResult(ZolozProduct::VideoVerify)),
    v1("/api/v1/zoloz/uapconnect/initialize", Action::Initialize(ZolozProduct::UapConnect)),
    v1("/api/v1/zoloz/uapconnect/checkverify", Action::CheckResult(ZolozProduct::UapConnect)),
    v1("/api/v1/zoloz/privacyinfo/delete", Action::DeletePrivacyInfo),
];

/// The place in [`OPERATIONS`].
pub(super) fn at(path: &str) -> Option<usize> {
    OPERATIONS.iter().position(|operation| operation.path == path)
}

/// An answer, and with how many bits of AES it is encrypted when not with as many as the request.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) aes_bits: Option<u16>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, aes_bits: None }
    }
}

impl Zoloz {
    pub(super) fn execute(
        &self,
        action: Action,
        client_id: &str,
        message: &Message,
        now: DateTime<Utc>,
    ) -> Result<Reply, Refusal> {
        let members = &message.members;
        match action {
            Action::AuthenticationTest => Ok(Answer::plain("S", Cow::Borrowed("SUCCESS"), &message.text).into()),
            Action::Initialize(product) => self.initialize(product, client_id, members, now),
            Action::CheckResult(product) => self.check_result(product, client_id, members, now),
            Action::DeletePrivacyInfo => {
                let id = required(members, "transactionId", 64)?;
                let deleted = self.transactions.with(id, |transaction| {
                    let own = &*transaction.client_id == client_id;
                    transaction.deleted |= own;
                    own
                });
                if deleted == Some(true) {
                    return Ok(Answer::success().into());
                }
                Err(Refusal::new("TRANSACTION_RECORD_AUTHORITY_ERROR", "the transaction is not one of this merchant"))
            }
        }
    }

    fn initialize(
        &self,
        product: ZolozProduct,
        client_id: &str,
        members: &Map<String, Value>,
        now: DateTime<Utc>,
    ) -> Result<Reply, Refusal> {
        let biz_id = required(members, "bizId", 32)?;
        required(members, "metaInfo", 512)?;
        required(members, "userId", 64)?;
        optional(members, "sceneCode", 64)?;
        optional(members, "operationMode", 32)?;
        let levels = ["CONNECT0001", "CONNECT0002", "CONNECT0003"];
        if product == ZolozProduct::Connect
            && !optional(members, "serviceLevel", 32)?.is_none_or(|level| levels.contains(&level))
        {
            return Err(Refusal::illegal("serviceLevel"));
        }
        if !members.get("productConfig").is_none_or(Value::is_object) {
            return Err(Refusal::illegal("productConfig"));
        }
        let mut transaction = Transaction::new(client_id, biz_id, product);
        transaction.h5 = match members.get("h5ModeConfig") {
            None | Some(Value::Null) => H5::default(),
            Some(Value::Object(config)) => {
                let text = |name| optional(config, name, 2048).map(|text| text.map(str::to_owned));
                H5 {
                    complete: text("completeCallbackUrl")?,
                    interrupt: text("interruptCallbackUrl")?,
                    state: text("state")?,
                }
            }
            Some(_) => return Err(Refusal::illegal("h5ModeConfig")),
        };
        let id = self.new_transaction_id(now);
        // A fresh random id is not taken.
        self.transactions.insert(&id, transaction);
        let mut answer = Answer::success();
        answer.body["transactionId"] = id.into();
        answer.body["clientCfg"] = json!({"simulated": true}).to_string().into();
        Ok(answer.into())
    }

    fn check_result(
        &self,
        product: ZolozProduct,
        client_id: &str,
        members: &Map<String, Value>,
        now: DateTime<Utc>,
    ) -> Result<Reply, Refusal> {
        required(members, "bizId", 32)?;
        let id = required(members, "transactionId", 64)?;
        let images = match optional(members, "isReturnImage", 1)? {
            Some("Y") => true,
            Some("N") => false,
            Some(_) => return Err(Refusal::illegal("isReturnImage")),
            None => product == ZolozProduct::IdRecognition,
        };
        let reply = self.transactions.with(id, |transaction| {
            let own = &*transaction.client_id == client_id && transaction.product == product;
            own.then(|| Reply { answer: transaction.check(now, images), aes_bits: transaction.aes_bits })
        });
        reply.flatten().ok_or_else(|| Refusal::new("INVALID_ARGUMENT", usual_message("INVALID_ARGUMENT")))
    }
}

fn required<'a>(members: &'a Map<String, Value>, name: &str, longest: usize) -> Result<&'a str, Refusal> {
    optional(members, name, longest)?.ok_or_else(|| Refusal::missing(name))
}

/// `None` also for an empty text. Lengths are counted in characters.
fn optional<'a>(members: &'a Map<String, Value>, name: &str, longest: usize) -> Result<Option<&'a str>, Refusal> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= longest => {
            Ok(Some(text.as_str()).filter(|t| !t.is_empty()))
        }
        Some(_) => Err(Refusal::illegal(name)),
    }
}
