//! The console over HTTP: who gets in, what forms are taken, what pages show, and that they leak nothing.

use std::collections::BTreeSet;

use checkback::simulator::{Answer, Complete, CreateTransaction};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::support::app::{ACCOUNT, KEY, Setup, TestApp};

const PAGES: [&str; 7] = [
    "/console",
    "/console/verifications",
    "/console/verifications?status=passed&account=alibaba-sg&registered_after=2026-01-31T12:00",
    "/console/unmatched",
    "/console/webhooks",
    "/console/accounts",
    "/console/configuration",
];

/// A section for one more key.
fn key(name: &str, scopes: &str) -> String {
    let digest = hex::encode(Sha256::digest(format!("key-of-{name}")));
    format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nscopes = [{scopes}]\n")
}

/// A browser without JavaScript.
struct Browser<'a> {
    test: &'a TestApp,
    cookie: String,
}

/// With a form as its body.
fn filled(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

fn origin(test: &TestApp) -> String {
    test.internal("")
}

impl<'a> Browser<'a> {
    async fn signed_in(test: &'a TestApp, key: &str) -> Self {
        let answer = sign_in(test, key, "/console").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/console", "; Max-Age=43200"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Secure"), "over plain HTTP the browser would not send it back");
        Self { test, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.test.http.request(method, self.test.internal(path)).header("cookie", &self.cookie)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    /// Sends a form as a browser does: with the token of the page and where the page is from.
    async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let token = token(&self.page("/console").await);
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("form_token", &*token)]).collect();
        let request = self.request(Method::POST, path).header("origin", origin(self.test));
        filled(request, &fields).send().await.unwrap()
    }
}

fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

async fn sign_in(test: &TestApp, key: &str, next: &str) -> Response {
    let post = test.http.post(test.internal("/console/login")).header("origin", origin(test));
    filled(post, &[("key", key), ("next", next)]).send().await.unwrap()
}

fn answer(passed: &str, sub_code: &str) -> Answer {
    Answer { passed: Some(passed.into()), sub_code: Some(sub_code.into()), ..Answer::default() }
}

/// A final one.
async fn passed(test: &TestApp, registration: serde_json::Value) -> String {
    let (transaction, id) = test.begin(CreateTransaction::default(), registration).await;
    test.simulator.complete(&transaction, Complete { callbacks: Some(0), ..Complete::default() }).await.unwrap();
    test.collect(&id).await;
    assert_eq!(test.final_verification(&id).await["status"], "passed");
    id
}

#[tokio::test]
async fn without_a_session_every_page_asks_to_sign_in_and_shows_nothing() {
    let test = TestApp::start().await;
    let id = passed(&test, json!({})).await;
    let more = [format!("/console/verifications/{id}"), "/console/docs".to_owned()];
    for path in PAGES.iter().map(|path| (*path).to_owned()).chain(more) {
        let answer = test.http.get(test.internal(&path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("Sign in") && page.contains("name=\"key\""), "{path}");
        assert!(!page.contains(ACCOUNT) || path.contains(ACCOUNT), "{path}");
        let refused = test.http.get(test.internal(&path)).bearer_auth("wrong").send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(test.get(&path).await.status(), StatusCode::OK, "a key in the header does, {path}");
        let public = test.http.get(test.public(&path)).send().await.unwrap();
        assert_eq!(public.status(), StatusCode::NOT_FOUND, "the public listener has no console");
    }
}

#[tokio::test]
async fn signing_in_leads_back_and_only_into_the_console() {
    let test = TestApp::start().await;
    let wrong = sign_in(&test, "no-such-key", "/console").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let page = wrong.text().await.unwrap();
    assert!(page.contains("That is no key") && !page.contains("no-such-key"), "{page}");
    let location =
        async |next: &str| sign_in(&test, KEY, next).await.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location("/console/accounts").await, "/console/accounts");
    assert_eq!(location("https://evil.example/").await, "/console");
    assert_eq!(location("//evil.example/").await, "/console");
    let browser = Browser::signed_in(&test, KEY).await;
    for path in PAGES {
        let page = browser.page(path).await;
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Sign out"), "{path}");
    }
    assert!(browser.page("/console/docs").await.contains("<h1>Checkback API</h1>"));
    let out = browser.send("/console/logout", &[]).await;
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    let https = test.http.post(test.internal("/console/login"));
    let host = test.internal("").replace("http://", "https://");
    let https = filled(https.header("origin", host), &[("key", KEY)]).send().await.unwrap();
    assert!(https.headers()["set-cookie"].to_str().unwrap().contains("; Secure"));
}

