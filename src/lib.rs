//! Checkback collects identity-verification verdicts before the provider deletes them.

pub mod clock;
pub mod domain;
pub mod entropy;
pub mod lifecycle;
pub mod provider;
pub mod store;
