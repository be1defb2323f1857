//! ZOLOZ (Connect and its sibling products), as a [`Provider`].
//!
//! One attempt is one call, because calls are budgeted; whoever asked decides about the next one. What an answer
//! says about a verification is read only after its signature was verified.

pub mod answer;
pub mod cipher;
pub mod codes;
pub mod gateway;
pub mod keys;
pub mod outcome;
pub mod products;
pub mod sign;
pub mod wire;

pub use answer::Auth;
pub use gateway::{Gateway, ZolozSettings};
