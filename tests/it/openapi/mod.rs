//! The API's document: it is what `openapi.json` holds, it has every route and no other, its examples work, and each
//! operation asks for exactly the key that it says.

mod examples;
mod keys;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use checkback::http::{CODES, document};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parsed() -> Value {
    serde_json::from_str(document()).unwrap()
}

/// One operation of the document.
struct Operation {
    path: String,
    method: String,
    spec: Value,
}

impl Operation {
    fn id(&self) -> &str {
        self.spec["operationId"].as_str().unwrap()
    }

    fn is_public(&self) -> bool {
        self.spec["x-listener"] == "public"
    }

    /// The values of the parameters in this place, as far as the document has an example or one is `required`.
    fn parameters(&self, place: &str) -> Vec<&Value> {
        let all = self.spec["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|parameter| parameter["in"] == place).collect()
    }

    /// The examples of a JSON body; one `None` where there is no body.
    fn bodies(&self) -> Vec<Option<Value>> {
        let json = &self.spec["requestBody"]["content"]["application/json"];
        if json.is_null() {
            return vec![None];
        }
        let many = json["examples"].as_object().into_iter().flatten().map(|(_, example)| example["value"].clone());
        let all: Vec<_> = many.chain(json.get("example").cloned()).map(Some).collect();
        assert!(!all.is_empty(), "{} has a body and no example of it", self.id());
        all
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, spec) in methods.as_object().unwrap() {
            found.push(Operation { path: path.clone(), method: method.to_uppercase(), spec: spec.clone() });
        }
    }
    assert!(found.len() >= 20, "the document is nearly empty");
    found
}

#[test]
fn the_committed_document_is_what_the_code_makes() {
    let committed = fs::read_to_string(root().join("openapi.json")).unwrap_or_default();
    // Not `assert_eq`: nobody wants to read both.
    assert!(
        committed == document(),
        "openapi.json is not what the code makes. Look at what changed with: cargo run -- openapi > openapi.json"
    );
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The methods in the arguments of a `.route("…", …)`, up to its end.
fn methods(arguments: &str) -> BTreeSet<String> {
    let mut depth = 1;
    let end = arguments.find(|letter: char| {
        depth += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    let arguments = &arguments[..end.unwrap()];
    let mut found = BTreeSet::new();
    for method in ["get", "post", "put", "patch", "delete"] {
        let call = format!("{method}(");
        let is_called = arguments
            .match_indices(&call)
            .any(|(at, _)| !arguments[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
        if is_called {
            found.insert(method.to_uppercase());
        }
    }
    found
}

fn routes() -> BTreeSet<(String, String)> {
    let mut files = Vec::new();
    sources(&root().join("src/http"), &mut files);
    // Pages for people are no part of the API.
    files.retain(|file| !file.starts_with(root().join("src/http/console")));
    let mut routes = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for route in text.split(".route(").skip(1) {
            let Some((path, arguments)) = route.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'))
            else {
                panic!("{}: a route whose path is not written out: {}", file.display(), &route[..40]);
            };
            let methods = methods(arguments);
            assert!(!methods.is_empty(), "{path} has no methods");
            routes.extend(methods.into_iter().map(|method| (path.to_owned(), method)));
        }
    }
    routes
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let documented: BTreeSet<_> =
        operations(&parsed()).into_iter().map(|operation| (operation.path, operation.method)).collect();
    let routes = routes();
    let missing: Vec<_> = routes.difference(&documented).collect();
    assert!(missing.is_empty(), "routes without an operation (see CONTRIBUTING.md, The API's document): {missing:?}");
    let superfluous: Vec<_> = documented.difference(&routes).collect();
    assert!(superfluous.is_empty(), "operations without a route: {superfluous:?}");
}

#[test]
fn every_operation_says_what_it_is_and_who_may_call_it() {
    let document = parsed();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone()).collect();
    let mut ids = BTreeSet::new();
    for operation in operations(&document) {
        let (spec, id) = (&operation.spec, operation.id());
        assert!(ids.insert(id.to_owned()), "{id} stands for two operations");
        assert!(spec["summary"].as_str().is_some_and(|summary| !summary.ends_with('.')), "{id}");
        assert!(tags.contains(&spec["tags"][0]), "{id} has no tag of the document");
        assert!(["internal", "public", "both"].contains(&spec["x-listener"].as_str().unwrap()), "{id}");
        let scopes = ["register", "read", "evidence", "operate", "erase"];
        let security = match spec["x-required-scope"].as_str() {
            None => json!([]),
            Some(scope) => {
                assert!(scopes.contains(&scope) && !operation.is_public(), "{id}");
                json!([{ "key": [scope] }])
            }
        };
        assert_eq!(spec["security"], security, "{id}");
        let placeholders: BTreeSet<_> =
            operation.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        let named: BTreeSet<_> =
            operation.parameters("path").into_iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(named, placeholders, "{id}");
    }
}

#[test]
fn every_problem_has_a_section_and_every_section_a_problem() {
    let page = fs::read_to_string(root().join("docs/problems.md")).unwrap();
    let examples = &parsed()["components"]["examples"];
    let mut sections = BTreeSet::new();
    for section in page.split("\n## `").skip(1) {
        let (code, text) = section.split_once('`').unwrap();
        assert!(sections.insert(code.to_owned()), "two sections of {code}");
        let (_, status) = CODES
            .into_iter()
            .find(|(known, _)| *known == code)
            .unwrap_or_else(|| panic!("docs/problems.md has a section of {code}, which is no code"));
        for part in [&format!("\n**{status}** "), "\nWhy: ", "\nWhat to do: "] {
            assert!(text.contains(part), "the section of {code} has no {part:?}");
        }
        let body = text.split("```json\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, examples[code]["value"], "the example of {code} is not what is sent");
        assert_eq!(body["type"], format!("urn:checkback:problem:{code}"));
    }
    for (code, _) in CODES {
        assert!(sections.contains(code), "docs/problems.md has no section of {code}");
    }
}

/// Every code is an answer of some operation; those of requests that reach none are told apart.
#[test]
fn every_problem_is_in_the_document() {
    let document = document();
    for (code, _) in CODES.into_iter().filter(|(code, _)| !["not_found", "method_not_allowed"].contains(code)) {
        let reference = format!("\"#/components/examples/{code}\"");
        assert!(document.contains(&reference), "no operation is answered with {code}");
    }
}
