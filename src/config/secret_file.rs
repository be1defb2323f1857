//! Files that hold a secret, so that containers can mount them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Secrets are short; a longer file is a mistake.
const LONGEST: u64 = 64 * 1024;

/// A file that a secret was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// Full name of the secret, without `_file`.
    pub key: String,
    pub path: String,
}

/// The file's text without newlines at its end. The error tells what is wrong with the file.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // A named pipe would be waited for.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err("is longer than 64 KiB".into());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.to_owned()) }
}
