//! What control may ask for at ZOLOZ, in-process and over HTTP. Unknown members are refused, so that a typing mistake
//! in a test does not pass as a test.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The products, as their paths name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ZolozProduct {
    #[default]
    Connect,
    RealId,
    FaceCapture,
    IdRecognition,
    VideoVerify,
    UapConnect,
}

/// What checkresult says about a finished process. What is not given fits the rest; with nothing given it is a success.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ZolozOutcome {
    /// `SUCCESS`, `NOT_SAME_PERSON`, `PROCESSING`, `UNABLE_GET_IMAGE`, `SYSTEM_ERROR` or any other text.
    pub result_code: Option<String>,
    pub result_status: Option<String>,
    pub result_message: Option<String>,
    /// The product's own verdict: `connectResult`, `ekycResult`, `faceCaptureResult`, … An empty one is left out.
    #[serde(alias = "connect_result")]
    pub product_result: Option<String>,
    pub face_score: Option<f64>,
    pub face_attack: Option<bool>,
    /// An empty one is left out, with its description.
    pub deeper_result: Option<String>,
    pub deeper_result_description: Option<String>,
    /// The size of each image before Base64; two of 3 MB make an answer of 8 MB.
    pub image_bytes: Option<u32>,
    /// Members of the answer, put over the usual ones at any depth; null takes one away.
    pub patch: Map<String, Value>,
}

/// A transaction to make, as if initialize had been called for it. Every member may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZolozTransaction {
    pub product: ZolozProduct,
    /// Whose it is; the first client by default.
    pub client_id: Option<String>,
    /// A chosen id in place of a random one.
    pub transaction_id: Option<String>,
    pub biz_id: Option<String>,
    #[serde(flatten)]
    pub outcome: ZolozOutcome,
    /// What checkresult answers after the completion, one a call; the last one stays. In place of the outcome.
    pub answers: Vec<ZolozOutcome>,
    /// The person has already finished. True when there are `answers`, else false.
    pub completed: Option<bool>,
    /// So many calls of checkresult after the completion still answer that it is being worked on.
    pub processing_calls: u32,
    /// The code of checkresult once the data were deleted: `INVALID_ARGUMENT` by default; with `SUCCESS` the status
    /// stays and the data are gone.
    pub gone_code: Option<String>,
    /// Encrypted answers use AES with so many bits, 128 or 256; by default with as many as the request.
    pub aes_bits: Option<u16>,
    /// The `h5ModeConfig` of initialize.
    pub complete_callback_url: Option<String>,
    pub interrupt_callback_url: Option<String>,
    pub state: Option<String>,
}

/// The person finishes. With nothing given the outcome is the one chosen at creation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZolozComplete {
    #[serde(flatten)]
    pub outcome: ZolozOutcome,
    pub processing_calls: Option<u32>,
    /// The process breaks off with this sub-code of the browser (such as `Z5055`, the person left): there is no result.
    pub interrupted: Option<String>,
    /// Give the URL to which the browser is sent. The provider itself calls nobody.
    pub redirect: bool,
}

/// What a completion set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CompletedZoloz {
    pub transaction_id: String,
    pub result_code: Option<String>,
    pub product_result: Option<String>,
    pub completed_at: Option<DateTime<Utc>>,
    /// Where the browser goes, when that was asked for.
    pub redirect_url: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZolozView {
    pub provider: &'static str,
    pub transaction_id: String,
    pub client_id: String,
    pub biz_id: String,
    pub product: ZolozProduct,
    pub result_code: Option<String>,
    pub product_result: Option<String>,
    pub completed_at: Option<DateTime<Utc>>,
    pub interrupted: Option<String>,
    /// The data were deleted on demand.
    pub deleted: bool,
}