#[tokio::test]
async fn a_session_ends_with_its_time_and_with_its_key_and_holds_on_every_replica() {
    let mut test = TestApp::with(Setup { more: key("viewer", "\"read\""), ..Setup::default() }).await;
    let cookie = Browser::signed_in(&test, "key-of-viewer").await.cookie;
    let replica = test.replica().await;
    let at = async |address: &str| {
        let asked = test.http.get(format!("http://{address}/console")).header("cookie", &cookie);
        asked.send().await.unwrap().status()
    };
    assert_eq!(at(&replica.internal.to_string()).await, StatusCode::OK);
    test.advance(std::time::Duration::from_hours(12));
    assert_eq!(at(&replica.internal.to_string()).await, StatusCode::UNAUTHORIZED);
    replica.shut_down().await;

    let cookie = Browser::signed_in(&test, "key-of-viewer").await.cookie;
    let status = async |test: &TestApp| {
        test.http.get(test.internal("/console")).header("cookie", &cookie).send().await.unwrap().status()
    };
    test.restart().await;
    assert_eq!(status(&test).await, StatusCode::OK);
    test.config = test.config.replace(&key("viewer", "\"read\""), &key("another", "\"read\""));
    test.restart().await;
    assert_eq!(status(&test).await, StatusCode::UNAUTHORIZED, "its key has left the configuration");
}

#[tokio::test]
async fn a_form_without_its_token_or_of_another_site_does_nothing() {
    let test = TestApp::start().await;
    let id = passed(&test, json!({})).await;
    let browser = Browser::signed_in(&test, KEY).await;
    let erase = format!("/console/verifications/{id}/erase");
    let good = token(&browser.page("/console").await);
    let complete = |request: RequestBuilder, token: &str| {
        filled(request, &[("form_token", token), ("confirmation", "erase"), ("reason", "why")])
    };
    let own = origin(&test);
    for (origin, token) in [
        (own.as_str(), ""),
        (&own, "AAAA"),
        ("http://evil.example", &good),
        ("null", &good),
        (&own, &token(&Browser::signed_in(&test, KEY).await.page("/console").await)),
    ] {
        let sent = complete(browser.request(Method::POST, &erase).header("origin", origin), token);
        assert_eq!(sent.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{origin} {token}");
    }
    let no_session = complete(test.http.post(test.internal(&erase)), &good).send().await.unwrap();
    assert_eq!(no_session.status(), StatusCode::UNAUTHORIZED);
    let elsewhere = test.http.post(test.internal("/console/login")).header("origin", "http://evil.example");
    let elsewhere = filled(elsewhere, &[("key", KEY)]).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::FORBIDDEN);
    assert_eq!(test.verification(&id).await["status"], "passed");
}

