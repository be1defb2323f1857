//! ZOLOZ (Connect and its sibling products), as a [`Provider`].
//!
//! One attempt is one call, because calls are budgeted; whoever asked decides about the next one. What an answer
//! says about a verification is read only after its signature was verified.

pub mod answer;
pub mod cipher;
pub mod codes;
pub mod gateway;
pub mod keys;
pub mod sign;

pub use answer::Auth;
pub use gateway::{Gateway, ZolozSettings};
