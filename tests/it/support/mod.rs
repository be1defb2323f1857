//! What tests share.

pub mod database;
pub mod environment;
#[cfg(feature = "embedded-postgres")]
pub mod scratch;
