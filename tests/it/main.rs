//! The one test binary: everything that needs more than a pure function.

mod alibaba;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod cli;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod demo;
#[cfg(feature = "simulator")]
mod path;
// It looks at the server's processes in /proc.
#[cfg(all(feature = "embedded-postgres", target_os = "linux"))]
mod private_postgres;
#[cfg(all(feature = "embedded-postgres", feature = "simulator"))]
mod readme;
mod support;
mod vectors;
