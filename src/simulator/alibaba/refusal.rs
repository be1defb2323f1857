//! The provider's codes and the answer that carries one.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::simulator::faults::ErrorForm;

/// Why a call is refused, in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: Cow<'static, str>,
    pub(super) message: Cow<'static, str>,
    pub(super) retry_after_ms: Option<u64>,
}

impl Refusal {
    /// With the documented status and text of `code`.
    pub(super) fn new(code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        let (status, message) = documented(&code);
        Self { status, code, message: message.into(), retry_after_ms: None }
    }

    pub(super) fn saying(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// With another status or text, where given.
    pub(super) fn adjusted(mut self, status: Option<u16>, message: Option<&str>) -> Self {
        self.status = status.unwrap_or(self.status);
        if let Some(message) = message {
            self.message = message.to_owned().into();
        }
        self
    }

    pub(super) fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    pub(super) fn missing(parameter: &str) -> Self {
        Self::new("MissingParameter").saying(format!("{parameter} is mandatory for this action."))
    }

    pub(super) fn invalid(parameter: &str) -> Self {
        Self::new("InvalidParameter").saying(format!("The specified parameter {parameter} is not valid."))
    }

    pub(super) fn into_response(self, request_id: &str, host: &str, form: ErrorForm) -> Response<Body> {
        let Self { status, code, message, retry_after_ms } = self;
        let recommend =
            format!("https://api.alibabacloud.com/troubleshoot?q={code}&product=Cloudauth-intl&requestId={request_id}");
        let (content_type, body) = match form {
            ErrorForm::Json => {
                let body = json!({"RequestId": request_id, "HostId": host, "Code": code, "Message": message, "Recommend": recommend});
                (JSON, body.to_string())
            }
            ErrorForm::LowerCase => {
                let body = json!({"requestId": request_id, "hostId": host, "code": code, "message": message, "recommend": recommend});
                (JSON, body.to_string())
            }
            ErrorForm::Xml => {
                let [code, message, host] = [&*code, &*message, host].map(xml_text);
                let body = format!(
                    "<?xml version='1.0' encoding='UTF-8'?><Error><RequestId>{request_id}</RequestId><HostId>{host}</HostId><Code>{code}</Code><Message>{message}</Message></Error>"
                );
                ("text/xml;charset=utf-8", body)
            }
        };
        let mut response = respond(status, content_type, body);
        if let Some(ms) = retry_after_ms {
            response.headers_mut().insert("x-acs-retry-after", HeaderValue::from(ms));
        }
        response
    }
}

pub(super) const JSON: &str = "application/json;charset=utf-8";

pub(super) fn respond(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The status and text of a code. Codes that are not in the table are answered with 400.
fn documented(code: &str) -> (u16, &'static str) {
    match code {
        "MissingParameter" => (400, "A mandatory parameter is missing."),
        "InvalidParameter" => (400, "A parameter is not valid."),
        "TransactionIdInvalid" => (400, "The TransactionId is invalid."),
        "ProcessNotCompleted" => (404, "The authentication process is not completed."),
        "Forbidden.RAMUserAccessDenied" => (403, "The RAM user has no permission for this operation."),
        "Forbidden.AccountAccessDenied" => (403, "The service is not activated, or a bill is overdue."),
        "Throttling.Api" => (403, "Request was denied due to api flow control."),
        "Throttling.User" => (400, "Request was denied due to user flow control."),
        "Throttling" => (400, "Request was denied due to request throttling."),
        "InternalError" => (500, "The request processing has failed due to some unknown error."),
        "ServiceUnavailable" => (503, "The request has failed due to a temporary failure of the server."),
        "InvalidAccessKeyId.NotFound" => (404, "Specified access key is not found."),
        "InvalidAccessKeyId.Inactive" => (400, "Specified access key is disabled."),
        "InvalidSecurityToken" => (400, "Specified SecurityToken does not match the access key."),
        "SignatureDoesNotMatch" => (400, "Specified signature does not match our calculation."),
        "InvalidTimeStamp.Expired" => (400, "Specified time stamp or date value is expired."),
        "InvalidTimeStamp.Format" => (400, "Specified time stamp or date value is not well formatted."),
        "SignatureNonceUsed" => (400, "Specified signature nonce was used already."),
        "InvalidAction.NotFound" => (404, "Specified api is not found, please check your url and method."),
        "InvalidVersion" => (400, "Specified parameter Version is not valid."),
        "UnsupportedHTTPMethod" => (405, "This http method is not supported."),
        _ => (400, "The request was refused."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_documentation() {
        let statuses: Vec<_> =
            ["TransactionIdInvalid", "ProcessNotCompleted", "Throttling.Api", "Throttling.User", "InternalError"]
                .map(|code| Refusal::new(code).status)
                .into();
        assert_eq!(statuses, [400, 404, 403, 400, 500]);
    }

    #[test]
    fn a_wait_is_sent_as_header_in_milliseconds() {
        let response = Refusal::new("Throttling.User").retry_after(250).into_response("R", "h", ErrorForm::Json);
        assert_eq!(response.headers()["x-acs-retry-after"], "250");
    }
}
