//! Checkback collects identity-verification verdicts before the provider deletes them.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod evidence;
pub mod http;
pub mod jobs;
pub mod lifecycle;
#[cfg(feature = "embedded-postgres")]
pub mod private_postgres;
pub mod provider;
pub mod rotation;
pub mod service;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod webhook;
