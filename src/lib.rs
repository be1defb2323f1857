//! Checkback collects identity-verification verdicts before the provider deletes them.

pub mod clock;
pub mod config;
pub mod entropy;
pub mod lifecycle;
