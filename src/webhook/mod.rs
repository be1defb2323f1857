//! Sending one event to one endpoint: its signatures, the addresses that are refused, the client, and what is kept of
//! the answer. When to send, and what an end means for the delivery, is up to the caller.

mod address;
mod client;
mod excerpt;
mod sign;

pub use client::{ClientError, Delivered, DeliveryError, Message, Sent, WebhookClient};
pub use sign::{BadSecret, SigningKey};
