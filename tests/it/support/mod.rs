//! What tests share.

#[cfg(feature = "simulator")]
pub mod app;
pub mod database;
pub mod environment;
#[cfg(feature = "simulator")]
pub mod planted;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
pub mod process;
#[cfg(feature = "simulator")]
pub mod receiver;
#[cfg(feature = "embedded-postgres")]
pub mod scratch;
