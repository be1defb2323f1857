//! The tests that need more than one module, in one binary.

mod alibaba;
mod vectors;
