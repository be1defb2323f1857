//! `docs/api.md` holds every problem code with its status, and the code has no others.

use std::fs;
use std::path::Path;

use checkback::http::CODES;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_problem_code_is_in_the_document() {
    let document = text("docs/api.md");
    for (code, status) in CODES {
        let row = format!("| {status} | `{code}` |");
        assert!(document.contains(&row), "docs/api.md has no row {row}");
    }
    let rows = document.lines().filter(|line| {
        line.strip_prefix("| ")
            .and_then(|line| line.get(..6))
            .is_some_and(|start| start[..3].bytes().all(|byte| byte.is_ascii_digit()) && &start[3..] == " | ")
    });
    assert_eq!(rows.count(), CODES.len(), "docs/api.md has rows of codes that are not there");
}

#[test]
fn every_code_that_is_sent_is_in_the_list() {
    let source = text("src/http/error.rs");
    let (_, after_list) = source.split_once("];\n").unwrap();
    // Each problem is made by `new(status, code, title, detail)`.
    let made: Vec<&str> = after_list
        .split("Self::new(")
        .skip(1)
        .map(|call| {
            let arguments = &call[..call.find(')').unwrap()];
            assert!(arguments.contains("StatusCode::"), "{arguments}");
            arguments.split('"').nth(1).unwrap()
        })
        .collect();
    assert!(made.len() >= 20, "{made:?}");
    for code in &made {
        assert!(CODES.iter().any(|(known, _)| known == code), "{code} is not in CODES");
    }
    for (code, _) in CODES {
        assert!(made.contains(&code), "{code} is in CODES and never sent");
    }
}

#[test]
fn every_route_is_in_the_document() {
    let (document, source) = (text("docs/api.md"), text("src/http/mod.rs"));
    let routes: Vec<&str> = source.split(".route(\"").skip(1).map(|route| route.split('"').next().unwrap()).collect();
    assert!(routes.len() >= 8, "{routes:?}");
    for route in routes {
        assert!(document.contains(&format!("{route}`")), "docs/api.md does not describe {route}");
    }
}
