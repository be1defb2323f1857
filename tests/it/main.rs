//! The one test binary: everything that needs more than a pure function.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test the way a test does")]

mod alerts;
mod alibaba;
#[cfg(feature = "simulator")]
mod api;
mod api_document;
mod architecture;
#[cfg(feature = "simulator")]
mod at_risk;
mod buckets;
mod budget;
#[cfg(feature = "simulator")]
mod callbacks;
#[cfg(feature = "simulator")]
mod canary;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod cli;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod client;
#[cfg(feature = "simulator")]
mod codes;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod console;
mod credentials;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod demo;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod doctor;
#[cfg(feature = "simulator")]
mod erasure;
#[cfg(feature = "simulator")]
mod events;
#[cfg(feature = "simulator")]
mod evidence;
mod hinted;
#[cfg(feature = "simulator")]
mod initialize;
#[cfg(all(feature = "simulator", unix))]
mod kill;
mod large_answers;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod logs;
#[cfg(feature = "simulator")]
mod metrics;
#[cfg(feature = "simulator")]
mod openapi;
mod pages;
#[cfg(feature = "simulator")]
mod path;
#[cfg(feature = "simulator")]
mod pgbouncer;
mod plans;
// It looks at the server's processes in /proc.
#[cfg(all(feature = "embedded-postgres", target_os = "linux"))]
mod private_postgres;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod readme;
#[cfg(feature = "simulator")]
mod rechecks;
#[cfg(feature = "simulator")]
mod reconcile;
#[cfg(feature = "simulator")]
mod replicas;
#[cfg(feature = "simulator")]
mod retention;
#[cfg(feature = "simulator")]
mod returns;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod rolling;
#[cfg(feature = "simulator")]
mod rotation;
#[cfg(feature = "simulator")]
mod schedule;
mod support;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod tail;
#[cfg(feature = "simulator")]
mod thirty_days;
#[cfg(feature = "simulator")]
mod traces;
mod vectors;
#[cfg(feature = "simulator")]
mod webhooks;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod why;
mod zoloz;
