//! What the service talks about: ids, states, findings and schedules. No I/O, and nothing else of ours.

pub mod event;
pub mod evidence;
pub mod finding;
pub mod history;
pub mod json;
pub mod retention;
pub mod return_state;
pub mod risk;
pub mod schedule;
pub mod secret;
pub mod verification;

pub use event::{Event, EventType};
pub use evidence::{BadImage, EvidenceKind, EvidenceState, FoundEvidence, FoundImage, VideoLink};
pub use finding::{Finding, Flow, Outcome, ProviderError, Trouble};
pub use history::HistoryKind;
pub use retention::{Keep, RetentionClass};
pub use return_state::ReturnKey;
pub use secret::TokenHash;
pub use verification::{FinalStatus, Status, VerificationId};
