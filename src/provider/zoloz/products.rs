//! The products of ZOLOZ whose result can be asked for: how they are named, where, and with which request.
//!
//! A registration names its product; without one it is Connect. Asking must be repeatable, because a lost answer is
//! asked for again: a product whose result is given only once is refused. What the answers mean is left to
//! `outcome.rs`.

use serde_json::{Value, json};

use crate::provider::CheckRequest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Connect,
    RealId,
    FaceCapture,
    IdRecognition,
    FaceCompare,
    Nfc,
    VideoVerify,
    ConnectV2,
}

const UNKNOWN: &str = "is no product of ZOLOZ that is known here: give CONNECT, REALID, FACECAPTURE, IDRECOGNITION, \
                       FACECOMPARE, NFC, VIDEOVERIFY or CONNECTV2; without it, it is CONNECT";
const ONCE: &str = "cannot be LOCATION: ZOLOZ gives its result only once, so that one lost answer would lose it for \
                    good. Ask for it yourself";

impl Product {
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::RealId,
        Self::FaceCapture,
        Self::IdRecognition,
        Self::FaceCompare,
        Self::Nfc,
        Self::VideoVerify,
        Self::ConnectV2,
    ];

    /// The product of that name, whatever its case, `-` and `_`; or what is wrong with the name.
    pub fn of(name: Option<&str>) -> Result<Self, &'static str> {
        let Some(name) = name else { return Ok(Self::Connect) };
        let plain: String =
            name.chars().filter(|next| !matches!(next, '-' | '_')).map(|next| next.to_ascii_uppercase()).collect();
        match &*plain {
            "UAPCONNECT" => Ok(Self::ConnectV2),
            "LOCATION" => Err(ONCE),
            _ => Self::ALL.into_iter().find(|product| product.name() == plain).ok_or(UNKNOWN),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::RealId => "REALID",
            Self::FaceCapture => "FACECAPTURE",
            Self::IdRecognition => "IDRECOGNITION",
            Self::FaceCompare => "FACECOMPARE",
            Self::Nfc => "NFC",
            Self::VideoVerify => "VIDEOVERIFY",
            Self::ConnectV2 => "CONNECTV2",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Self::Connect => "/api/v1/zoloz/connect/checkresult",
            Self::RealId => "/api/v1/zoloz/realid/checkresult",
            Self::FaceCapture => "/api/v1a/zoloz/facecapture/checkresult",
            Self::IdRecognition => "/api/v1/zoloz/idrecognition/checkresult",
            // Its other form compares at once and leaves nothing to ask for.
            Self::FaceCompare => "/api/v1/zoloz/facecompare/asynccheckresult",
            Self::Nfc => "/api/v1/zoloz/nfc/checkresult",
            Self::VideoVerify => "/api/v1/zoloz/videoverify/checkresult",
            Self::ConnectV2 => "/api/v1/zoloz/uapconnect/checkverify",
        }
    }

    /// The member of the answer that holds the result.
    pub fn result_member(self) -> &'static str {
        match self {
            Self::Connect => "connectResult",
            Self::RealId => "ekycResult",
            Self::FaceCapture => "faceCaptureResult",
            Self::IdRecognition => "recognitionResult",
            Self::FaceCompare => "samePerson",
            Self::Nfc => "nfcResult",
            Self::VideoVerify => "videoVerifyResult",
            Self::ConnectV2 => "verifyStatus",
        }
    }

    /// The body of the request, before signing and encryption. Whether there are `images` in the answer can be asked for
    /// with some products only.
    pub fn request(self, request: &CheckRequest, images: bool) -> Vec<u8> {
        let mut body = json!({ "bizId": request.merchant_biz_id, "transactionId": request.transaction_id });
        if matches!(self, Self::RealId | Self::FaceCapture | Self::IdRecognition) {
            body["isReturnImage"] = Value::from(if images { "Y" } else { "N" });
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_known_by_its_usual_spellings() {
        for (name, product) in [
            (None, Product::Connect),
            (Some("CONNECT"), Product::Connect),
            (Some("connect"), Product::Connect),
            (Some("REALID"), Product::RealId),
            (Some("Real-ID"), Product::RealId),
            (Some("real_id"), Product::RealId),
            (Some("faceCapture"), Product::FaceCapture),
            (Some("ID_RECOGNITION"), Product::IdRecognition),
            (Some("face-compare"), Product::FaceCompare),
            (Some("nfc"), Product::Nfc),
            (Some("VideoVerify"), Product::VideoVerify),
            (Some("Connect-V2"), Product::ConnectV2),
            (Some("uapconnect"), Product::ConnectV2),
        ] {
            assert_eq!(Product::of(name), Ok(product), "{name:?}");
        }
    }

    #[test]
    fn an_unknown_product_is_refused_with_the_known_names_and_location_with_the_reason() {
        for name in ["", "FACE_LIVENESS", "CONNECT3", "faceprotect"] {
            let message = Product::of(Some(name)).unwrap_err();
            for product in Product::ALL {
                assert!(message.contains(product.name()), "{message}");
            }
        }
        assert!(Product::of(Some("Location")).unwrap_err().contains("only once"));
    }

    #[test]
    fn the_request_holds_the_ids_and_whether_images_are_wanted() {
        let request =
            CheckRequest { transaction_id: "G\"1".to_owned(), merchant_biz_id: "b1".to_owned(), product: None };
        for (product, images) in Product::ALL.into_iter().flat_map(|product| [(product, true), (product, false)]) {
            let mut expected = json!({"bizId": "b1", "transactionId": "G\"1"});
            if ["REALID", "FACECAPTURE", "IDRECOGNITION"].contains(&product.name()) {
                expected["isReturnImage"] = json!(if images { "Y" } else { "N" });
            }
            let body: Value = serde_json::from_slice(&product.request(&request, images)).unwrap();
            assert_eq!(body, expected, "{product:?}");
            assert!(product.path().starts_with("/api/v1"));
        }
    }
}
