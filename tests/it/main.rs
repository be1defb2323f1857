//! The one test binary: everything that needs more than a pure function.

mod alibaba;
#[cfg(feature = "simulator")]
mod api;
#[cfg(feature = "simulator")]
mod callbacks;
#[cfg(feature = "simulator")]
mod path;
// It looks at the server's processes in /proc.
#[cfg(all(feature = "embedded-postgres", target_os = "linux"))]
mod private_postgres;
mod support;
mod vectors;
