//! What every operation has in common is written once, here, into the document: who serves it, the key it needs, the
//! request's id, and its refusals.
//!
//! Handlers say it in short: `x-listener` (`internal` when absent), `x-required-scope`, `x-problems` (the codes beside
//! those of every operation), `x-optional-body`, and `x-enum` at a parameter.

use serde_json::{Map, Value, json};

use super::problems;

/// Any request may be answered so: its head came too slowly, or the service has a defect.
const ALWAYS: [&str; 2] = ["body_too_slow", "internal"];
/// Where a key is needed.
const KEYED: [&str; 2] = ["unauthorized", "scope_missing"];

pub fn complete(document: &mut Value) {
    for methods in members(&mut document["paths"]).values_mut() {
        for operation in members(methods).values_mut() {
            complete_operation(members(operation));
        }
    }
    document["components"]["examples"] = problems::examples();
    document["components"]["headers"] = json!({
        "RequestId": {
            "description": "The request's `X-Request-Id` of 1 to 128 printable characters, else one that was made.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
        },
        "RetryAfter": { "description": "Seconds.", "schema": { "type": "integer", "minimum": 1 } },
        "Challenge": { "description": "`Bearer`", "schema": { "type": "string" } },
    });
}

fn members(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("documents, paths and operations are objects")
}

fn complete_operation(operation: &mut Map<String, Value>) {
    let listener = operation.entry("x-listener").or_insert_with(|| "internal".into()).as_str().map(str::to_owned);
    let listener = listener.unwrap_or_default();
    let internal = json!({ "url": "http://127.0.0.1:8081", "description": "The internal listener." });
    let public = json!({ "url": "http://127.0.0.1:8080", "description": "The public listener." });
    let servers = match listener.as_str() {
        "public" => json!([public]),
        "both" => json!([internal, public]),
        _ => json!([internal]),
    };
    operation.insert("servers".to_owned(), servers);
    let scope = operation.entry("x-required-scope").or_insert(Value::Null).clone();
    let security = if scope.is_null() { json!([]) } else { json!([{ "key": [scope] }]) };
    operation.insert("security".to_owned(), security);
    let is_optional = operation.remove("x-optional-body").is_some();
    if let Some(body) = operation.get_mut("requestBody") {
        body["required"] = (!is_optional).into();
    }
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        complete_parameter(members(parameter));
    }
    let own = operation.remove("x-problems").unwrap_or_default();
    let own = own.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut codes: Vec<&str> = own.iter().filter_map(Value::as_str).chain(ALWAYS).collect();
    if !scope.is_null() {
        codes.extend(KEYED);
    }
    if let Some(Value::String(description)) = operation.get_mut("description") {
        *description = unwrapped(description);
    }
    let responses = members(&mut operation["responses"]);
    for response in responses.values_mut() {
        complete_response(response);
    }
    for (status, response) in problems::responses(&codes) {
        let merged = responses.entry(status).or_insert_with(|| json!({ "description": "" }));
        let described = format!("{} {}", merged["description"].as_str().unwrap_or_default(), response.description);
        merged["description"] = described.trim().into();
        merged["content"]["application/problem+json"] = response.content;
        for (name, header) in response.headers {
            merged["headers"][name] = header;
        }
    }
    // The answer to a head that came too slowly is written before there is a request.
    for (_, response) in responses.iter_mut().filter(|(status, _)| listener != "public" && *status != "408") {
        response["headers"]["X-Request-Id"] = json!({ "$ref": "#/components/headers/RequestId" });
    }
}

/// Paragraphs without the line breaks of the source.
fn unwrapped(description: &str) -> String {
    let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Bytes have no schema, and the library spells the name of an operation in another way than the standard.
fn complete_response(response: &mut Value) {
    if let Some(contents) = response.get_mut("content").and_then(Value::as_object_mut) {
        for (_, content) in
            contents.iter_mut().filter(|(kind, _)| kind.starts_with("image/") || kind.starts_with("video/"))
        {
            *content = json!({});
        }
    }
    if let Some(links) = response.get_mut("links").and_then(Value::as_object_mut) {
        for link in links.values_mut().map(members) {
            if let Some(name) = link.remove("operation_id") {
                link.insert("operationId".to_owned(), name);
            }
        }
    }
}

/// An absent value is no null; words come from the code.
fn complete_parameter(parameter: &mut Map<String, Value>) {
    let words = parameter.remove("x-enum");
    if parameter["in"] == "query" && parameter["required"] != true {
        parameter.insert("allowEmptyValue".to_owned(), true.into());
    }
    let schema = members(&mut parameter["schema"]);
    if let Some([kind, Value::String(null)]) = schema.get("type").and_then(Value::as_array).map(Vec::as_slice)
        && null == "null"
    {
        let kind = kind.clone();
        schema.insert("type".to_owned(), kind);
    }
    if let Some(words) = words {
        schema.insert("enum".to_owned(), words);
    }
}
