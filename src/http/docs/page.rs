//! The page: an index, the operations by tag, the schemas, the problems. Every text is escaped.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::http::CODES;

/// Where the examples are sent.
const INTERNAL: &str = "http://127.0.0.1:8081";

pub fn render(document: &Value, problems: &str, style: &str) -> String {
    let page = Page { document };
    let mut main = String::new();
    let mut index = String::new();
    for tag in array(&document["tags"]) {
        let name = text(&tag["name"]);
        let mut links = String::new();
        let _ = write!(main, "<h2>{}</h2>{}", escape(name), paragraphs(text(&tag["description"])));
        for (path, method, operation) in page.operations(name) {
            let id = escape(text(&operation["operationId"]));
            let _ = write!(
                links,
                "<li><a href=\"#{id}\"><span class=\"method {method}\">{method}</span> {}</a></li>",
                escape(path)
            );
            main.push_str(&page.operation(path, method, operation));
        }
        let _ = write!(index, "<h2>{}</h2><ul>{links}</ul>", escape(name));
    }
    let (schemas, schema_links) = page.schemas();
    let (sections, problem_links) = problem_sections(problems);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Checkback API</title>\
         <style>{style}</style></head><body><div class=\"page\"><nav aria-label=\"Contents\">{index}\
         <h2>Schemas</h2><ul>{schema_links}</ul><h2>Problems</h2><ul>{problem_links}</ul></nav>\
         <main><h1>Checkback API</h1><p class=\"soft\">Version {}; the same as <a href=\"/openapi.json\">openapi.json</a>\
         </p>{}{main}<h2>Schemas</h2>{schemas}<h2>Problems</h2>{sections}</main></div></body></html>\n",
        escape(text(&document["info"]["version"])),
        paragraphs(text(&document["info"]["description"])),
    )
}

struct Page<'a> {
    document: &'a Value,
}

impl<'a> Page<'a> {
    fn operations(&self, tag: &str) -> Vec<(&'a str, &'a str, &'a Value)> {
        let mut found = Vec::new();
        for (path, methods) in members(&self.document["paths"]) {
            for (method, operation) in members(methods) {
                if operation["tags"][0] == tag {
                    found.push((path.as_str(), method.as_str(), operation));
                }
            }
        }
        found
    }

