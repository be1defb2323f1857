//! `authentication/test`: the provider's own check of a connection. It sends back what it got, for every product alike.

use bytes::Bytes;
use serde_json::{Value, json};

use super::ZolozClient;
use super::codes;
use crate::domain::ProviderError;

const PATH: &str = "/api/v1/zoloz/authentication/test";

impl ZolozClient {
    pub(super) async fn test_authentication(&self) -> Result<(), ProviderError> {
        let body = json!({ "message": "checkback" }).to_string();
        interpret(&self.gateway.call(PATH, Bytes::from(body)).await?)
    }
}

/// The answer was verified already, and a refusal of what was sent is no refusal of who sent it.
fn interpret(body: &[u8]) -> Result<(), ProviderError> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let result = |name: &str| answer["result"][name].as_str().unwrap_or_default();
    match codes::classify(result("resultStatus"), result("resultCode")).error(result("resultCode")) {
        None | Some(ProviderError::Refused { .. }) => Ok(()),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_of_the_account_and_faults_are_told() {
        let said = |status: &str, code: &str| {
            let body = json!({"result": {"resultStatus": status, "resultCode": code}}).to_string();
            interpret(body.as_bytes()).map_err(|error| error.code().to_owned())
        };
        assert_eq!((said("S", "SUCCESS"), said("F", "PARAM_ILLEGAL")), (Ok(()), Ok(())));
        for (status, code) in [("F", "OAUTH_FAIL"), ("F", "SIGNATURE_INVALID"), ("U", "SYSTEM_ERROR")] {
            assert_eq!(said(status, code), Err(code.to_owned()));
        }
        assert!(interpret(b"{}").is_err());
    }
}
