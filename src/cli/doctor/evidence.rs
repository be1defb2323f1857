//! The evidence store: whether it takes an object and gives it up again.

use bytes::Bytes;
use futures_util::stream;

use super::{Finding, told};
use crate::app::evidence_store;
use crate::config::{Config, Environment, EvidenceLocation};
use crate::domain::EvidenceKind;
use crate::entropy::Entropy;
use crate::evidence::{PutError, StorageError};

/// The beginning of a JPEG; as long as what is looked at to know one.
const IMAGE: [u8; 64] = {
    let mut image = [0; 64];
    image[0] = 0xFF;
    image[1] = 0xD8;
    image[2] = 0xFF;
    image
};
const FOLDER: &str = "checkback-doctor";

pub async fn look(config: &Config, environment: &Environment) -> Vec<Finding> {
    let remedy = match &config.evidence.location {
        EvidenceLocation::Directory(folder) => {
            if !folder.exists() {
                // Made now, it would belong to whoever looks.
                return vec![Finding::warning(
                    "evidence",
                    format!("the folder {} is not there", folder.display()),
                    "the service makes it at its first need, if it may write there; better make it now, for its user",
                )];
            }
            "let the service's user write into the folder of evidence.url, and see that the disk is not full or read-only"
        }
        EvidenceLocation::S3(_) => "check the bucket in evidence.url, AWS_REGION, and that the key may put and delete",
        EvidenceLocation::Oss(_) => {
            "check the bucket in evidence.url, OSS_ENDPOINT, and that the key may put and delete"
        }
    };
    let store = match evidence_store(config, environment) {
        Ok(store) => store,
        Err(error) => return vec![Finding::fault("evidence", format!("{error:#}"), "correct it in [evidence]")],
    };
    let object = format!("{FOLDER}/{}", Entropy::system().hex32());
    let image = stream::iter([Ok::<_, StorageError>(Bytes::from_static(&IMAGE))]);
    let written = match store.put(&object, EvidenceKind::FaceImage, image).await {
        Ok(_) => store.delete(&object).await,
        Err(PutError::Source(error) | PutError::Storage(error)) => Err(error),
        Err(error) => return vec![Finding::fault("evidence", told(&error), remedy)],
    };
    // Empty now, unless another one looks at this moment; nothing of the service's is in it.
    drop(store.delete(&format!("{FOLDER}/")).await);
    let mut found = match written {
        Ok(()) => vec![Finding::ok("evidence", "the store takes an object and gives it up again")],
        Err(error) => {
            vec![Finding::fault("evidence", format!("the store cannot be written: {}", told(&error)), remedy)]
        }
    };
    if !config.evidence.recipients.is_empty() && config.evidence.identity_file.is_none() {
        found.push(Finding::ok("evidence", "it is stored encrypted, and cannot be read here (no identity_file)"));
    }
    found
}