    fn operation(&self, path: &str, method: &str, operation: &Value) -> String {
        let id = escape(text(&operation["operationId"]));
        let mut out = format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\"><h3 id=\"{id}-title\">{}</h3>\
             <p class=\"line\"><span class=\"method {method}\">{method}</span> {}</p>",
            escape(text(&operation["summary"])),
            escape(path)
        );
        let listener = match text(&operation["x-listener"]) {
            "both" => "both listeners",
            "public" => "the public listener",
            _ => "the internal listener",
        };
        let key = operation["x-required-scope"].as_str().map_or_else(
            || "needs no key".to_owned(),
            |scope| format!("needs a key with the scope <code>{scope}</code>"),
        );
        let _ = write!(out, "<p class=\"soft\">On {listener}; {key}.</p>");
        out.push_str(&paragraphs(text(&operation["description"])));
        let parameters = array(&operation["parameters"]);
        if !parameters.is_empty() {
            out.push_str(
                "<h4>Parameters</h4><div class=\"wide\"><table><thead><tr><th scope=\"col\">Name</th>\
                <th scope=\"col\">In</th><th scope=\"col\">Value</th></tr></thead><tbody>",
            );
            for parameter in parameters {
                let required = if parameter["required"] == true { ", required" } else { "" };
                let _ = write!(
                    out,
                    "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}{}</td></tr>",
                    escape(text(&parameter["name"])),
                    escape(text(&parameter["in"])),
                    self.kind(&parameter["schema"]),
                    remark(text(&parameter["description"])),
                );
            }
            out.push_str("</tbody></table></div>");
        }
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            let left_out = if operation["requestBody"]["required"] == false { " (may be left out)" } else { "" };
            let _ = write!(out, "<h4>Body{left_out}</h4><p>");
            for (kind, body) in content {
                let _ = write!(out, "<code>{}</code>: {}<br>", escape(kind), self.kind(&body["schema"]));
            }
            out.push_str("</p>");
        }
        out.push_str("<h4>Example</h4>");
        for (summary, body) in request_examples(operation) {
            if let Some(summary) = summary {
                let _ = write!(out, "<p class=\"soft\">{}</p>", escape(summary));
            }
            let _ = write!(out, "<pre><code>{}</code></pre>", escape(&curl(path, method, operation, body)));
        }
        out.push_str(
            "<h4>Answers</h4><div class=\"wide\"><table><thead><tr><th scope=\"col\">Status</th>\
            <th scope=\"col\">When</th><th scope=\"col\">Body</th></tr></thead><tbody>",
        );
        for (status, response) in members(&operation["responses"]) {
            let bodies: Vec<String> = members(&response["content"])
                .map(|(kind, body)| match kind.as_str() {
                    "application/problem+json" => "<a href=\"#schema-Problem\">Problem</a>".to_owned(),
                    kind if body["schema"].is_null() => format!("<span class=\"soft\">{}</span>", escape(kind)),
                    kind => format!("{} <span class=\"soft\">{}</span>", self.kind(&body["schema"]), escape(kind)),
                })
                .collect();
            let _ = write!(
                out,
                "<tr><td>{status}</td><td>{}</td><td>{}</td></tr>",
                link_problems(text(&response["description"])),
                bodies.join("<br>"),
            );
        }
        out.push_str("</tbody></table></div></section>");
        out
    }

    fn schemas(&self) -> (String, String) {
        let (mut out, mut links) = (String::new(), String::new());
        for (name, schema) in members(&self.document["components"]["schemas"]) {
            let name = escape(name);
            let _ = write!(links, "<li><a href=\"#schema-{name}\">{name}</a></li>");
            let _ = write!(
                out,
                "<section id=\"schema-{name}\"><h3>{name}</h3>{}",
                paragraphs(text(&schema["description"]))
            );
            if schema["properties"].is_object() {
                out.push_str(
                    "<div class=\"wide\"><table><thead><tr><th scope=\"col\">Member</th>\
                    <th scope=\"col\">Value</th></tr></thead><tbody>",
                );
                self.rows(&mut out, "", schema);
                out.push_str("</tbody></table></div>");
            } else {
                let _ = write!(out, "<p>{}</p>", self.kind(schema));
            }
            out.push_str("</section>");
        }
        (out, links)
    }

    fn rows(&self, out: &mut String, before: &str, schema: &Value) {
        for (name, member) in members(&schema["properties"]) {
            let always = array(&schema["required"]).iter().any(|required| required == name.as_str());
            let _ = write!(
                out,
                "<tr><td><code>{before}{}</code>{}</td><td>{}{}</td></tr>",
                escape(name),
                if always { "" } else { " <span class=\"soft\">optional</span>" },
                self.kind(member),
                remark(text(&member["description"])),
            );
            let inner = if member["items"].is_object() { &member["items"] } else { member };
            self.rows(
                out,
                &format!("{before}{}{}", escape(name), if member["items"].is_object() { "[]." } else { "." }),
                inner,
            );
        }
    }

    /// What a value may be, in a few words.
    fn kind(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
            return format!("<a href=\"#schema-{0}\">{0}</a>", escape(name));
        }
        for (several, word) in [("oneOf", " or "), ("allOf", " and ")] {
            if let Some(parts) = schema[several].as_array() {
                return parts.iter().map(|part| self.kind(part)).collect::<Vec<_>>().join(word);
            }
        }
        if let Some(words) = schema["enum"].as_array() {
            let words = words.iter().map(|word| format!("<code>{}</code>", escape(&word.to_string().replace('"', ""))));
            return words.collect::<Vec<_>>().join(" ");
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().map(text).collect(),
            _ => vec!["any"],
        };
        let mut out = kinds.join(" or ");
        if schema["items"].is_object() {
            let _ = write!(out, " of {}", self.kind(&schema["items"]));
        }
        if let Some(format) = schema["format"].as_str() {
            let _ = write!(out, " ({})", escape(format));
        }
        for (name, word) in
            [("minimum", "from"), ("maximum", "to"), ("minLength", "at least"), ("maxLength", "at most")]
        {
            if let Some(bound) = schema[name].as_i64() {
                let _ = write!(out, ", {word} {bound}{}", if name.ends_with("Length") { " characters" } else { "" });
            }
        }
        // What only keeps control characters out says nothing to a reader.
        if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !pattern.contains("\\x00")) {
            let _ = write!(out, " <code>{}</code>", escape(pattern));
        }
        out
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

/// The sections of `docs/problems.md`, which begin with `## ` and a code in back quotes.
fn problem_sections(problems: &str) -> (String, String) {
    let (mut out, mut links) = (String::new(), String::new());
    for section in problems.split("\n## `").skip(1) {
        let Some((code, body)) = section.split_once('`') else { continue };
        let code = escape(code);
        let _ = write!(links, "<li><a href=\"#problem-{code}\">{code}</a></li>");
        let _ = write!(out, "<section id=\"problem-{code}\"><h3>{code}</h3>");
        let mut fence = false;
        for part in body.split("```") {
            if fence {
                let code = part.strip_prefix("json").unwrap_or(part);
                let _ = write!(out, "<pre><code>{}</code></pre>", escape(code.trim()));
            } else {
                out.push_str(&paragraphs(part));
            }
            fence = !fence;
        }
        out.push_str("</section>");
    }
    (out, links)
}

/// Codes lead to what they mean.
fn link_problems(description: &str) -> String {
    let mut out = String::new();
    for (index, part) in description.split('`').enumerate() {
        let part = escape(part);
        let is_code = CODES.iter().any(|(code, _)| *code == part);
        let _ = match (index % 2, is_code) {
            (1, true) => write!(out, "<a href=\"#problem-{part}\"><code>{part}</code></a>"),
            (1, false) => write!(out, "<code>{part}</code>"),
            _ => write!(out, "{part}"),
        };
    }
    out
}

/// What is said of a value, below it.
fn remark(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("<br><span class=\"soft\">{}</span>", inline(words)) }
}

/// Text with paragraphs and back quotes.
fn paragraphs(words: &str) -> String {
    let parts = words.split("\n\n").map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| format!("<p>{}</p>", inline(part))).collect()
}

fn inline(words: &str) -> String {
    let parts = words.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) })
        .collect()
}

fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
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
