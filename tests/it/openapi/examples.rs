//! Every example of a request is sent, and every answer is what the document says: status, type, headers, and a body
//! with nothing that its schema does not know.

use std::time::Duration;

use checkback::simulator::{Complete, CreateTransaction};
use jsonschema::Validator;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{Operation, operations, parsed};
use crate::evidence::with_images;
use crate::support::app::{KEY, Setup, TestApp};

/// `schema` within the document, with schemas closed: a member that is not documented is a fault. Those that others are
/// made of stay open.
fn validator(document: &Value, schema: &Value) -> Validator {
    let mut components = document["components"].clone();
    let parts: Vec<Value> =
        members(&components["schemas"]).filter_map(|schema| schema["allOf"].as_array()).flatten().cloned().collect();
    for (name, schema) in components["schemas"].as_object_mut().unwrap() {
        let is_part = parts.contains(&json!({ "$ref": format!("#/components/schemas/{name}") }));
        if !is_part && schema["properties"].is_object() && schema["additionalProperties"].is_null() {
            schema["additionalProperties"] = false.into();
        }
    }
    let whole = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "components": components,
        "allOf": [schema] });
    jsonschema::options().should_validate_formats(true).build(&whole).unwrap()
}

fn members(object: &Value) -> impl Iterator<Item = &Value> {
    object.as_object().unwrap().values()
}

fn check(document: &Value, schema: &Value, value: &Value, what: &str) {
    let validator = validator(document, schema);
    let faults: Vec<_> =
        validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "{what}: {faults:?} in {value}");
}

/// Checks an answer against the document; returns its status.
pub async fn check_answer(document: &Value, operation: &Operation, answer: Response) -> u16 {
    let status = answer.status().as_u16();
    let what = format!("{} answered with {status}", operation.id());
    let documented = &operation.spec["responses"][status.to_string()];
    assert!(documented.is_object(), "{what}, which the document does not have: {}", answer.text().await.unwrap());
    for name in documented["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        assert!(status >= 400 || answer.headers().contains_key(name), "{what} without the header {name}");
    }
    let Some(content) = documented["content"].as_object() else {
        assert!(answer.bytes().await.unwrap().is_empty(), "{what} and a body that is not in the document");
        return status;
    };
    let kind = answer.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let schema = &content.get(&kind).unwrap_or_else(|| panic!("{what} of the type {kind}"))["schema"];
    if kind.ends_with("json") {
        check(document, schema, &answer.json().await.unwrap(), &what);
    }
    status
}

/// A verification that is passed, with its image stored.
async fn passed(test: &TestApp) -> String {
    let (transaction, id) = test.begin(CreateTransaction::default(), json!({})).await;
    test.simulator.complete(&transaction, Complete::default()).await.unwrap();
    test.collect(&id).await;
    test.final_verification(&id).await;
    test.until("the image is stored", async || {
        let body = test.verification(&id).await;
        let evidence = body["evidence"].as_array().unwrap();
        evidence.iter().any(|one| one["kind"] == "face_image" && one["state"] == "stored").then_some(())
    })
    .await;
    id
}

async fn recheck(test: &TestApp) -> String {
    let answer = test.post("/rechecks", &json!({ "filter": { "status": "expired" } })).await;
    answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_example_of_a_request_works_and_its_answer_fits() {
    let document = parsed();
    // The endpoint that examples name; nobody listens there.
    let endpoint = "[[webhooks]]\nname = \"merchant-app\"\nurl = \"http://127.0.0.1:9/idv\"\n\
        secrets = [\"whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\"]\n";
    let test = TestApp::with(Setup { more: endpoint.to_owned(), ..with_images() }).await;
    let mut operations = operations(&document);
    // The examples of callbacks are about the transaction that the example of registering registers.
    operations.sort_by_key(|operation| operation.id() != "register_verification");
    for operation in &operations {
        for body in operation.bodies() {
            let mut path = operation.path.clone();
            for parameter in operation.parameters("path") {
                let value = match (
                    parameter["example"].as_str(),
                    path.starts_with("/verifications/"),
                    path.starts_with("/rechecks/"),
                ) {
                    (Some(example), ..) => example.to_owned(),
                    // What is final is not asked about again.
                    (None, true, _) if operation.id() == "collect_verification" => {
                        test.begin(CreateTransaction::default(), json!({})).await.1
                    }
                    (None, true, _) => passed(&test).await,
                    (None, _, true) => recheck(&test).await,
                    _ => panic!("{} needs an example of {}", operation.id(), parameter["name"]),
                };
                path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &value);
            }
            let query = operation.parameters("query").into_iter().filter(|parameter| !parameter["example"].is_null());
            let query: Vec<_> = query
                .map(|parameter| {
                    let (name, value) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
                    format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                })
                .collect();
            let path = format!("{path}?{}", query.join("&"));
            let method: Method = operation.method.parse().unwrap();
            let url = if operation.is_public() { test.public(&path) } else { test.internal(&path) };
            let mut request = test.http.request(method, url).timeout(Duration::from_mins(1));
            if !operation.spec["x-required-scope"].is_null() {
                request = request.bearer_auth(KEY);
            }
            if let Some(body) = &body {
                let schema = &operation.spec["requestBody"]["content"]["application/json"]["schema"];
                check(&document, schema, body, operation.id());
                request = request.json(body);
            }
            let status = check_answer(&document, operation, request.send().await.unwrap()).await;
            // A way back cannot be made up.
            let expected = if operation.id() == "go_back" { 400..401 } else { 200..400 };
            assert!(expected.contains(&status), "{} with {body:?}: {status}", operation.id());
        }
    }
}

#[test]
fn the_examples_of_problems_fit_their_schemas() {
    let document = parsed();
    let mut seen = 0;
    for operation in operations(&document) {
        for (status, response) in operation.spec["responses"].as_object().unwrap() {
            let content = &response["content"]["application/problem+json"];
            for code in content["examples"].as_object().into_iter().flatten().map(|(code, _)| code) {
                let example = &document["components"]["examples"][code]["value"];
                assert_eq!(example["status"].to_string(), *status, "{code}");
                check(&document, &content["schema"], example, code);
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Else the tests above would show nothing.
#[test]
fn an_unknown_member_or_a_wrong_word_is_found() {
    let document = parsed();
    let alive = json!({ "$ref": "#/components/schemas/Alive" });
    for (value, fits) in [
        (json!({ "status": "alive" }), true),
        (json!({ "status": "alive", "since": 1 }), false),
        (json!({ "status": "dead" }), false),
        (json!({}), false),
    ] {
        assert_eq!(validator(&document, &alive).is_valid(&value), fits, "{value}");
    }
}
