//! Every operation of the document, with every kind of key: it is refused exactly when the document says so.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Operation, operations, parsed};
use crate::support::app::{ACCOUNT, Setup, TestApp};

const SCOPES: [&str; 5] = ["register", "read", "evidence", "operate", "erase"];
const REVOKED: &str = "key-that-was-taken-out";

fn key(name: &str, key: &str, scopes: &[&str]) -> String {
    let digest = hex::encode(Sha256::digest(key));
    format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nscopes = {scopes:?}\n")
}

fn only(scope: &str) -> String {
    format!("key-with-{scope}-alone")
}

/// The URL of an operation about something that is there.
async fn url(test: &TestApp, operation: &Operation, is_public: bool) -> String {
    let mut path = operation.path.clone();
    if path.contains("{id}") {
        let id = if path.starts_with("/rechecks") {
            let answer = test.post("/rechecks", &json!({ "filter": { "status": "expired" } })).await;
            answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
        } else {
            test.begin(checkback::simulator::CreateTransaction::default(), json!({})).await.1
        };
        path = path.replace("{id}", &id);
    }
    path = path.replace("{account}", ACCOUNT);
    for parameter in operation.parameters("path") {
        let place = format!("{{{}}}", parameter["name"].as_str().unwrap());
        path = path.replace(&place, parameter["example"].as_str().unwrap_or("x"));
    }
    if is_public { test.public(&path) } else { test.internal(&path) }
}

#[tokio::test]
async fn every_operation_is_refused_exactly_for_the_keys_that_the_document_says() {
    let keys: String = SCOPES.iter().map(|scope| key(scope, &only(scope), &[scope])).collect();
    let revoked = key("revoked", REVOKED, &SCOPES);
    let mut test = TestApp::with(Setup { more: keys + &revoked, ..Setup::default() }).await;
    let with_it = test.http.get(test.internal("/verifications")).bearer_auth(REVOKED).send().await.unwrap();
    assert_eq!(with_it.status(), 200);
    let without = test.config.replace(&revoked, "");
    assert_ne!(without, test.config);
    test.config = without;
    test.restart().await;

    let mut kinds: Vec<(String, Option<String>)> =
        SCOPES.iter().map(|scope| ((*scope).to_owned(), Some(format!("Bearer {}", only(scope))))).collect();
    kinds.push(("no key".to_owned(), None));
    kinds.push(("a wrong key".to_owned(), Some("Bearer nobody-knows-this-key".to_owned())));
    kinds.push(("an empty key".to_owned(), Some("Bearer ".to_owned())));
    kinds.push(("another scheme".to_owned(), Some(format!("Basic {}", only("read")))));
    kinds.push(("a revoked key".to_owned(), Some(format!("Bearer {REVOKED}"))));

    let (mut wrong, mut tried) = (Vec::new(), 0);
    for operation in operations(&parsed()) {
        let listeners: &[bool] = match operation.spec["x-listener"].as_str().unwrap() {
            "both" => &[false, true],
            "public" => &[true],
            _ => &[false],
        };
        for is_public in listeners {
            let url = url(&test, &operation, *is_public).await;
            let body = operation.bodies().remove(0);
            for (kind, header) in &kinds {
                let method: Method = operation.method.parse().unwrap();
                let mut request = test.http.request(method, &url);
                if let Some(header) = header {
                    request = request.header("authorization", header);
                }
                if let Some(body) = &body {
                    request = request.json(body);
                }
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                // A callback's 401 is about its own token.
                let refused = Some(status).filter(|status| [401, 403].contains(status) && !operation.is_public());
                let expected = match operation.spec["x-required-scope"].as_str() {
                    None => None,
                    Some(scope) if scope == kind => None,
                    Some(_) if SCOPES.contains(&kind.as_str()) => Some(403),
                    Some(_) => Some(401),
                };
                if refused != expected || status >= 500 {
                    wrong.push(format!("{} with {kind}: {status}, not {expected:?}", operation.id()));
                }
                tried += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried >= 200, "{tried}");
}
