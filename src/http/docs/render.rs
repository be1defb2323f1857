//! The page: an index, the operations by tag, the schemas, the problems.

use std::fmt::Write;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};

use crate::http::CODES;

/// Where the examples are sent.
const INTERNAL: &str = "http://127.0.0.1:8081";

pub fn render(document: &Value, problems: &str, style: &str) -> String {
    let tags: Vec<(&str, &str)> =
        array(&document["tags"]).iter().map(|tag| (text(&tag["name"]), text(&tag["description"]))).collect();
    let schemas = || members(&document["components"]["schemas"]);
    let problems = sections(problems);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Checkback API" }
                // A file of this repository.
                style { (PreEscaped(style)) }
            }
            body {
                div.page {
                    nav aria-label="Contents" {
                        @for (tag, _) in &tags {
                            h2 { (tag) }
                            ul {
                                @for (path, method, operation) in operations(document, tag) {
                                    li {
                                        a href={ "#" (text(&operation["operationId"])) } { (sort(method)) " " (path) }
                                    }
                                }
                            }
                        }
                        h2 { "Schemas" }
                        ul { @for (name, _) in schemas() { li { a href={ "#schema-" (name) } { (name) } } } }
                        h2 { "Problems" }
                        ul { @for (code, _) in &problems { li { a href={ "#problem-" (code) } { (code) } } } }
                    }
                    main {
                        h1 { "Checkback API" }
                        p.soft {
                            "Version " (text(&document["info"]["version"])) "; the same as "
                            a href="/openapi.json" { "openapi.json" }
                        }
                        (paragraphs(text(&document["info"]["description"])))
                        @for (tag, description) in &tags {
                            h2 { (tag) }
                            (paragraphs(description))
                            @for (path, method, one) in operations(document, tag) { (operation(path, method, one)) }
                        }
                        h2 { "Schemas" }
                        @for (name, one) in schemas() { (schema(name, one)) }
                        h2 { "Problems" }
                        @for (code, body) in &problems { (problem(code, body)) }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn operations<'a>(document: &'a Value, tag: &str) -> Vec<(&'a str, &'a str, &'a Value)> {
    members(&document["paths"])
        .flat_map(|(path, methods)| members(methods).map(move |(method, one)| (path.as_str(), method.as_str(), one)))
        .filter(|(_, _, operation)| operation["tags"][0] == tag)
        .collect()
}

/// GET, POST and so on, each in its colour.
fn sort(method: &str) -> Markup {
    html! { span class={ "method " (method) } { (method) } }
}

fn operation(path: &str, method: &str, operation: &Value) -> Markup {
    let id = text(&operation["operationId"]);
    let listener = match text(&operation["x-listener"]) {
        "both" => "both listeners",
        "public" => "the public listener",
        _ => "the internal listener",
    };
    let parameters = array(&operation["parameters"]);
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            h3 id={ (id) "-title" } { (text(&operation["summary"])) }
            p.line { (sort(method)) " " (path) }
            p.soft {
                "On " (listener) "; "
                @if let Some(scope) = operation["x-required-scope"].as_str() {
                    "needs a key with the scope " code { (scope) } "."
                } @else {
                    "needs no key."
                }
            }
            (paragraphs(text(&operation["description"])))
            @if !parameters.is_empty() {
                h4 { "Parameters" }
                (table("Parameters", &["Name", "In", "Value"], &html! {
                    @for parameter in parameters {
                        tr {
                            td { code { (text(&parameter["name"])) } }
                            td { (text(&parameter["in"])) @if parameter["required"] == true { ", required" } }
                            td { (shape(&parameter["schema"])) (remark(text(&parameter["description"]))) }
                        }
                    }
                }))
            }
            @if let Some(content) = operation["requestBody"]["content"].as_object() {
                h4 { "Body" @if operation["requestBody"]["required"] == false { " (may be left out)" } }
                p { @for (kind, body) in content { code { (kind) } ": " (shape(&body["schema"])) br; } }
            }
            h4 { "Example" }
            @for (summary, body) in request_examples(operation) {
                @if let Some(summary) = summary { p.soft { (summary) } }
                pre tabindex="0" { code { (curl(path, method, operation, body)) } }
            }
            h4 { "Answers" }
            (table("Answers", &["Status", "When", "Body"], &html! {
                @for (status, response) in members(&operation["responses"]) {
                    tr {
                        td { (status) }
                        td { (link_problems(text(&response["description"]))) }
                        td {
                            @for (index, (kind, body)) in members(&response["content"]).enumerate() {
                                @if index > 0 { br; }
                                (answer(kind, body))
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn answer(kind: &str, body: &Value) -> Markup {
    html! {
        @if kind == "application/problem+json" {
            a href="#schema-Problem" { "Problem" }
        } @else {
            @if !body["schema"].is_null() { (shape(&body["schema"])) " " }
            span.soft { (kind) }
        }
    }
}

fn schema(name: &str, schema: &Value) -> Markup {
    html! {
        section id={ "schema-" (name) } {
            h3 { (name) }
            (paragraphs(text(&schema["description"])))
            @if schema["properties"].is_object() {
                (table("Members", &["Member", "Value"], &rows("", schema)))
            } @else {
                p { (shape(schema)) }
            }
        }
    }
}

/// The members of a schema and, below each, those of what it holds.
fn rows(before: &str, schema: &Value) -> Markup {
    html! {
        @for (name, member) in members(&schema["properties"]) {
            @let always = array(&schema["required"]).iter().any(|required| required == name.as_str());
            @let is_list = member["items"].is_object();
            tr {
                td { code { (before) (name) } @if !always { " " span.soft { "optional" } } }
                td { (shape(member)) (remark(text(&member["description"]))) }
            }
            @let inner = if is_list { &member["items"] } else { member };
            (rows(&format!("{before}{name}{}", if is_list { "[]." } else { "." }), inner))
        }
    }
}

/// It can be moved with the keys where it is wider than the screen.
fn table(name: &str, heads: &[&str], rows: &Markup) -> Markup {
    html! {
        div.wide role="group" aria-label=(name) tabindex="0" {
            table {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// What a value may be, in a few words.
fn shape(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    for (several, word) in [("oneOf", " or "), ("allOf", " and ")] {
        if let Some(parts) = schema[several].as_array() {
            return html! {
                @for (index, part) in parts.iter().enumerate() { @if index > 0 { (word) } (shape(part)) }
            };
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return html! {
            @for word in words { code { (word.to_string().replace('"', "")) } " " }
        };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().map(text).collect(),
        _ => vec!["any"],
    };
    let mut bounds = String::new();
    for (name, word) in [("minimum", "from"), ("maximum", "to"), ("minLength", "at least"), ("maxLength", "at most")] {
        if let Some(bound) = schema[name].as_i64() {
            let _ = write!(bounds, ", {word} {bound}{}", if name.ends_with("Length") { " characters" } else { "" });
        }
    }
    html! {
        (kinds.join(" or "))
        @if schema["items"].is_object() { " of " (shape(&schema["items"])) }
        @if let Some(format) = schema["format"].as_str() { " (" (format) ")" }
        (bounds)
        // What only keeps control characters out says nothing to a reader.
        @if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !pattern.contains("\\x00")) {
            " " code { (pattern) }
        }
    }
}

/// The sections of `docs/problems.md`, which begin with `## ` and a code in back quotes.
fn sections(problems: &str) -> Vec<(&str, &str)> {
    problems.split("\n## `").skip(1).filter_map(|section| section.split_once('`')).collect()
}

fn problem(code: &str, body: &str) -> Markup {
    html! {
        section id={ "problem-" (code) } {
            h3 { (code) }
            @for (index, part) in body.split("```").enumerate() {
                @if index % 2 == 1 {
                    pre tabindex="0" { code { (part.strip_prefix("json").unwrap_or(part).trim()) } }
                } @else {
                    (paragraphs(part))
                }
            }
        }
    }
}

/// Codes lead to what they mean.
fn link_problems(description: &str) -> Markup {
    html! {
        @for (index, part) in description.split('`').enumerate() {
            @if index % 2 == 0 {
                (part)
            } @else if CODES.iter().any(|(code, _)| *code == part) {
                a href={ "#problem-" (part) } { code { (part) } }
            } @else {
                code { (part) }
            }
        }
    }
}

/// What is said of a value, below it.
fn remark(words: &str) -> Markup {
    html! { @if !words.is_empty() { br; span.soft { (inline(words)) } } }
}

/// Text with paragraphs and back quotes.
fn paragraphs(words: &str) -> Markup {
    html! {
        @for part in words.split("\n\n").map(str::trim).filter(|part| !part.is_empty()) { p { (inline(part)) } }
    }
}

fn inline(words: &str) -> Markup {
    html! {
        @for (index, part) in words.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The bodies to show, each with what it is; without a body one example all the same.
fn request_examples(operation: &Value) -> Vec<(Option<&str>, Option<&Value>)> {
    let json = &operation["requestBody"]["content"]["application/json"];
    let mut found: Vec<(Option<&str>, Option<&Value>)> =
        members(&json["examples"]).map(|(_, one)| (one["summary"].as_str(), Some(&one["value"]))).collect();
    if found.is_empty() {
        found.push((None, json.get("example")));
    }
    found
}

fn curl(path: &str, method: &str, operation: &Value, body: Option<&Value>) -> String {
    let parameters = array(&operation["parameters"]);
    let mut path = path.to_owned();
    let mut query = Vec::new();
    for parameter in parameters {
        let name = text(&parameter["name"]);
        let example = match &parameter["example"] {
            Value::Null => None,
            Value::String(example) => Some(example.clone()),
            other => Some(other.to_string()),
        };
        match text(&parameter["in"]) {
            "path" => {
                let value = example.unwrap_or_else(|| format!("${}", name.to_uppercase()));
                path = path.replace(&format!("{{{name}}}"), &value);
            }
            "query" => query.extend(example.map(|example| format!("{name}={example}"))),
            _ => {}
        }
    }
    if !query.is_empty() {
        let _ = write!(path, "?{}", query.join("&"));
    }
    let base = operation["servers"][0]["url"].as_str().unwrap_or(INTERNAL);
    let method = method.to_uppercase();
    let mut out = "curl".to_owned();
    if method != "GET" {
        let _ = write!(out, " -X {method}");
    }
    let _ = write!(out, " \"{base}{path}\"");
    if !operation["x-required-scope"].is_null() {
        out.push_str(" \\\n  -H \"Authorization: Bearer $KEY\"");
    }
    if let Some(body) = body {
        let text = body.to_string().replace('\'', "'\\''");
        let _ = write!(out, " \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'");
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE).iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_text_of_the_document_becomes_markup() {
        let evil = "<script>\"'&</script>";
        let document = json!({
            "info": { "version": evil, "description": evil },
            "tags": [{ "name": "t", "description": evil }],
            "paths": { "/a": { "get": { "tags": ["t"], "operationId": "o", "summary": evil, "description": evil,
                "parameters": [{ "name": evil, "in": "query", "example": evil, "description": evil,
                    "schema": { "type": "string", "enum": [evil], "pattern": evil } }],
                "requestBody": { "content": { "application/json": { "example": { "a": evil } } } },
                "responses": { "200": { "description": evil } } } } },
            "components": { "schemas": { "S": { "description": evil, "properties": { "m": { "description": evil } } } } },
        });
        let page = render(&document, &format!("\n## `code`\n\n{evil}\n"), "");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn an_example_can_be_pasted() {
        let operation = json!({ "x-required-scope": "read", "servers": [{ "url": "http://h" }], "parameters": [
            { "name": "id", "in": "path" }, { "name": "wait", "in": "query", "example": 30 },
            { "name": "cursor", "in": "query" }] });
        let body = json!({ "reason": "it's" });
        assert_eq!(
            curl("/v/{id}", "delete", &operation, Some(&body)),
            "curl -X DELETE \"http://h/v/$ID?wait=30\" \\\n  -H \"Authorization: Bearer $KEY\" \\\n  \
             -H 'Content-Type: application/json' \\\n  -d '{\"reason\":\"it'\\''s\"}'"
        );
    }
}
