//! What tests share.

#[cfg(feature = "simulator")]
pub mod app;
pub mod database;
pub mod environment;
#[cfg(feature = "embedded-postgres")]
pub mod scratch;
