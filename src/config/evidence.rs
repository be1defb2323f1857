//! `[evidence]`: where images and videos are kept.

use std::path::{Path, PathBuf};

use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use url::Url;

use super::reader::{Outcome, Reader};
use super::schema::{Field, Shape, field};

pub(super) const FIELDS: &[Field] =
    &[field("url", Shape::Value), field("recipients", Shape::Values), field("identity_file", Shape::Value)];

#[derive(Clone, Debug)]
pub struct Evidence {
    pub location: EvidenceLocation,
    /// age public keys; when there are any, evidence is stored encrypted to all of them.
    pub recipients: Vec<String>,
    pub identity_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvidenceLocation {
    Directory(PathBuf),
    /// `s3://bucket/prefix`
    S3(Url),
    /// `oss://bucket/prefix`
    Oss(Url),
}

impl Evidence {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let location = reader.parsed("url", "file:./checkback-evidence", location);
        let recipients = reader.texts("recipients", &[], recipient);
        let identity_file = reader.parsed("identity_file", "", |text| match text {
            "" => Ok(None),
            text if Path::new(text).is_file() => Ok(Some(PathBuf::from(text))),
            _ => Err("names no readable file"),
        });
        Ok(Self { location: location?, recipients: recipients?, identity_file: identity_file? })
    }
}

fn location(text: &str) -> Result<EvidenceLocation, &'static str> {
    if let Some(path) = text.strip_prefix("file:") {
        // file:./relative, file:/absolute and file:///absolute
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            Err("names no folder after file:")
        } else {
            Ok(EvidenceLocation::Directory(PathBuf::from(path)))
        };
    }
    let wrong = "must begin with file:, s3: or oss:, such as file:./checkback-evidence or s3://bucket/prefix";
    let url = Url::parse(text).map_err(|_| wrong)?;
    if !matches!(url.scheme(), "s3" | "oss") {
        return Err(wrong);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("must name a bucket, as in s3://bucket/prefix");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must be a bucket and a prefix alone; credentials come from the environment");
    }
    Ok(if url.scheme() == "s3" { EvidenceLocation::S3(url) } else { EvidenceLocation::Oss(url) })
}

/// An X25519 key: Bech32 (not Bech32m) of 32 bytes after `age`, as <https://age-encryption.org/v1> has it.
fn recipient(text: &str) -> Result<String, String> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err("is a secret key; give the public key (age1…) and treat this one as known to others".into());
    }
    if !text.starts_with("age1") {
        return Err("must be an age public key (age1…)".into());
    }
    let read = CheckedHrpstring::new::<Bech32>(text);
    let is_key = read.is_ok_and(|read| read.hrp().as_str() == "age" && read.byte_iter().count() == 32);
    if is_key && text.bytes().all(|letter| !letter.is_ascii_uppercase()) {
        Ok(text.to_owned())
    } else {
        Err("is no whole age public key (age1… and 58 more characters, as age-keygen -y prints it); copy it again"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{config, problems};

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn folders_and_buckets_are_told_apart() {
        assert_eq!(location("file:./here"), Ok(EvidenceLocation::Directory("./here".into())));
        assert_eq!(location("file:///var/lib"), Ok(EvidenceLocation::Directory("/var/lib".into())));
        assert!(matches!(location("s3://bucket/prefix"), Ok(EvidenceLocation::S3(_))));
        assert!(matches!(location("oss://bucket"), Ok(EvidenceLocation::Oss(_))));
        for wrong in
            ["", "file:", "s3:", "s3:bucket", "gs://bucket", "/var/lib", "s3://id:planted@bucket", "s3://b?key=x"]
        {
            assert!(location(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn recipients_are_age_public_keys() {
        let evidence = config(&format!("[evidence]\nrecipients = ['{RECIPIENT}']")).evidence;
        assert_eq!(evidence.recipients, [RECIPIENT]);
        let found = problems("[evidence]\nrecipients = ['AGE-SECRET-KEY-1PLANTED']");
        assert!(found.contains("evidence.recipients (file test.toml): item 0 is a secret key"), "{found}");
        assert!(!found.contains("PLANTED"), "{found}");
    }

    #[test]
    fn the_identity_file_must_exist() {
        assert!(problems("[evidence]\nidentity_file = '/does/not/exist'").contains("names no readable file"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let evidence = config(&format!("[evidence]\nidentity_file = '{path}'")).evidence;
        assert_eq!(evidence.identity_file.as_deref(), Some(file.path()));
    }
}
