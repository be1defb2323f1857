//! ZOLOZ, as a [`Provider`](super::Provider).

pub mod codes;
pub mod outcome;
pub mod products;
pub mod wire;
