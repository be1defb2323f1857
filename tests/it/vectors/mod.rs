//! Signature vectors: what the providers' own SDKs signed, compared with what the shipped signers sign.
//!
//! Beside `tests/vectors/`, all JSON files in the folder named by `CHECKBACK_EXTRA_VECTORS` are checked. A file is
//! recognised by its shape; one that is not recognised fails the test, so that none is skipped unnoticed.

#![cfg(test)]

mod zoloz;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkback::provider::alibaba::credentials::Credentials;
use checkback::provider::alibaba::sign::{Acs3Request, Parameter, Signer, encoded, timestamp};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Acs3Vector {
    name: String,
    method: String,
    access_key_id: String,
    access_key_secret: String,
    security_token: Option<String>,
    action: String,
    version: String,
    date: DateTime<Utc>,
    signature_nonce: String,
    endpoint: String,
    query_params: BTreeMap<String, String>,
    canonical_query_string: String,
    content_type: Option<String>,
    body: Option<String>,
    body_sha256: String,
    headers_to_sign: BTreeMap<String, String>,
    signed_headers: String,
    canonical_request: String,
    string_to_sign: String,
    signature: String,
    authorization: String,
}

#[derive(Deserialize)]
struct RpcVector {
    name: String,
    client: Option<String>,
    method: String,
    action: String,
    version: String,
    access_key_id: String,
    access_key_secret: String,
    security_token: Option<String>,
    timestamp: DateTime<Utc>,
    signature_nonce: String,
    query_params: BTreeMap<String, String>,
    #[serde(default)]
    body_params: BTreeMap<String, String>,
    all_signed_params: BTreeMap<String, String>,
    string_to_sign: String,
    signature: String,
    sdk_body: Option<String>,
}

enum Vector {
    Acs3(Box<Acs3Vector>),
    Rpc(Box<RpcVector>),
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<Parameter<'_>> {
    map.iter().map(|(name, value)| (&**name, &**value)).collect()
}

fn signer(id: &str, secret: &str, token: Option<&str>) -> Signer {
    Signer::new(Credentials::new(id.to_owned(), secret.into(), token.map(Into::into)).unwrap())
}

fn check_acs3(vector: &Acs3Vector) {
    let name = &vector.name;
    let ours = ["host", "content-type"];
    let theirs: Vec<Parameter<'_>> = pairs(&vector.headers_to_sign)
        .into_iter()
        .filter(|(name, _)| {
            !ours.contains(name) && (!name.starts_with("x-acs-") || *name == "x-acs-credentials-provider")
        })
        .collect();
    let signed =
        signer(&vector.access_key_id, &vector.access_key_secret, vector.security_token.as_deref()).acs3(&Acs3Request {
            method: &vector.method,
            host: &vector.endpoint,
            action: &vector.action,
            version: &vector.version,
            time: vector.date,
            nonce: &vector.signature_nonce,
            query: &pairs(&vector.query_params),
            content_type: vector.content_type.as_deref(),
            body: vector.body.as_deref().unwrap_or_default().as_bytes(),
            headers: &theirs,
        });
    assert_eq!(signed.query, vector.canonical_query_string, "{name}: query");
    assert_eq!(signed.body_sha256, vector.body_sha256, "{name}: hash of the body");
    assert_eq!(signed.canonical_request, vector.canonical_request, "{name}: canonical request");
    assert_eq!(signed.string_to_sign, vector.string_to_sign, "{name}: string to sign");
    assert_eq!(signed.signature, vector.signature, "{name}: signature");
    assert_eq!(signed.authorization, vector.authorization, "{name}: Authorization");
    assert!(signed.authorization.contains(&format!("SignedHeaders={},", vector.signed_headers)), "{name}: headers");
    assert_eq!(vector.headers_to_sign["x-acs-date"], signed.date, "{name}: date");
}

