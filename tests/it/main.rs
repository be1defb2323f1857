<<<<<<< HEAD
//! The one test binary: everything that needs more than a pure function.

// It looks at the server's processes in /proc.
#[cfg(all(feature = "embedded-postgres", target_os = "linux"))]
mod private_postgres;
mod support;
=======
//! The tests that need more than one module, in one binary.

mod alibaba;
mod vectors;
>>>>>>> alibaba
