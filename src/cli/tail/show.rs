//! One line for each event, for people or for programs.

use serde_json::{Value, json};

use super::sse::Message;
use crate::cli::client::{text, time};
use crate::cli::output;

const GREEN: u8 = 32;
const RED: u8 = 31;
const YELLOW: u8 = 33;

pub struct Show {
    pub json: bool,
    /// Not only verdicts and problems.
    pub everything: bool,
    pub colours: bool,
}

impl Show {
    pub fn event(&self, message: &Message, body: &Value) {
        if !self.everything && !matters(&message.event, body) {
            return;
        }
        output::line(&if self.json { as_json(message, body) } else { self.words(&message.event, body) });
    }

    fn words(&self, event: &str, body: &Value) -> String {
        let data = &body["data"];
        let (what, colour) = headline(event, data);
        let mut rest: Vec<String> = vec![text(&data["id"]), text(&data["merchant_biz_id"])];
        rest.extend(details(event, data));
        let what = self.coloured(&format!("{what:<20}"), colour);
        let line = format!("{}  {what}  {:<14}  {}", time(&body["timestamp"]), text(&data["account"]), rest.join("  "));
        line.trim_end().to_owned()
    }

    /// What became of an account since it was looked at last.
    pub fn account(&self, name: &str, before: &Value, now: &Value) {
        let (was_failing, is_failing) = (before["status"] == "failing", now["status"] == "failing");
        if is_failing && (!was_failing || before["reason"] != now["reason"]) {
            let line = format!(
                "account {name} is failing since {}: {} ({}); `checkback doctor` says what to do",
                time(&now["since"]),
                text(&now["reason"]),
                text(&now["code"])
            );
            output::line(&self.coloured(&line, RED));
        } else if was_failing && !is_failing {
            output::line(&self.coloured(&format!("account {name} is well again"), GREEN));
        }
    }

    fn coloured(&self, text: &str, colour: u8) -> String {
        if self.colours && colour != 0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A verdict, or something that did not go as it should.
fn matters(event: &str, body: &Value) -> bool {
    let data = &body["data"];
    let outcome = data["outcome"].as_str().unwrap_or_default();
    match event {
        "verdict" => true,
        "check" => !matches!(outcome, "finished" | "running"),
        "evidence" => data["state"] == "missed",
        "webhook" => data["result"] != "delivered",
        _ => false,
    }
}

fn headline(event: &str, data: &Value) -> (String, u8) {
    let status = text(&data["status"]);
    match event {
        "verdict" => {
            let colour = match status.as_str() {
                "passed" => GREEN,
                "failed" | "expired" => RED,
                _ => YELLOW,
            };
            (status, colour)
        }
        "check" | "webhook" => {
            let outcome = text(&data[if event == "check" { "outcome" } else { "result" }]);
            let is_well = matches!(outcome.as_str(), "finished" | "running" | "delivered" | "");
            (format!("{event} {outcome}").trim_end().to_owned(), if is_well { 0 } else { YELLOW })
        }
        "evidence" if data["state"] == "missed" => ("evidence missed".to_owned(), YELLOW),
        "evidence" if !data["read"].is_null() => ("evidence read".to_owned(), 0),
        "evidence" => (format!("evidence {}", text(&data["state"])).trim_end().to_owned(), 0),
        other => (other.to_owned(), 0),
    }
}

fn details(event: &str, data: &Value) -> Option<String> {
    let code = text(&data["code"]);
    Some(match event {
        "verdict" => {
            let revision = data["revision"].as_i64().filter(|revision| *revision > 1);
            let revision = revision.map(|revision| format!("revision {revision}"));
            let sub_code = Some(text(&data["sub_code"])).filter(|code| !code.is_empty());
            [sub_code.map(|code| format!("sub_code {code}")), revision]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("  ")
        }
        "check" => format!("attempt {} {code}", text(&data["attempt"])),
        "webhook" => format!("attempt {} {}", text(&data["attempt"]), text(&data["endpoint"])),
        "evidence" => format!("{}{}", text(&data["evidence"]), text(&data["read"])),
        "operator" => text(&data["action"]),
        _ => return None,
    })
}

fn as_json(message: &Message, body: &Value) -> String {
    let id = message.id.parse::<u64>().map_or(Value::Null, Value::from);
    let mut line = json!({ "id": id, "event": message.event });
    if let (Some(line), Some(body)) = (line.as_object_mut(), body.as_object()) {
        line.extend(body.clone());
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(data: Value) -> Value {
        let mut body = json!({ "type": "x", "timestamp": "2026-11-21T22:55:07.884852Z", "data": data });
        for (name, value) in [("id", "v1"), ("account", "alibaba-sg"), ("merchant_biz_id", "b1")] {
            body["data"][name] = value.into();
        }
        body
    }

    #[test]
    fn verdicts_and_problems_matter_and_the_rest_does_not() {
        for (event, data, expected) in [
            ("verdict", json!({"status": "passed"}), true),
            ("check", json!({"outcome": "unavailable"}), true),
            ("check", json!({"outcome": "account_failing"}), true),
            ("check", json!({"outcome": "running"}), false),
            ("evidence", json!({"state": "missed"}), true),
            ("evidence", json!({"state": "stored"}), false),
            ("registered", json!({}), false),
        ] {
            assert_eq!(matters(event, &body(data)), expected, "{event}");
        }
    }

    #[test]
    fn a_line_says_when_what_where_and_who() {
        let plain = Show { json: false, everything: false, colours: false };
        let failed = body(json!({"status": "failed", "sub_code": "204", "revision": 2}));
        assert_eq!(
            plain.words("verdict", &failed),
            "2026-11-21T22:55:07Z  failed                alibaba-sg      v1  b1  sub_code 204  revision 2"
        );
        let check = body(json!({"status": "collecting", "outcome": "unavailable", "code": "timeout", "attempt": 3}));
        assert_eq!(
            plain.words("check", &check),
            "2026-11-21T22:55:07Z  check unavailable     alibaba-sg      v1  b1  attempt 3 timeout"
        );
        let coloured = Show { colours: true, ..plain };
        assert!(coloured.words("verdict", &failed).contains("\x1b[31mfailed"));
    }

    #[test]
    fn programs_get_everything_on_one_line() {
        let message = Message { id: "7".into(), event: "verdict".into(), data: String::new() };
        let line: Value = serde_json::from_str(&as_json(&message, &body(json!({"status": "passed"})))).unwrap();
        assert_eq!((&line["id"], &line["event"], &line["data"]["id"]), (&json!(7), &json!("verdict"), &json!("v1")));
    }
}
