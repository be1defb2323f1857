//! Events: what webhooks tell, and in which words. The body is thin: whoever wants more asks the API with its key.

use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{FinalStatus, VerificationId};

/// The type of an event, as the configuration and the body name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    Passed,
    Failed,
    Review,
    Void,
    Expired,
    Unresolvable,
    /// Something of its evidence is stored, and nothing is pending any more.
    EvidenceStored,
    Erased,
}

impl EventType {
    pub const ALL: [Self; 8] = [
        Self::Passed,
        Self::Failed,
        Self::Review,
        Self::Void,
        Self::Expired,
        Self::Unresolvable,
        Self::EvidenceStored,
        Self::Erased,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "verification.passed",
            Self::Failed => "verification.failed",
            Self::Review => "verification.review",
            Self::Void => "verification.void",
            Self::Expired => "verification.expired",
            Self::Unresolvable => "verification.unresolvable",
            Self::EvidenceStored => "verification.evidence_stored",
            Self::Erased => "verification.erased",
        }
    }
}

impl From<FinalStatus> for EventType {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Passed => Self::Passed,
            FinalStatus::Failed => Self::Failed,
            FinalStatus::Review => Self::Review,
            FinalStatus::Void => Self::Void,
            FinalStatus::Expired => Self::Expired,
            FinalStatus::Unresolvable => Self::Unresolvable,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown type of event")]
pub struct UnknownEventType;

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or(UnknownEventType)
    }
}

/// Something that happened to a verification, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: Uuid,
    pub r#type: EventType,
    pub verification: VerificationId,
    pub account: String,
    pub merchant_biz_id: String,
    /// At that moment.
    pub status: String,
    pub revision: i32,
    pub occurred_at: DateTime<Utc>,
}

/// As it is sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Default, Serialize)]
struct Data<'a> {
    id: Option<String>,
    account: Option<&'a str>,
    merchant_biz_id: Option<&'a str>,
    status: Option<&'a str>,
    revision: Option<i32>,
}

impl Body<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }
}

impl Event {
    /// What is sent, the same at each attempt.
    pub fn body(&self) -> String {
        let data = Data {
            id: Some(self.verification.to_string()),
            account: Some(&self.account),
            merchant_biz_id: Some(&self.merchant_biz_id),
            status: Some(&self.status),
            revision: Some(self.revision),
        };
        Body { r#type: self.r#type.as_str(), timestamp: timestamp(self.occurred_at), data }.text()
    }
}

/// What shows that an endpoint is reached and checks signatures. It tells of no verification.
pub fn test_body(at: DateTime<Utc>) -> String {
    Body { r#type: "checkback.test", timestamp: timestamp(at), data: Data::default() }.text()
}

fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_and_every_end_of_a_verification_has_one() {
        for known in EventType::ALL {
            assert_eq!(known.as_str().parse::<EventType>().unwrap(), known);
        }
        for status in FinalStatus::ALL {
            assert_eq!(EventType::from(status).as_str(), format!("verification.{status}"));
        }
        assert!("verification.waiting".parse::<EventType>().is_err());
    }

    #[test]
    fn the_body_holds_what_the_receiver_needs_to_ask_and_nothing_else() {
        let event = Event {
            id: Uuid::from_u128(1),
            r#type: EventType::Passed,
            verification: VerificationId(Uuid::from_u128(2)),
            account: "alibaba-sg".into(),
            merchant_biz_id: "b".into(),
            status: "passed".into(),
            revision: 1,
            occurred_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        };
        let expected = concat!(
            r#"{"type":"verification.passed","timestamp":"2027-01-15T08:00:00.000000Z","data":"#,
            r#"{"id":"00000000-0000-0000-0000-000000000002","account":"alibaba-sg","merchant_biz_id":"b","#,
            r#""status":"passed","revision":1}}"#,
        );
        assert_eq!(event.body(), expected);
        let test: serde_json::Value = serde_json::from_str(&test_body(event.occurred_at)).unwrap();
        assert_eq!(test["data"].as_object().unwrap().len(), 5);
        assert!(test["data"].as_object().unwrap().values().all(serde_json::Value::is_null));
    }
}
