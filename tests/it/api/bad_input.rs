//! Whatever comes in, the answer is never a 5xx.