#[tokio::test]
async fn each_deed_needs_its_scope_and_its_confirmation() {
    let more = key("viewer", "\"read\"") + &key("app", "\"register\", \"read\"") + &key("blind", "\"register\"");
    let test = TestApp::with(Setup { more, ..Setup::default() }).await;
    let transaction =
        CreateTransaction { answers: vec![answer("N", "204"), answer("Y", "200")], ..CreateTransaction::default() };
    let (_, id) = test.begin(transaction, json!({})).await;
    let path = |deed: &str| format!("/console/verifications/{id}/{deed}");
    let viewer = Browser::signed_in(&test, "key-of-viewer").await;
    let page = viewer.page(path("").trim_end_matches('/')).await;
    assert!(!page.contains("/collect\">") && !page.contains("/erase\">"), "{page}");
    for deed in ["collect", "recheck", "erase", "raw", "evidence/face_image"] {
        assert_eq!(viewer.send(&path(deed), &[]).await.status(), StatusCode::FORBIDDEN, "{deed}");
    }
    // It may register, but a page needs the scope read.
    let blind = sign_in(&test, "key-of-blind", "/console").await;
    let cookie = blind.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let refused = test.http.get(test.internal("/console")).header("cookie", cookie).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);

    let app = Browser::signed_in(&test, "key-of-app").await;
    assert_eq!(app.send(&path("collect"), &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(test.final_verification(&id).await["status"], "failed");
    assert_eq!(app.send(&path("collect"), &[]).await.status(), StatusCode::CONFLICT);
    assert_eq!(app.send(&path("recheck"), &[]).await.status(), StatusCode::FORBIDDEN);

    let operator = Browser::signed_in(&test, KEY).await;
    assert_eq!(operator.send(&path("recheck"), &[]).await.status(), StatusCode::SEE_OTHER);
    test.until("another verdict", async || (test.verification(&id).await["revision"] == 2).then_some(())).await;
    let unconfirmed = [("confirmation", "yes"), ("reason", "why")];
    assert_eq!(operator.send(&path("erase"), &unconfirmed).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let unreasoned = [("confirmation", "erase"), ("reason", " ")];
    assert_eq!(operator.send(&path("erase"), &unreasoned).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let erased = operator.send(&path("erase"), &[("confirmation", "erase"), ("reason", "request 4711")]).await;
    assert_eq!(
        erased.headers()["location"].to_str().unwrap(),
        format!("{}?done=erase", path("").trim_end_matches('/'))
    );
    let page = operator.page(&format!("/console/verifications/{id}?done=erase")).await;
    assert!(page.contains("It is erased.") && !page.contains("Ask the provider"), "{page}");
    let history = test.history(&id).await;
    let erased = history.iter().find(|item| item["kind"] == "erased").unwrap();
    assert_eq!((&erased["by"], &erased["reason"]), (&json!("test"), &json!("request 4711")));
    assert_eq!(operator.get("/console/verifications/nothing").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_comes_from_outside_is_escaped_everywhere() {
    let test = TestApp::start().await;
    let hostile = "<script>alert(1)</script>\"'&";
    let transaction = CreateTransaction { answers: vec![answer("N", hostile)], ..CreateTransaction::default() };
    let (transaction, id) = test.begin(transaction, json!({ "metadata": { hostile: hostile } })).await;
    let callback = test.http.post(test.public(&format!("/callbacks/{ACCOUNT}")));
    let claims = [("transactionId", transaction.as_str()), ("passed", hostile), ("subCode", hostile)];
    assert_eq!(filled(callback, &claims).send().await.unwrap().status(), StatusCode::OK);
    let verdict = test.final_verification(&id).await;
    assert_eq!(verdict["sub_code"], hostile);
    // What the API does not take, and an older version may have.
    let pool = test.database.pool().await;
    let planted = "UPDATE verifications SET merchant_biz_id = $1, product = $1, transaction_id = $1";
    sqlx::query(planted).bind(hostile).execute(&pool).await.unwrap();
    let early = "INSERT INTO unmatched_callbacks (account, transaction_id, received_at) VALUES ($1, $2, $3)";
    sqlx::query(early).bind(ACCOUNT).bind(hostile).bind(test.clock.now()).execute(&pool).await.unwrap();
    let browser = Browser::signed_in(&test, KEY).await;
    let one = format!("/console/verifications/{id}");
    let pages = [&*one, "/console", "/console/verifications?status=failed", "/console/unmatched", "/console/accounts"];
    for path in pages {
        let page = browser.page(path).await;
        assert!(!page.contains("<script>alert"), "{path}: {page}");
        assert_eq!(page.matches("<script").count(), 1, "{path}");
    }
    assert!(browser.page(&one).await.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    let given =
        browser.get(&format!("/console/verifications?account={}", "%22%3E%3Cscript%3E")).await.text().await.unwrap();
    assert!(given.contains("&quot;&gt;&lt;script&gt;"), "{given}");
}

#[tokio::test]
async fn every_answer_forbids_what_is_not_from_here() {
    let test = TestApp::start().await;
    let browser = Browser::signed_in(&test, KEY).await;
    let assets: BTreeSet<String> = browser
        .page("/console")
        .await
        .split('"')
        .filter(|part| part.starts_with("/console/assets/"))
        .map(str::to_owned)
        .collect();
    assert_eq!(assets.len(), 3, "{assets:?}");
    let others =
        ["/console/nothing", "/console/verifications/nothing", "/console/verifications?status=x", "/console/login"];
    for path in PAGES.iter().chain(&others).map(|path| (*path).to_owned()).chain(assets.iter().cloned()) {
        let answer = browser.get(&path).await;
        let headers = answer.headers().clone();
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        // What no route serves is a problem of the API.
        if path == "/console/nothing" {
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
            continue;
        }
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!((header("x-content-type-options"), header("x-frame-options")), ("nosniff".into(), "DENY".into()));
        if assets.contains(&path) {
            assert!(header("cache-control").contains("immutable"), "{path}");
            continue;
        }
        assert_eq!(header("cache-control"), "no-store", "{path}");
        let page = answer.text().await.unwrap();
        for inline in [" style=", " onclick=", "<style", "javascript:", "//fonts", "https://"] {
            assert!(!page.contains(inline), "{path}: {inline} in {page}");
        }
        assert!(!page.contains("<script>"), "{path}");
    }
}

#[tokio::test]
async fn evidence_is_shown_by_a_form_that_is_recorded_and_by_nothing_else() {
    let more = key("viewer", "\"read\"");
    let test =
        TestApp::with(Setup { account: "qps = 100000\nreturn_images = true".to_owned(), more, ..Setup::default() })
            .await;
    let id = passed(&test, json!({})).await;
    test.until("stored", async || {
        let body = test.verification(&id).await;
        (body["evidence"][0]["state"] == "stored").then_some(())
    })
    .await;
    let browser = Browser::signed_in(&test, KEY).await;
    let one = format!("/console/verifications/{id}");
    let reads = async || {
        let history = test.history(&id).await;
        history.iter().filter(|item| item["by"] == "test" && item["read"].is_string()).count()
    };
    let page = browser.page(&one).await;
    assert!(page.contains("/evidence/face_image") && !page.contains("<img"), "{page}");
    let asked = browser.get(&format!("{one}/evidence/face_image")).await;
    assert_eq!(asked.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(reads().await, 0, "loading the page reads nothing");
    let shown = browser.send(&format!("{one}/evidence/face_image"), &[]).await;
    assert_eq!(shown.status(), StatusCode::OK);
    assert!(shown.headers()["content-type"].to_str().unwrap().starts_with("image/"));
    assert_eq!(
        (&shown.headers()["cache-control"], &shown.headers()["content-disposition"]),
        (&"no-store".parse().unwrap(), &"inline".parse().unwrap())
    );
    assert!(!shown.bytes().await.unwrap().is_empty());
    assert_eq!(reads().await, 1);
    let raw = browser.send(&format!("{one}/raw"), &[]).await;
    assert_eq!(raw.status(), StatusCode::OK);
    assert!(raw.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(reads().await, 2);
    assert_eq!(browser.send(&format!("{one}/evidence/video"), &[]).await.status(), StatusCode::NOT_FOUND);
    let viewer = Browser::signed_in(&test, "key-of-viewer").await;
    let page = viewer.page(&one).await;
    assert!(!page.contains("/evidence/face_image") && page.contains("needs the scope"), "{page}");
}

#[tokio::test]
async fn filters_are_the_address_and_pages_go_by_keys() {
    let test = TestApp::start().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(test.begin(CreateTransaction::default(), json!({ "merchant_biz_id": format!("order{n}") })).await);
    }
    let browser = Browser::signed_in(&test, KEY).await;
    let page = browser.page("/console/verifications?merchant_biz_id=order1").await;
    assert!(page.contains(&ids[1].1) && !page.contains(&ids[0].1), "{page}");
    assert!(page.contains("value=\"order1\""), "the form keeps what was given");
    assert!(browser.page("/console/verifications?status=expired").await.contains("None is like that."));
    let found = async |text: &str| {
        let answer = browser.get(&format!("/console/find?q={text}")).await;
        answer.headers()["location"].to_str().unwrap().to_owned()
    };
    let one = format!("/console/verifications/{}", ids[2].1);
    for name in [ids[2].1.as_str(), &ids[2].0, "order2"] {
        assert_eq!(found(name).await, one, "{name}");
    }
    assert_eq!(found("nothing").await, "/console/verifications?merchant_biz_id=nothing");
    let wrong = browser.get("/console/verifications?status=lost&colour=red").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.text().await.unwrap().contains("colour"));

    // More than a page.
    let pool = test.database.pool().await;
    for n in 0..60 {
        let at = test.clock.now() - chrono::TimeDelta::minutes(n);
        let id = super::support::planted::id_at(at, u64::try_from(n).unwrap());
        super::support::planted::registered(&pool, id, at, false).await;
        super::support::planted::verdict(&pool, id, at, "review", "0").await;
    }
    let mut path = "/console/verifications?status=review".to_owned();
    let mut rows = Vec::new();
    loop {
        let page = browser.page(&path).await;
        rows.push(page.matches("<th scope=\"row\">").count());
        let Some((_, next)) = page.split_once("<a rel=\"next\" href=\"") else { break };
        path = next.split('"').next().unwrap().replace("&amp;", "&");
    }
    assert_eq!(rows, [50, 10]);
}

#[tokio::test]
async fn the_first_page_tells_what_is_at_risk_and_which_account_fails() {
    let test = TestApp::start().await;
    let browser = Browser::signed_in(&test, KEY).await;
    let calm = browser.page("/console").await;
    assert!(calm.contains("All is well"), "{calm}");
    let pool = test.database.pool().await;
    let at = test.clock.now() - chrono::TimeDelta::minutes(21);
    let id = super::support::planted::id_at(at, 1);
    super::support::planted::registered(&pool, id, at, true).await;
    super::support::planted::held_job(&pool, id, Some(at), false).await;
    test.advance(std::time::Duration::from_secs(3));
    let page = browser.page("/console").await;
    assert!(
        page.contains("Something may be lost") && page.contains("8m 57s left") && page.contains(&id.to_string()),
        "{page}"
    );
    let fail = "UPDATE accounts SET failing_since = $1, failing_reason = 'bad_key', failing_code = 'No.Such.Key', probe_at = $2";
    let now = test.clock.now();
    sqlx::query(fail).bind(now).bind(now + chrono::TimeDelta::hours(1)).execute(&pool).await.unwrap();
    test.advance(std::time::Duration::from_secs(3));
    let page = browser.page("/console").await;
    assert!(page.contains("1 account is failing: alibaba-sg") && page.contains("No.Such.Key"), "{page}");
    let accounts = browser.page("/console/accounts").await;
    assert!(accounts.contains("What to do: ") && accounts.contains("the key is unknown or disabled"), "{accounts}");
}

#[tokio::test]
async fn a_disabled_endpoint_is_shown_and_enabled_again_by_operators_alone() {
    let webhook = "[[webhooks]]\nname = \"app\"\nurl = \"http://127.0.0.1:9/idv?token=planted\"\n\
                   secrets = [\"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"]\n";
    let more = format!("{}{webhook}", key("viewer", "\"read\""));
    let test = TestApp::with(Setup { more, ..Setup::default() }).await;
    let pool = test.database.pool().await;
    let disable = "UPDATE endpoints SET disabled_at = $1, disabled_reason = 'it answered 410'";
    test.until("the endpoint has its row", async || {
        let done = sqlx::query(disable).bind(test.clock.now()).execute(&pool).await.unwrap();
        (done.rows_affected() == 1).then_some(())
    })
    .await;
    let viewer = Browser::signed_in(&test, "key-of-viewer").await;
    let page = viewer.page("/console/webhooks").await;
    assert!(page.contains("it answered 410") && !page.contains("planted") && !page.contains("whsec"), "{page}");
    assert!(!page.contains("/enable"), "{page}");
    let enable = "/console/webhooks/app/enable";
    assert_eq!(viewer.send(enable, &[]).await.status(), StatusCode::FORBIDDEN);
    let operator = Browser::signed_in(&test, KEY).await;
    assert!(operator.page("/console/webhooks").await.contains("Enable app again"));
    assert_eq!(operator.send(enable, &[]).await.status(), StatusCode::SEE_OTHER);
    assert!(!operator.page("/console/webhooks").await.contains("it answered 410"));
    assert_eq!(operator.send("/console/webhooks/nobody/enable", &[]).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let test = TestApp::start().await;
    let browser = Browser::signed_in(&test, KEY).await;
    for path in ["/console/configuration", "/console/accounts"] {
        let page = browser.page(path).await;
        assert!(page.contains("access_key_secret") && page.contains("(secret, set)"), "{path}: {page}");
        assert!(!page.contains("sim-key-secret") && !page.contains(KEY), "{path}");
    }
}

#[tokio::test]
async fn without_keys_the_console_is_shown_under_names_of_this_machine_alone() {
    let mut test = TestApp::start().await;
    let digest = hex::encode(Sha256::digest(KEY));
    let keys = format!("[[auth.keys]]\n            name = \"test\"\n            sha256 = \"{digest}\"");
    assert!(test.config.contains(&keys));
    let scopes = "scopes = [\"register\", \"read\", \"evidence\", \"operate\", \"erase\"]";
    test.config = test.config.replace(&keys, "[auth]\nmode = \"none\"").replace(scopes, "");
    test.restart().await;
    let get = |host: Option<&'static str>| {
        let asked = test.http.get(test.internal("/console"));
        host.map_or_else(|| asked.try_clone().unwrap(), |host| asked.try_clone().unwrap().header("host", host))
    };
    let page = get(None).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("No keys are asked for"));
    assert_eq!(get(Some("evil.example")).send().await.unwrap().status(), StatusCode::FORBIDDEN);
}