fn check_rpc(vector: &RpcVector) {
    let name = &vector.name;
    let key = signer(&vector.access_key_id, &vector.access_key_secret, vector.security_token.as_deref());
    let date = timestamp(vector.timestamp);
    let mut parameters = key.rpc_parameters(&vector.action, &vector.version, &date, &vector.signature_nonce);
    // The SDKs spell the format differently, and the older one adds an empty parameter; the rest is the same for all.
    for parameter in parameters.iter_mut().filter(|(name, _)| *name == "Format") {
        parameter.1 = vector.all_signed_params.get("Format").map_or("", |format| format);
    }
    let adds_type = match vector.client.as_deref() {
        Some("core") => true,
        Some("tea") => false,
        _ => vector.all_signed_params.contains_key("SignatureType"),
    };
    if adds_type {
        parameters.push(("SignatureType", ""));
    }
    parameters.extend(pairs(&vector.query_params));
    parameters.extend(pairs(&vector.body_params));
    let mut sorted = parameters.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, pairs(&vector.all_signed_params), "{name}: parameters");

    let signed = key.rpc(&vector.method, &parameters);
    assert_eq!(signed.string_to_sign, vector.string_to_sign, "{name}: string to sign");
    assert_eq!(signed.signature, vector.signature, "{name}: signature");
    if let Some(body) = &vector.sdk_body {
        let decoded = |body: &str| -> BTreeMap<String, String> {
            let url = url::Url::parse(&format!("http://localhost/?{body}")).unwrap();
            url.query_pairs().into_owned().collect()
        };
        assert_eq!(decoded(&encoded(&pairs(&vector.body_params))), decoded(body), "{name}: form");
    }
}

/// A file holds `{"vectors": […]}`, a list, or one vector.
fn vectors_of(content: Value) -> Result<Vec<Vector>, String> {
    let list = match content {
        Value::Object(mut object) if object.contains_key("vectors") => object["vectors"].take(),
        other @ Value::Object(_) => Value::Array(vec![other]),
        other => other,
    };
    let Value::Array(list) = list else { return Err("holds no list of vectors".to_owned()) };
    if list.is_empty() {
        return Err("holds no vector".to_owned());
    }
    list.into_iter().map(vector_of).collect()
}

fn vector_of(value: Value) -> Result<Vector, String> {
    let parsed = if value.get("headers_to_sign").is_some() && value.get("canonical_request").is_some() {
        serde_json::from_value(value).map(Vector::Acs3)
    } else if value.get("all_signed_params").is_some() && value.get("string_to_sign").is_some() {
        serde_json::from_value(value).map(Vector::Rpc)
    } else {
        return Err("holds a vector of unknown shape".to_owned());
    };
    parsed.map_err(|error| format!("holds a vector that cannot be read: {error}"))
}

/// How many vectors of a file were checked and met.
fn check_file(content: Value) -> Result<usize, String> {
    if content.get("cases").is_some() {
        let file: zoloz::File =
            serde_json::from_value(content).map_err(|error| format!("holds cases that cannot be read: {error}"))?;
        return if file.cases.is_empty() { Err("holds no case".to_owned()) } else { Ok(file.check()) };
    }
    let vectors = vectors_of(content)?;
    for vector in &vectors {
        match vector {
            Vector::Acs3(vector) => check_acs3(vector),
            Vector::Rpc(vector) => check_rpc(vector),
        }
    }
    Ok(vectors.len())
}

fn check_folder(folder: &Path) -> BTreeMap<String, usize> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut checked = BTreeMap::new();
    for file in files {
        let content = serde_json::from_slice(&std::fs::read(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let met = check_file(content).unwrap_or_else(|problem| panic!("{} {problem}", file.display()));
        println!("{}: {met} vectors checked", file.display());
        checked.insert(file.file_name().unwrap().to_string_lossy().into_owned(), met);
    }
    checked
}

#[test]
fn the_shipped_signers_sign_what_the_providers_sdks_sign() {
    let checked = check_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"));
    assert_eq!(checked.get("alibaba-acs3.json"), Some(&14));
    assert_eq!(checked.get("alibaba-rpc-v1.json"), Some(&24));
    assert_eq!(checked.get("zoloz.json"), Some(&19));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the folder is an argument of the test run, not configuration")]
fn extra_vectors_are_checked_too() {
    let Some(folder) = std::env::var_os("CHECKBACK_EXTRA_VECTORS") else { return };
    let checked = check_folder(Path::new(&folder));
    assert!(!checked.is_empty(), "CHECKBACK_EXTRA_VECTORS names a folder without JSON files");
}

#[test]
fn a_file_of_unknown_shape_is_refused() {
    for content in [
        serde_json::json!({"vectors": []}),
        serde_json::json!({"vectors": [{"name": "x", "signature": "y"}]}),
        serde_json::json!({"vectors": {"name": "x"}}),
        serde_json::json!([1]),
        serde_json::json!("text"),
        serde_json::json!({"keys": {}, "cases": []}),
        serde_json::json!({"keys": {}, "cases": [{"id": "x", "kind": "unheard_of", "input": {}, "expected": {}}]}),
    ] {
        assert!(check_file(content.clone()).is_err(), "{content}");
    }
}
