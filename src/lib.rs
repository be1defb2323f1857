//! Checkback collects identity-verification verdicts before the provider deletes them.

pub mod clock;
pub mod entropy;
pub mod lifecycle;
#[cfg(feature = "simulator")]
pub mod simulator;
